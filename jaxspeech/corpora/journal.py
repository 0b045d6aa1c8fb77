"""What has been checked of a split, on disk: an interrupted preparation takes up what is there.

A journal is a file of entries, each a chunk of utterances: a line of JSON (number of the chunk, key of what went in,
counts, lengths, checksum), then their lines, then their facts as an array. A kill may leave half an entry at the end.
"""

import dataclasses
import fcntl
import json
import os
import zlib
from typing import Any

import numpy as np

from jaxspeech.errors import UserError

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
    """Entries by the number of their chunk. One process at a time writes."""

    def __init__(self, path: str | os.PathLike[str]):
        """Opens a journal, or begins one. Raises `UserError` if that cannot be."""
        self._path = os.fspath(path)
        self._places: dict[int, tuple[str, int]] = {}
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self._file = open(self._path, "a+b")  # noqa: SIM115 - closed by close()
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"another process prepares the same into {self._path}; wait for it") from None
            self._end = self._scan()
            self._file.truncate(self._end)
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}; give another --out") from error

    def get(self, chunk: int, key: str) -> Checked | None:
        """What was found for a chunk, if the same went in."""
        saved, place = self._places.get(chunk, ("", 0))
        if saved != key:
            return None
        return self._read(place)[1]

    def put(self, chunk: int, key: str, checked: Checked) -> None:
        """Adds an entry, which counts instead of an earlier one for its chunk."""
        facts = checked.facts.tobytes()
        head = {
            "chunk": chunk,
            "key": key,
            "read": checked.read,
            "failed": checked.failed,
            "again": checked.again,
            "bytes": [len(checked.lines), len(facts)],
            "crc": zlib.crc32(facts, zlib.crc32(checked.lines)),
        }
        entry = json.dumps(head).encode() + b"\n" + checked.lines + facts
        try:
            self._file.write(entry)
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}; is the disk full?") from error
        self._places[chunk] = (key, self._end)
        self._end += len(entry)

    def chunk(self, number: int) -> Checked:
        """What was found for a chunk that is known to be here."""
        checked = self._read(self._places[number][1])[1]
        assert checked is not None
        return checked

    def close(self) -> None:
        self._file.close()

    def _scan(self) -> int:
        """Notes all whole entries; returns where they end."""
        self._file.seek(0)
        place = 0
        while True:
            head, checked = self._read(place)
            if checked is None:
                return place
            self._places[head["chunk"]] = (head["key"], place)
            place = self._file.tell()

    def _read(self, place: int) -> tuple[dict[str, Any], Checked | None]:
        self._file.seek(place)
        try:
            head = json.loads(self._file.readline())
            lines, facts = (self._file.read(size) for size in head["bytes"])
            if zlib.crc32(facts, zlib.crc32(lines)) != head["crc"]:
                return {}, None
            array = np.frombuffer(facts, FACTS)
            return head, Checked(head["read"], lines, array, head["failed"], head["again"])
        except (ValueError, KeyError, TypeError):
            return {}, None
