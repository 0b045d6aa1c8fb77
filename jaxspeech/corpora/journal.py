"""What has been checked of a split, on disk: an interrupted preparation takes up what is there.

Entries of `data/journal.py`, each a chunk of utterances: their lines, then their facts as an array.
"""

import dataclasses
import os

import numpy as np

from jaxspeech.data import journal
from jaxspeech.data.journal import Entry

# What is known of each utterance that passed: hashes of its id, its stretch of audio and its samples, and measures.
FACTS = np.dtype(
    [
        ("id", "<u8"),
        ("stretch", "<u8"),
        ("sound", "<u8"),
        ("seconds", "<f8"),
        ("characters", "<i4"),
        ("rate", "<i4"),
        ("clipped", "<f4"),
    ]
)


@dataclasses.dataclass(frozen=True)
class Checked:
    """A chunk that has been checked.

    Attributes:
        read: how many utterances it had.
        lines: one for each, in order: "+", where it is told of as JSON, a tab and its manifest line; or "-" and its
            line in the list of what was rejected.
        facts: FACTS[number of lines with "+"].
        failed: reasons and how many failed for them, those that the source itself gave up included.
        again: how many failed in the checks, so that another try may find them mended.
    """

    read: int
    lines: bytes
    facts: np.ndarray
    failed: dict[str, int]
    again: int


class Journal:
    """Chunks by number. One process at a time writes."""

    def __init__(self, path: str | os.PathLike[str]):
        """Opens a journal, or begins one. Raises `UserError` if that cannot be."""
        self._entries = journal.Journal(path)

    def get(self, chunk: int, key: str) -> tuple[Checked | None, float]:
        """What was found for a chunk, if the same went in, and the time (seconds since 1970) when it was begun."""
        entry = self._entries.get(chunk, key)
        return (None, 0.0) if entry is None else (_checked(entry), entry.told.get("began", 0.0))

    def put(self, chunk: int, key: str, checked: Checked, began: float) -> None:
        """Adds an entry, which counts instead of an earlier one for its chunk."""
        told = {"read": checked.read, "failed": checked.failed, "again": checked.again, "lines": len(checked.lines)}
        told |= {"began": began}
        self._entries.put(chunk, key, checked.lines + checked.facts.tobytes(), told)

    def chunk(self, number: int) -> Checked:
        """What was found for a chunk that is known to be here."""
        return _checked(self._entries.entry(number))

    def close(self) -> None:
        self._entries.close()

    def remove(self) -> None:
        """Closes it for good: the work is done."""
        self._entries.remove()


def _checked(entry: Entry) -> Checked:
    told, end = entry.told, entry.told["lines"]
    return Checked(
        told["read"], entry.data[:end], np.frombuffer(entry.data[end:], FACTS), told["failed"], told["again"]
    )
