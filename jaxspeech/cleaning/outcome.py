"""What became of the lines of a manifest: kept, filtered or failed, each with file and line, and totals that add up."""

import collections
import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

from jaxspeech.data.lines import write_manifest
from jaxspeech.data.rows import Row
from jaxspeech.errors import UserError

MAX_FAILED = 0.05  # share of the lines
_FEW = 10  # so many failures stop nothing


class Outcome:
    """Counts lines, and writes what was not kept to `<name>.rejected.jsonl` beside the manifest `<name>.jsonl`.

    Args:
        out: the manifest to write; None counts and writes nothing.
        sources: manifests that are read meanwhile.

    Raises:
        UserError: `out` is one of the sources.
    """

    def __init__(self, out: str | os.PathLike[str] | None, *sources: str):
        self.out = None if out is None else pathlib.Path(os.path.abspath(out))
        if self.out is not None:
            read = set(map(os.path.realpath, sources))
            if os.path.realpath(self.out) in read:
                raise UserError(f"--out {out} is the manifest that is read; write another one")
            if os.path.realpath(self._rejected) in read:
                raise UserError(f"--out {out} would replace {self._rejected}, which is read; give --out another name")
        self.kept = self.written = 0
        self.seconds = 0.0
        self.filtered: collections.Counter[str] = collections.Counter()
        self.failed: collections.Counter[str] = collections.Counter()
        self.seconds_lost: collections.defaultdict[str, float] = collections.defaultdict(float)  # by reason
        self._lines: list[str] = []  # of the rejected, until they are written
        self._part: pathlib.Path | None = None
        self._first_failure = ""

    def keep(self, count: int = 1) -> None:
        """Lines that go on."""
        self.kept += count

    def reject(
        self,
        row: Row,
        reason: str,
        detail: str = "",
        kind: Literal["filtered", "failed"] = "filtered",
        seconds: float = 0.0,
    ) -> None:
        """A line that does not; `seconds` where they are known."""
        (self.filtered if kind == "filtered" else self.failed)[reason] += 1
        self.seconds_lost[reason] += seconds
        if kind == "failed" and not self._first_failure:
            self._first_failure = f"{row.where}: {reason}" + (f" ({detail})" if detail else "")
        if self.out is not None:
            entry = {"where": row.where, "kind": kind, "reason": reason, "detail": detail}
            self._lines.append(json.dumps(entry | row.row | entry, ensure_ascii=False))
            if len(self._lines) >= 4096:
                self._flush()

    def write(self, rows: Iterator[dict[str, Any]], max_failed: float = MAX_FAILED) -> None:
        """Writes the rows that go on, and those rejected meanwhile.

        Raises:
            UserError: nothing was kept, or more than the share `max_failed` of the lines failed.
        """
        if self.out is None:
            self._drain(rows)
            return
        rejected = self._rejected
        self._part = rejected.with_name(f".{rejected.name}.{os.getpid()}.tmp")
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._part.write_bytes(b"")
            try:
                write_manifest(self.out, self._counted(rows, max_failed))
            finally:  # also where it stops: they tell why
                self._flush()
                rejected.unlink(missing_ok=True)
                if self._part.stat().st_size:
                    os.replace(self._part, rejected)
        except OSError as error:
            raise UserError(f"{self.out} cannot be written: {error.strerror or error}; choose another --out") from error
        finally:
            with contextlib.suppress(OSError):  # its folder may be a file
                self._part.unlink()

    @property
    def _rejected(self) -> pathlib.Path:
        assert self.out is not None
        return self.out.with_name(f"{self.out.stem}.rejected.jsonl")

    @property
    def read(self) -> int:
        return self.kept + self.filtered.total() + self.failed.total()

    def summary(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "read": self.read,
            "kept": self.kept,
            "filtered": dict(sorted(self.filtered.items())),
            "failed": dict(sorted(self.failed.items())),
            "hours": round(self.seconds / 3600, 6),
            **({} if self.out is None else {"manifest": str(self.out)}),
        }

    def table(self) -> str:
        """The same for people."""
        lines = [f"{'read':<44}{self.read:>12,}", f"{'kept':<44}{self.kept:>12,}{self.seconds / 3600:>12,.2f} h"]
        for kind, counts in (("filtered", self.filtered), ("failed", self.failed)):
            for reason, count in sorted(counts.items(), key=lambda pair: -pair[1]):
                hours = self.seconds_lost[reason] / 3600
                lines.append(f"{f'{kind}: {reason}':<44}{count:>12,}" + (f"{hours:>12,.2f} h" if hours else ""))
        return "\n".join(lines)

    def check_failures(self, max_failed: float) -> None:
        """Raises `UserError` where more than the share `max_failed` of the lines failed (ten failures stop nothing)."""
        failed = self.failed.total()
        if failed > max(max_failed * self.read, _FEW if max_failed else 0):
            raise UserError(
                f"{failed:,} of {self.read:,} lines failed, more than --max-failed {max_failed:g} allows; the first is "
                f"{self._first_failure}; correct them, or raise --max-failed"
            )

    def _counted(self, rows: Iterator[dict[str, Any]], max_failed: float) -> Iterator[dict[str, Any]]:
        for row in rows:
            self.seconds += row["duration"]
            self.written += 1
            yield row
        self.check_failures(max_failed)
        if not self.written:
            reason, count = (self.filtered + self.failed).most_common(1)[0]
            raise UserError(
                f"none of {self.read:,} lines would be kept, {count:,} of them for {reason!r}; no {self.out}"
            )

    def _drain(self, rows: Iterator[dict[str, Any]]) -> None:
        for row in rows:
            self.seconds += row["duration"]
            self.written += 1

    def _flush(self) -> None:
        if self._part is not None and self._lines:
            with open(self._part, "a", encoding="utf-8", newline="\n") as file:
                file.write("\n".join(self._lines) + "\n")
            self._lines.clear()
