"""The lines of a manifest file: all of them validated in one pass, and written."""

import array
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxspeech.data import record
from jaxspeech.data.record import Record
from jaxspeech.errors import UserError

_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20  # bytes


def scan(file: Any, path: str) -> "tuple[np.ndarray, np.ndarray, hashlib._Hash]":
    """Validates all lines: offsets int64[n+1], durations float64[n] (NaN: not stated), digest of the content."""
    digest = hashlib.sha256()
    offsets, durations, hashes = array.array("q"), array.array("d"), array.array("q")
    position, first, bad = 0, "", 0
    for number, line in enumerate(_lines(file, digest), start=1):
        begin = position
        position += len(line) + 1
        if number == 1 and line.startswith(_BOM):  # some editors of Windows write it
            line, begin = line[len(_BOM) :], len(_BOM)
        if not line or line.isspace():
            continue
        try:
            name, duration = record.vet(line)
        except ValueError as error:
            first = first or f"{path}:{number}: {error}"
            bad += 1
            continue
        offsets.append(begin)
        durations.append(math.nan if duration is None else duration)
        hashes.append(hash(name))
    if first:
        raise UserError(first + (f" (and {bad - 1} more bad line{'s' * (bad > 2)})" if bad > 1 else ""))
    if not offsets:
        raise UserError(
            f"manifest {path} holds no records; each line is one JSON object with id, audio, text, duration"
        )
    offsets.append(file.tell())
    starts = np.frombuffer(offsets, np.int64)
    _refuse_duplicates(path, starts, np.frombuffer(hashes, np.int64))
    return starts, np.frombuffer(durations, np.float64), digest


def refuse_pipe(path: str) -> None:
    """Raises `UserError` for what can be read only once: we read a list first to check it, then to work on it."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # whoever opens it tells what is wrong
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path} is a pipe or device, which can be read only once; write it to a file first")


def _lines(file: Any, digest: Any) -> Iterator[bytes]:
    """The lines without their ends; hashes what it reads, a block at a time."""
    while block := file.read(_BLOCK):
        block += file.readline()
        digest.update(block)
        lines = block.split(b"\n")
        if not lines[-1]:
            lines.pop()  # the block ends where a line does
        yield from lines


def _refuse_duplicates(path: str, starts: np.ndarray, hashes: np.ndarray) -> None:
    """Ids are compared by 64-bit hashes, then by reading the few lines whose hashes agree."""
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    if not len(same):
        return
    seen: dict[str, int] = {}
    with open(path, "rb") as file:
        for place in np.unique(np.concatenate([order[same], order[same + 1]])):
            file.seek(int(starts[place]))
            name = record.decode(file.readline())["id"]
            if name in seen:
                line, earlier = (line_number(path, int(starts[p])) for p in (place, seen[name]))
                raise UserError(f"{path}:{line}: id {name!r} is already that of line {earlier}; ids must be unique")
            seen[name] = place


def line_number(path: str, offset: int) -> int:
    """The number, from 1, of the line that begins at a byte of the file."""
    with open(path, "rb") as file:
        return file.read(offset).count(b"\n") + 1


def write_manifest(path: str | os.PathLike[str], records: Iterable[Record | Mapping[str, Any]]) -> int:
    """Writes records (or the objects of their lines) atomically; returns how many.

    Absolute audio paths under the manifest's folder become relative, so that the folder can be moved. Raises
    `ValueError` for a record that could not be read back.
    """
    target = pathlib.Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    count = 0
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            for item in records:
                row = _to_row(item) if isinstance(item, Record) else dict(item)
                row = _relative(row, str(target.parent))
                record.check(row)
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _to_row(record: Record) -> dict[str, Any]:
    """The JSON object that a record would be written as, with absolute paths."""
    row: dict[str, Any] = {"id": record.id}
    first = record.segments[0]
    if len(record.segments) == 1 and not first.gap:
        row["audio"] = first.audio
        if first.duration is not None or first.offset:
            row["offset"] = first.offset
        if first.channel is not None:
            row["channel"] = first.channel
    else:
        row["segments"] = [
            {key: value for key, value in dataclasses.asdict(piece).items() if value is not None}
            for piece in record.segments
        ]
    row |= {"text": record.text, "duration": record.duration}
    row |= {key: value for key in ("speaker", "language") if (value := getattr(record, key)) is not None}
    return row | dict(record.extra)


def _relative(row: dict[str, Any], folder: str) -> dict[str, Any]:
    """The row with absolute audio paths under `folder` made relative to it."""
    if row.get("segments") is not None:
        return row | {"segments": [_relative(piece, folder) for piece in row["segments"]]}
    path = row.get("audio")
    if isinstance(path, str) and os.path.isabs(path) and path.startswith(os.path.join(folder, "")):
        return row | {"audio": os.path.relpath(path, folder)}
    return row
