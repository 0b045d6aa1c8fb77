"""What has been done of a long work, on disk, so that whoever was killed takes up what is there.

A journal is a file of entries: a line of JSON (its number, the key of what went in, what else is told, length and
checksum), then bytes. A kill may leave half an entry at the end, which the next opening cuts off.
"""

import contextlib
import fcntl
import json
import os
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxspeech.errors import UserError


class Entry(NamedTuple):
    """What was kept under a number: what is told of it, and its bytes."""

    told: dict[str, Any]
    data: bytes


class Journal:
    """Entries by number; of several under one number the last counts. One process at a time writes."""

    def __init__(self, path: str | os.PathLike[str]):
        """Opens a journal, or begins one. Raises `UserError` if that cannot be."""
        self._path = os.fspath(path)
        self._places: dict[int, tuple[str, int]] = {}
        try:
            os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
            self._file = open(self._path, "a+b")  # noqa: SIM115 - closed by close()
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"another process prepares the same into {self._path}; wait for it") from None
            self._end = self._scan()
            self._file.truncate(self._end)
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}; give another --out") from error

    def get(self, number: int, key: str) -> Entry | None:
        """The entry of a number, if the same went in."""
        saved, place = self._places.get(number, ("", 0))
        return self._read(place)[1] if saved == key else None

    def put(self, number: int, key: str, data: bytes, told: Mapping[str, Any] | None = None) -> None:
        """Adds an entry. `told` is written as JSON."""
        head = {"number": number, "key": key, "told": told or {}, "bytes": len(data), "crc": zlib.crc32(data)}
        entry = json.dumps(head).encode() + b"\n" + data
        try:
            self._file.write(entry)
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._path} cannot be written: {error.strerror}; is the disk full?") from error
        self._places[number] = (key, self._end)
        self._end += len(entry)

    def entry(self, number: int) -> Entry:
        """The entry of a number that is known to be here."""
        found = self._read(self._places[number][1])[1]
        assert found is not None
        return found

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """Closes it for good: the work is done."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # before the lock goes: whoever comes now begins a new one
        self.close()

    def _scan(self) -> int:
        """Notes all whole entries; returns where they end."""
        self._file.seek(0)
        place = 0
        while True:
            head, entry = self._read(place)
            if entry is None:
                return place
            self._places[head["number"]] = (head["key"], place)
            place = self._file.tell()

    def _read(self, place: int) -> tuple[dict[str, Any], Entry | None]:
        self._file.seek(place)
        try:
            head = json.loads(self._file.readline())
            data = self._file.read(head["bytes"])
            if len(data) != head["bytes"] or zlib.crc32(data) != head["crc"]:
                return {}, None
            return head, Entry(head["told"], data)
        except (ValueError, KeyError, TypeError):
            return {}, None
