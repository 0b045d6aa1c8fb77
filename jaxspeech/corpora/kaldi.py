"""Kaldi data folders: `wav.scp` and `text`, with `segments`, `utt2spk`, `utt2lang`, `utt2dur`, `reco2dur` if there."""

import argparse
import dataclasses
import math
import os
import re
from collections.abc import Iterator
from typing import Any

from jaxspeech.corpora import text_lines
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.errors import UserError

# A field ends at ASCII white space (Kaldi's base/kaldi-utils): an ideographic space belongs to the text.
_SPACE = re.compile(rb"[ \t\v\f]+")
_ARCHIVE = re.compile(r":\d+$")
_SIDES = {"A": 0, "B": 1}  # channels of telephone calls


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder."""
    parser.add_argument(
        "folder", metavar="DIR", help="has wav.scp and text; or holds such folders: each becomes a split"
    )
    parser.add_argument(
        "--root", default=".", metavar="DIR", help="where relative paths of wav.scp begin (the current folder)"
    )


def source(args: argparse.Namespace) -> "Kaldi":
    """The folder as a source. Raises `UserError` if there is no wav.scp in it."""
    folder = os.path.abspath(args.folder)
    if not os.path.isdir(folder):
        raise UserError(f"{args.folder} is no folder; give one that holds wav.scp and text")
    if os.path.isfile(os.path.join(folder, "wav.scp")):
        found = {os.path.basename(folder) or "data": folder}
    else:
        inside = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
        found = {os.path.basename(path): path for path in inside if os.path.isfile(os.path.join(path, "wav.scp"))}
    if not found:
        raise UserError(f"{args.folder} holds no wav.scp, nor does a folder in it; give a Kaldi data folder")
    for path in found.values():
        if not os.path.isfile(os.path.join(path, "text")):
            raise UserError(
                f"{path} has a wav.scp but no file 'text'; add the transcripts, one '<utterance> <text>' a line"
            )
    return Kaldi(os.path.basename(folder) or "kaldi", found, os.path.abspath(args.root))


@dataclasses.dataclass(frozen=True)
class Kaldi:
    """Data folders by split.

    Attributes:
        name: that of the folder.
        folders: absolute path of each split.
        root: where relative audio paths begin.
    """

    name: str
    folders: dict[str, str]
    root: str

    def splits(self) -> list[str]:
        """Raises `UserError` where wav.scp has commands or archives in place of files."""
        for folder in self.folders.values():
            _refuse_commands(os.path.join(folder, "wav.scp"))
        return list(self.folders)

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """In the order of `segments`, else of `wav.scp`; then what `text` alone tells of."""
        folder = self.folders[split]
        texts, rejected = _Texts.read(folder)
        yield from rejected
        about = {key: _table(folder, file) for key, file in _ABOUT.items()}
        has_segments = os.path.isfile(os.path.join(folder, "segments"))
        for where, name, row in self._cut(folder) if has_segments else self._whole(folder):
            text = texts.take(name)
            if isinstance(row, Rejected):
                yield row
            elif text is None:
                yield Rejected(where, "no transcript", f"{name} is not in text")
            elif isinstance(text, Rejected):
                yield text
            else:
                row |= {"id": name, "text": text}
                row |= {key: values[name] for key, values in about.items() if name in values}
                yield Found(where, row)
        listed = "segments" if has_segments else "wav.scp"
        yield from texts.rest(listed)

    def official(self, split: str) -> Official | None:
        """Nobody publishes what a folder of yours holds."""
        return None

    def _whole(self, folder: str) -> Iterator[tuple[str, str, dict[str, Any] | Rejected]]:
        """(where, utterance, row) of each file."""
        durations = _durations(folder, "utt2dur") | _durations(folder, "reco2dur")
        for where, fields in _lines(folder, "wav.scp", 2):
            if isinstance(fields, Rejected):
                yield where, "", fields
                continue
            row: dict[str, Any] = {"audio": text_lines.absolute(fields[1], self.root)}
            if fields[0] in durations:
                row["duration"] = durations[fields[0]]
            yield where, fields[0], row

    def _cut(self, folder: str) -> Iterator[tuple[str, str, dict[str, Any] | Rejected]]:
        """(where, utterance, row) of each segment."""
        files: dict[str, str] = {}
        for where, fields in _lines(folder, "wav.scp", 2):
            if isinstance(fields, Rejected):
                yield where, "", fields
            elif fields[0] in files:
                yield where, "", Rejected(where, "duplicate id", f"recording {fields[0]} is already in wav.scp")
            else:
                files[fields[0]] = text_lines.absolute(fields[1], self.root)
        durations = _durations(folder, "reco2dur")
        for where, fields in _lines(folder, "segments", 5):
            if isinstance(fields, Rejected):
                yield where, "", fields
            else:
                yield where, fields[0], _stretch(where, fields, files, durations)


def _stretch(
    where: str, fields: list[str], files: dict[str, str], durations: dict[str, float]
) -> dict[str, Any] | Rejected:
    """The row of a line of `segments`."""
    try:
        begin, end = (float(field) for field in fields[2:4])
        if not (math.isfinite(begin) and math.isfinite(end)):
            raise ValueError
        side = fields[4].strip() if len(fields) > 4 else None
        channel = None if side is None else _SIDES[side] if side in _SIDES else int(side)
    except ValueError:
        return Rejected(where, "bad segment", "a line is: utterance recording begin end [channel], in seconds")
    if fields[1] not in files:
        return Rejected(where, "no audio", f"recording {fields[1]} is not in wav.scp")
    if end == -1:  # the end of the recording
        end = durations.get(fields[1], math.nan)
    if begin < 0 or end <= begin:
        return Rejected(where, "bad segment", f"it goes from {begin:g} s to {end:g} s")
    row: dict[str, Any] = {"audio": files[fields[1]], "offset": begin}
    row |= {} if math.isnan(end) else {"duration": round(end - begin, 6)}
    return row if channel is None else row | {"channel": channel}


_ABOUT = {"speaker": "utt2spk", "language": "utt2lang"}


class _Texts:
    """Transcripts by utterance; each is taken once."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._texts: dict[str, tuple[int, str | Rejected]] = {}
        self._taken: set[str] = set()

    @classmethod
    def read(cls, folder: str) -> "tuple[_Texts, list[Rejected]]":
        """The transcripts of a folder, and the lines that are none."""
        texts, rejected = cls(folder), []
        for number, line in text_lines.read(os.path.join(folder, "text")):
            where = f"{os.path.join(os.path.basename(folder), 'text')}:{number}"
            head, *tail = _SPACE.split(line.strip(b" \t\v\f"), maxsplit=1)
            try:
                name = text_lines.decode(head)
            except ValueError as error:
                rejected.append(Rejected(where, "bad UTF-8", str(error)))
                continue
            if name in texts._texts:
                rejected.append(Rejected(where, "duplicate id", f"{name} is already on line {texts._texts[name][0]}"))
                continue
            try:
                text: str | Rejected = text_lines.decode(tail[0]) if tail else ""
            except ValueError:
                # The utterance is known: it is counted once, when its audio comes by.
                text = Rejected(where, "bad UTF-8", f"the text of {name} is not in UTF-8")
            texts._texts[name] = (number, text)
        return texts, rejected

    def take(self, name: str) -> str | Rejected | None:
        """The transcript of an utterance. One that is asked for again is there again: ids are checked elsewhere."""
        found = self._texts.get(name)
        self._taken.add(name)
        return None if found is None else found[1]

    def rest(self, listed: str) -> Iterator[Rejected]:
        """What nobody asked for."""
        for name, (number, _) in self._texts.items():
            if name not in self._taken:
                where = f"{os.path.join(os.path.basename(self._folder), 'text')}:{number}"
                yield Rejected(where, "no audio", f"{name} is not in {listed}")


