"""What a run measured: metrics.jsonl, which is the record, and TensorBoard and W&B, which show it.

A run that starts again from step s writes the lines after s once more: those of the run before are cut off first, so
that the file reads as if nothing had happened.
"""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from jaxspeech.errors import UserError
from jaxspeech.observe.boards import Board, TensorBoard, Wandb

FILE = "metrics.jsonl"


class LogSection(Protocol):
    """The keys of `config.log` that are read here."""

    tensorboard: bool
    wandb: str


class Writer:
    """Writes metrics to `<workdir>/metrics.jsonl` and whatever else `config.log` asks for.

    Args:
        workdir: the run's folder; made if it is not there.
        log_section: `config.log`.
        resume_step: lines of later steps are cut off; -1 for a run without a checkpoint, which keeps none.
        evaluated: False: so are those of an evaluation of that step, which comes again.
        config: the whole config, for W&B to show.
        main_process: only the main process writes; None asks jax.

    Raises:
        UserError: the folder cannot be written, or W&B is wanted and not installed or not reachable.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        log_section: LogSection,
        *,
        resume_step: int,
        evaluated: bool = True,
        config: Mapping[str, Any] | None = None,
        main_process: bool | None = None,
    ) -> None:
        self.path = pathlib.Path(workdir) / FILE
        self._file: int | None = None
        self._boards: list[Board] = []
        if main_process is None:
            import jax

            main_process = jax.process_index() == 0
        if not main_process:
            return
        with _explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            cut(self.path, resume_step, evaluated)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            if log_section.tensorboard:
                self._boards.append(TensorBoard(self.path.parent, resume_step))
            if log_section.wandb:
                self._boards.append(Wandb(self.path.parent, log_section.wandb, config))

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Appends one line and shows its numbers; on disk (in the kernel's hands) when it returns.

        Args:
            metrics: plain values, numpy scalars or arrays of one element; `step` is required. Floats are written so
                that they read back bit for bit; NaN and infinities, which JSON has not, become null.

        Raises:
            UserError: the disk is full or gone. The file then ends with the line before.
        """
        if self._file is None:
            return
        line = {key: _plain(value) for key, value in metrics.items()}
        with _explained(self.path):
            _append(self._file, json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            for board in self._boards:
                board.write(line)

    def close(self) -> None:
        """Closes the files. Safe to call twice."""
        if self._file is None:
            return
        file, self._file = self._file, None
        os.close(file)
        with _explained(self.path):
            for board in self._boards:
                board.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl as dicts. A line that is not whole (the run was killed, or writes) is left out."""
    with open(path, "rb") as file:
        for line in file:
            found = _parse(line)
            if found is not None:
                yield found


def cut(path: str | os.PathLike[str], step: int, evaluated: bool = True) -> None:
    """Removes the lines of a metrics.jsonl that belong to later steps, and lines that are not whole. Atomic.

    Not `evaluated`: also those of an evaluation of `step` itself.
    """

    def stays(found: dict[str, Any] | None) -> bool:
        if found is None or found["step"] > step:
            return False
        return evaluated or found["step"] < step or found.get("split") != "eval"

    path = pathlib.Path(path)
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if stays(_parse(line))]
    if kept == lines:
        return
    if kept == lines[: len(kept)]:  # as a rule what goes is the end, and that needs no room on the disk
        os.truncate(path, sum(map(len, kept)))
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.writelines(kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(found, dict) and isinstance(found.get("step"), int)
    return found if whole else None


def _plain(value: Any) -> Any:
    """Something that JSON has: arrays of one element become numbers, what is not finite becomes null."""
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()  # numpy and jax; float32 becomes the same number in float64
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def _append(file: int, line: bytes) -> None:
    """Writes a whole line or none of it."""
    start = os.fstat(file).st_size
    rest = memoryview(line)
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file, start)
        raise


@contextlib.contextmanager
def _explained(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"metrics cannot be written to {path.parent}: {error.strerror or error}; make room or check the "
            "permissions, and start the same command again"
        ) from error
