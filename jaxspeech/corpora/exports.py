"""What exporters to formats of other tools share: utterances as stretches of plain files, and an account of all.

Other tools know plain files. An utterance that is a whole one or a stretch of one is named where it lies; one that is
not (in a container, behind a URL, of several segments) is written to a file of its own where that is asked for.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jaxspeech import output
from jaxspeech.corpora.encoding import Encoding
from jaxspeech.corpora.source import check_share, too_many
from jaxspeech.data import audio, containers
from jaxspeech.data.audio import AudioError
from jaxspeech.data.pcm16 import wav
from jaxspeech.data.record import Record
from jaxspeech.data.rows import Row
from jaxspeech.errors import UserError

_NO_NAME = re.compile(r"(^|/)\.|^/|//|/$|[\x00-\x1f\x7f#\\]")
_LINE_ENDS = re.compile(r"\s*[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+\s*")
_MAGIC = {
    b"RIFF": "wav",
    b"RF64": "wav",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"ID3": "mp3",
    b"FORM": "aiff",
    b".snd": "au",
}


@dataclasses.dataclass(frozen=True)
class Located:
    """An utterance and the plain file that holds it.

    Attributes:
        where: file and line that tell of it.
        row: its manifest line, with `id`, `text` and what else it has.
        audio: absolute path.
        offset: where it begins in seconds; None: it is the whole file.
        duration: seconds.
        channel: None: all.
    """

    where: str
    row: dict[str, Any]
    audio: str
    offset: float | None
    duration: float
    channel: int | None


@dataclasses.dataclass(frozen=True)
class Lost:
    """An utterance that is not exported, as in `source.Rejected`."""

    where: str
    reason: str
    detail: str = ""


class Account:
    """Every utterance ends as kept or failed(reason); the latter are listed in OUT/rejected.jsonl."""

    def __init__(self, out: pathlib.Path, manifest: str, max_failed: float):
        """Raises `UserError` if the list would replace the manifest, or `max_failed` is no share."""
        check_share(max_failed)
        self._path, self._max_failed = out / "rejected.jsonl", max_failed
        if os.path.realpath(self._path) == os.path.realpath(manifest):
            raise UserError(f"--out={out}: {self._path} is the manifest that is read; choose another folder")
        self._lines: list[str] = []
        self._failed: collections.Counter[str] = collections.Counter()
        self._first: Lost | None = None
        self._kept = 0
        self._seconds = 0.0

    def keep(self, seconds: float) -> None:
        self._kept += 1
        self._seconds += seconds

    def lose(self, lost: Lost) -> None:
        self._first = self._first or lost
        self._failed[lost.reason] += 1
        self._lines.append(json.dumps({"kind": "failed"} | dataclasses.asdict(lost), ensure_ascii=False))

    def close(self) -> dict[str, Any]:
        """Writes the list of what was lost. Returns {"read", "kept", "filtered", "failed", "hours"}.

        Raises `UserError` if nothing was kept, or more than the share `max_failed` was lost: at 0 anything, else 20 at
        least.
        """
        failed = self._failed.total()
        read = self._kept + failed
        if self._lines:
            write_lines(self._path, self._lines)
        else:
            self._path.unlink(missing_ok=True)
        if not self._kept or too_many(failed, read, self._max_failed):
            assert self._first is not None
            first = f"{self._first.where}: {self._first.reason} ({self._first.detail})"
            allowed = f", more than --max-failed={self._max_failed:g} allows" if self._kept else ""
            raise UserError(f"{failed} of {read} utterances failed{allowed}; the first is {first}; all: {self._path}")
        totals = {"read": read, "kept": self._kept, "filtered": {}, "failed": dict(sorted(self._failed.items()))}
        return totals | {"hours": round(self._seconds / 3600, 6)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What all exporters ask for."""
    parser.add_argument("manifest", metavar="MANIFEST", help="path of a manifest")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of what is written")
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="that read audio (one a core, up to 8)")
    parser.add_argument(
        "--max-failed", type=float, default=0.01, metavar="SHARE", help="of utterances that may fail (0.01)"
    )