def _lines(folder: str, file: str, fields: int) -> Iterator[tuple[str, Any]]:
    """(where, fields) of each line of a file that has to be there; the last field may hold spaces."""
    for number, line in text_lines.read(os.path.join(folder, file)):
        where = f"{os.path.join(os.path.basename(folder), file)}:{number}"
        try:
            text = [text_lines.decode(part) for part in _SPACE.split(line.strip(b" \t\v\f"), maxsplit=fields - 1)]
        except ValueError as error:
            yield where, Rejected(where, "bad UTF-8", str(error))
            continue
        if len(text) < 2:
            yield where, Rejected(where, "bad line", f"{text[0]!r} stands alone")
            continue
        yield where, text


def _table(folder: str, file: str) -> dict[str, str]:
    """A file of two columns; empty where it is missing. Lines that cannot be read tell nothing."""
    if not os.path.isfile(os.path.join(folder, file)):
        return {}
    return {fields[0]: fields[1] for _, fields in _lines(folder, file, 2) if not isinstance(fields, Rejected)}


def _durations(folder: str, file: str) -> dict[str, float]:
    durations = {}
    for name, text in _table(folder, file).items():
        try:
            durations[name] = float(text)
        except ValueError:
            continue  # the header tells it then
    return durations


def _refuse_commands(path: str) -> None:
    """Raises `UserError` on the first entry of a wav.scp that is a pipe or lies in an archive."""
    first, more = "", 0
    for number, line in text_lines.read(path):
        entry = line.strip()
        text = entry.decode("utf-8", "replace")
        if entry.endswith(b"|") or _SPACE.split(entry, maxsplit=1)[-1].startswith(b"|"):
            what = "is a command (it ends in '|'); run it once, write its output to a file and list that file"
        elif _ARCHIVE.search(text):
            what = "lies within an archive (it ends in ':<bytes>'); write it to a file of its own and list that file"
        else:
            continue
        more += bool(first)
        first = first or f"{path}:{number}: the audio of {text.split(maxsplit=1)[0]} {what}"
    if first:
        raise UserError(first + (f" (and {more} more such line{'s' * (more > 1)})" if more else ""))
