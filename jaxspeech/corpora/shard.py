"""One shard: utterances encoded into an ArrayRecord file, whole or not at all, with a note of what it holds.

OUT/.shard-00003.json is written after OUT/shard-00003.array_record has taken its place, so that a shard with a note is
a finished one: {"size": bytes, "rows": [manifest lines], "rejected": [{"place", "id", "reason", "detail"}]}.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import uuid
import zlib
from collections.abc import Sequence
from typing import Any

from jaxspeech.corpora.encoding import Encoding
from jaxspeech.data.audio import AudioError
from jaxspeech.data.record import Record
from jaxspeech.errors import UserError

Note = dict[str, Any]
_OPTIONS = "group_size:1,uncompressed,max_parallelism:1"  # a record is read alone; one thread, one order of bytes


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a shard lies, and which records of the manifest are in it: first … last - 1."""

    folder: pathlib.Path
    number: int
    first: int
    last: int

    @property
    def path(self) -> pathlib.Path:
        return self.folder / f"shard-{self.number:05d}.array_record"

    @property
    def _note(self) -> pathlib.Path:
        return self.folder / f".shard-{self.number:05d}.json"

    def note(self) -> Note | None:
        """What the finished shard holds; None: it is not finished."""
        try:
            note: Note = json.loads(self._note.read_text("utf-8"))
            size = self.path.stat().st_size if note["rows"] else 0
            return note if size == note["size"] else None
        except (OSError, ValueError, KeyError):
            return None

    def forget(self) -> None:
        """Makes it an unfinished one."""
        self._note.unlink(missing_ok=True)

    def finish(self, note: Note) -> None:
        temporary = _temporary(self._note)
        temporary.write_text(json.dumps(note, ensure_ascii=False), "utf-8")
        os.replace(temporary, self._note)


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard to be written (`pool.Task`); its result is its note.

    Attributes:
        records: those of `place`, in order.
        deadly: numbers, among `records`, of those that kill the process that reads them.
    """

    place: Place
    encoding: Encoding
    records: tuple[Record, ...]
    deadly: frozenset[int] = frozenset()

    def run(self) -> Note:
        """Writes the shard. One that is finished but for what failed is written anew if some of that is mended.

        Raises `UserError` where it cannot be written.
        """
        note = self.place.note()
        if note is not None and not any(self._mended(entry["place"] - self.place.first) for entry in note["rejected"]):
            return note
        try:
            if note is not None:
                self.place.forget()
            note = self._write()
            self.place.finish(note)
            return note
        except (OSError, _NotWritten) as error:
            raise not_written(self.place.path, error) from error

    def pieces(self) -> "Sequence[Trial]":
        return [Trial(n, record, self.encoding) for n, record in enumerate(self.records)]

    def join(self, results: Sequence[Note]) -> Note:
        deadly = frozenset(number for result in results for number in result["deadly"])
        return dataclasses.replace(self, deadly=deadly).run()

    def lost(self) -> Note:
        raise AssertionError("a shard has smaller pieces")

    def _mended(self, number: int) -> bool:
        try:
            self._encode(number)
        except AudioError:
            return False
        return True

    def _encode(self, number: int) -> bytes:
        if number in self.deadly:
            raise AudioError("kills the process that reads it", self.records[number].segments[0].audio)
        return self.encoding.encode(self.records[number])

    def _write(self) -> Note:
        path = self.place.path
        temporary = _temporary(path)
        rows: list[dict[str, Any]] = []
        rejected = []
        try:
            with _Writer(temporary) as writer:
                for number, record in enumerate(self.records):
                    try:
                        content = self._encode(number)
                    except AudioError as error:
                        at = self.place.first + number
                        entry = {"place": at, "id": record.id, "reason": error.reason, "detail": error.detail}
                        rejected.append(entry)
                        continue
                    writer.write(content)
                    rows.append(_row(record, f"{path.name}#{len(rows)}", content))
            if rows:
                _to_disk(temporary)
                size = temporary.stat().st_size
                os.replace(temporary, path)
            else:  # an ArrayRecord file without records cannot be told from a broken one
                size = 0
                path.unlink(missing_ok=True)
        finally:
            temporary.unlink(missing_ok=True)
        return {"size": size, "rows": rows, "rejected": rejected}


@dataclasses.dataclass(frozen=True)
class Trial:
    """The encoding of one utterance of a shard, to see whether it kills the process."""

    number: int
    record: Record
    encoding: Encoding

    def run(self) -> Note:
        with contextlib.suppress(AudioError):  # the shard itself counts it
            self.encoding.encode(self.record)
        return {"deadly": []}

    def lost(self) -> Note:
        return {"deadly": [self.number]}

    def pieces(self) -> "Sequence[Trial]":
        return [self]

    def join(self, results: Sequence[Note]) -> Note:
        return results[0]


def not_written(path: pathlib.Path, error: Exception) -> UserError:
    """What a person is told where a file cannot be written."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UserError(
        f"{path} cannot be written: {reason}; see to room and permission, and start again: what is done is kept"
    )


class _NotWritten(Exception):
    """Why an ArrayRecord file could not be written."""


class _Writer:
    """An ArrayRecord file; what goes wrong is `_NotWritten`."""

    def __init__(self, path: pathlib.Path):
        from array_record.python.array_record_module import ArrayRecordWriter

        try:
            self._writer = ArrayRecordWriter(str(path), _OPTIONS)
        except (RuntimeError, ValueError) as error:
            raise _NotWritten(_reason(error)) from error

    def write(self, content: bytes) -> None:
        try:
            self._writer.write(content)
        except (RuntimeError, ValueError) as error:
            raise _NotWritten(_reason(error)) from error

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._writer.close()
        except (RuntimeError, ValueError) as error:
            if kind is None:
                raise _NotWritten(_reason(error)) from error


def _reason(error: Exception) -> str:
    """'write() failed: No space left on device; writing …' → 'No space left on device'."""
    return str(error).partition("failed: ")[2].partition(";")[0] or str(error)


def _row(record: Record, name: str, content: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {"id": record.id, "audio": name, "text": record.text, "duration": record.duration}
    row |= {key: value for key in ("speaker", "language") if (value := getattr(record, key)) is not None}
    return row | dict(record.extra) | {"crc32": f"{zlib.crc32(content):08x}"}


def _temporary(path: pathlib.Path) -> pathlib.Path:
    """A name beside a file that nobody else has: workers on several machines may have one process number."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def _to_disk(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