def locate(row: Row, *, into: str | None, stretches: bool = True, channels: bool = True) -> Located | Lost:
    """The utterance of a manifest line in a plain file.

    Args:
        into: folder for files of those that are in none; None: they are lost.
        stretches, channels: whether the format can name a part of a file, and one of its channels.
    """
    record = usable(row)
    if isinstance(record, Lost):
        return record
    first, path = record.segments[0], record.segments[0].audio
    fits = len(record.segments) == 1 and not first.gap and containers.is_file(path)
    fits &= stretches or (first.duration is None and not first.offset)
    fits &= channels or first.channel is None
    if fits:
        if not os.path.isfile(path):
            return Lost(row.where, "missing file", path)
        offset = None if first.duration is None and not first.offset else first.offset
        return Located(row.where, row.row, path, offset, record.duration, first.channel)
    if into is None:
        what = f"{path} is no plain file" if not containers.is_file(path) else "it is a part or a mixture of files"
        return Lost(row.where, "no file of its own", f"{what}; --extract writes one")
    try:
        ending, content = encode(record)
        target = pathlib.Path(into, f"{record.id}.{ending}")
        if not _same_or_new(target, content):
            return Lost(row.where, "another file is there", f"{target} is not what would be written; see to it")
        output.write(target, content)
    except AudioError as error:
        return Lost(row.where, error.reason, error.detail)
    except OSError as error:
        return Lost(row.where, "not written", f"{into}: {error.strerror or error}")
    return Located(row.where, row.row, str(target), None, record.duration, None)


def usable(row: Row) -> Record | Lost:
    """The record of a manifest line whose id can name a file."""
    if row.problem is not None:
        return Lost(row.where, *row.problem)
    name = row.row["id"]
    if _NO_NAME.search(name) or any(len(part.encode()) > 240 for part in name.split("/")):
        return Lost(row.where, "no usable name", f"id {name!r} cannot name a file")
    try:
        return row.record()
    except AudioError as error:
        return Lost(row.where, error.reason, error.detail)


def encode(record: Record, rate: int | None = None) -> tuple[str, bytes]:
    """Ending and bytes of an audio file of an utterance: those of its own whole file, else wav or FLAC of 16 bits.

    Args:
        rate: Hz: mono 16-bit wav of this rate is made of all. None: whole files are copied, the rest is FLAC.

    Raises:
        AudioError: as `Encoding.encode` and `audio.read`.
    """
    if rate is not None:
        return "wav", wav(audio.integers(audio.read(record, rate))[:, None], rate)
    content = Encoding("source").encode(record)
    name = record.segments[0].audio
    known = ending(content)
    if known is None:
        raise AudioError("unknown kind of audio", f"{name} begins with {content[:12]!r}")
    if known in ("aiff", "au"):  # which other tools may not know
        return "flac", Encoding("flac").encode(record)
    return ("opus" if known == "ogg" and name.lower().endswith(".opus") else known), content


def ending(content: bytes) -> str | None:
    """What the name of a file with this content ends in; None: it is no audio that is known."""
    if content[4:8] == b"ftyp":
        return "m4a"
    if content[:1] == b"\xff" and content[1:2] >= b"\xe0":  # a frame of MPEG audio without tags before it
        return "mp3"
    return next((kind for magic, kind in _MAGIC.items() if content.startswith(magic)), None)


def one_line(text: str) -> str:
    """A text whose line ends are spaces, for formats with a line an utterance."""
    return _LINE_ENDS.sub(" ", text).strip()


def _same_or_new(path: pathlib.Path, content: bytes) -> bool:
    """Whether writing this content destroys nothing: a source may lie where an export goes."""
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except FileNotFoundError:
        return True


def write_lines(path: pathlib.Path, lines: Iterable[str]) -> None:
    """Writes lines in UTF-8, all of them or none. Raises `UserError` if they cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; is there space and permission?") from error
    finally:
        temporary.unlink(missing_ok=True)


def summary(name: str, totals: Mapping[str, Any]) -> str:
    """One line on what was exported."""
    failed = "".join(f"; {count} failed: {reason}" for reason, count in totals["failed"].items())
    return f"{name}: {totals['kept']:,} of {totals['read']:,} utterances, {totals['hours']:.2f} hours{failed}"
