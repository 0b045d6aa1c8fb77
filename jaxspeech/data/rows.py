"""The lines of a manifest one by one, bad ones too, worked on by several processes.

`Manifest` refuses a file with a bad line, because a run must not start on one. What cleans a manifest counts the bad
line with its file and number, and goes on.
"""

import array
import dataclasses
import itertools
import math
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from jaxspeech.data import audio, record
from jaxspeech.data.lines import refuse_pipe
from jaxspeech.data.record import Record
from jaxspeech.errors import UserError

_BOM = b"\xef\xbb\xbf"
_MOST_PROCESSES = 8
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a manifest.

    Attributes:
        place: its number among the lines that are not blank, from 0.
        where: the file and the line, such as "train.jsonl:7".
        row: its JSON object with absolute audio paths; {} where the line is bad.
        problem: (reason, detail) where the line is bad, else None.
    """

    place: int
    where: str
    row: dict[str, Any]
    problem: tuple[str, str] | None = None

    def record(self) -> Record:
        """What is played, with the duration from the headers of the audio where the line states none.

        Raises:
            AudioError: it states none, and the audio does not tell it.
        """
        stated = record.check(self.row)
        if stated is not None:
            return record.build(self.row, stated, "")
        return record.build(self.row, audio.played(record.build(self.row, math.nan, "")), "")


class Rows:
    """The lines of a manifest by number. Holds 16 bytes a line; it pickles without an open file.

    Raises:
        UserError: the file cannot be read, or it holds no lines.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.path.abspath(os.fspath(path))
        self.name = os.path.basename(self.path)
        refuse_pipe(os.fspath(path))
        self._descriptor: int | None = None
        begins, numbers = array.array("q"), array.array("q")
        position = 0
        try:
            with open(self.path, "rb", buffering=1 << 20) as file:
                for number, line in enumerate(file, start=1):
                    if line.strip() not in (b"", _BOM):
                        begins.append(position)
                        numbers.append(number)
                    position += len(line)
        except FileNotFoundError:
            raise UserError(f"manifest {self.path} does not exist; give the path of a .jsonl file") from None
        except OSError as error:
            raise UserError(f"manifest {self.path} cannot be read: {error.strerror}") from error
        if not begins:
            raise UserError(
                f"manifest {self.path} holds no records; each line is one JSON object with id, audio, text, duration"
            )
        begins.append(position)
        self._begins, self._numbers = np.frombuffer(begins, np.int64), np.frombuffer(numbers, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> Row:
        if not 0 <= place < len(self):
            raise IndexError(f"line {place} of {len(self)} in {self.path}")
        begin, end = int(self._begins[place]), int(self._begins[place + 1])
        line = os.pread(self._file(), end - begin, begin).partition(b"\n")[0].removeprefix(_BOM)
        where = self.where(place)
        try:
            row = record.decode(line)
            record.check(row)
        except ValueError as error:
            return Row(place, where, {}, ("bad line", str(error)))
        return Row(place, where, _absolute(row, os.path.dirname(self.path)))

    def where(self, place: int) -> str:
        """The file and the number of a line."""
        return f"{self.name}:{self._numbers[place]}"

    def _file(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        return self._descriptor

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptor": None}

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)  # type: ignore[arg-type]


def each(
    function: Callable[[Row], _Result],
    rows: Rows,
    places: Sequence[int] | np.ndarray | None = None,
    *,
    processes: int = 0,
    block: int = 512,
    what: str = "lines",
) -> Iterator[_Result]:
    """`function` of every line, in order, by several processes. A bar shows it on a terminal.

    Args:
        function: of the top level of a module (or a `functools.partial` of one): it travels between processes.
        places: which lines; None: all.
        processes: how many work; 0: one a core, at most 8. One block is worked on here.
        block: lines that travel together.
        what: label of the bar.

    Raises:
        UserError: a process died.
    """
    chosen = np.arange(len(rows)) if places is None else np.asarray(places, np.int64)
    blocks = [chosen[first : first + block] for first in range(0, len(chosen), block)]
    workers = min(processes or min(os.cpu_count() or 1, _MOST_PROCESSES), len(blocks))
    with tqdm(total=len(chosen), desc=what, disable=None, leave=False) as bar:
        results = _here(function, rows, blocks) if workers <= 1 else _elsewhere(function, rows, blocks, workers)
        for part in results:
            yield from part
            bar.update(len(part))


def _here(function: Callable[[Row], _Result], rows: Rows, blocks: list[np.ndarray]) -> Iterator[list[_Result]]:
    for places in blocks:
        yield _work(function, rows, places)


def _elsewhere(
    function: Callable[[Row], _Result], rows: Rows, blocks: list[np.ndarray], workers: int
) -> Iterator[list[_Result]]:
    """Blocks in order; few are under way at a time, so that memory stays flat."""
    waiting: deque[Future[list[_Result]]] = deque()
    left = iter(blocks)
    # Spawned, not forked: the caller may hold threads of jax or of a progress bar.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(function, rows)) as pool:
        try:
            waiting.extend(pool.submit(_work_there, places) for places in itertools.islice(left, 4 * workers))
            while waiting:
                done = waiting.popleft().result()
                waiting.extend(pool.submit(_work_there, places) for places in itertools.islice(left, 1))
                yield done
        except BrokenProcessPool:
            raise UserError(
                f"{rows.path}: a process that worked on it died, maybe for lack of memory; try fewer with --processes"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_given: list[Any] = []  # what the processes of a pool work with: sent once, not with every block


def _begin(function: Callable[[Row], Any], rows: Rows) -> None:
    _given[:] = [function, rows]


def _work_there(places: np.ndarray) -> list[Any]:
    function, rows = _given
    return _work(function, rows, places)


def _work(function: Callable[[Row], _Result], rows: Rows, places: np.ndarray) -> list[_Result]:
    return [function(rows[int(place)]) for place in places]


def _absolute(row: dict[str, Any], folder: str) -> dict[str, Any]:
    """The row with absolute audio paths."""
    if row.get("segments") is not None:
        return row | {"segments": [_absolute(piece, folder) for piece in row["segments"]]}
    path = row["audio"]
    return row if "://" in path else row | {"audio": os.path.normpath(os.path.join(folder, path))}
