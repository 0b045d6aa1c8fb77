"""What a corpus or a foreign format offers to `jaxspeech prepare`: its splits, and their utterances one by one."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, Protocol

from jaxspeech.errors import UserError


@dataclasses.dataclass(frozen=True)
class Found:
    """An utterance as its source tells it.

    Attributes:
        where: the file and line that tell of it, such as "84-121123.trans.txt:7"; what a person looks up.
        row: the object of a manifest line (`data/record.py`); audio paths are absolute. `duration` may be missing:
            it is then read from the header.
    """

    where: str
    row: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Rejected:
    """An utterance that its source tells of and that cannot be used.

    Attributes:
        where: as in `Found`.
        kind: "filtered" is left out on purpose, "failed" is broken.
        reason: one of few short phrases, such as "missing file": what the ledger counts by.
        detail: what was found there.
    """

    where: str
    reason: str
    detail: str = ""
    kind: Literal["filtered", "failed"] = "failed"


@dataclasses.dataclass(frozen=True)
class Official:
    """What the publisher says a split holds. None: not said."""

    utterances: int | None = None
    hours: float | None = None


class Notes(dict[str, int]):
    """What was odd but harmless in the files of a source → how often; each is named with the line of the first."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[tuple[str, str], str] = {}

    def add(self, what: str, file: str, line: int) -> None:
        name = self._names.setdefault((what, file), f"{what} in {file}, first in line {line}")
        self[name] = self.get(name, 0) + 1


class Source(Protocol):
    """A corpus, or files in a format of another tool.

    Attributes:
        name: short; begins the names of what is written.
    """

    name: str

    def splits(self) -> list[str]:
        """Names of its parts; each becomes OUT/<split>.jsonl. Raises `UserError` if it is not what it says."""
        ...

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """All utterances of a split, one by one, in the same order each time; no audio is opened for them."""
        ...

    def official(self, split: str) -> Official | None:
        """What the publisher says of the split; None where nothing is known."""
        ...


MIN_FAILURES = 20  # fewer do not stop a run: they may be all there are


def too_many(failed: int, read: int, max_failed: float) -> bool:
    """Whether more than the share `max_failed` failed, and at least `MIN_FAILURES`; with a share of 0, whether any."""
    return failed >= (MIN_FAILURES if max_failed else 1) and failed > max_failed * read


def check_share(max_failed: float) -> None:
    """Raises `UserError` if `--max-failed` is no share."""
    if not 0 <= max_failed <= 1:
        raise UserError(f"--max-failed={max_failed:g}: it is a share, between 0 and 1")
