"""JSON lines of any common dialect: our manifests, those of NeMo, of Moonshine's guide, and their like.

    {"audio_filepath": "clips/a1.wav", "text": "hello", "duration": 1.25}

Keys of other tools are renamed to ours; keys that are not known are kept. Relative paths begin at the file's folder.
"""

import argparse
import json
import os
from collections.abc import Iterator
from typing import Any

from jaxspeech.corpora.source import Found, Notes, Official, Rejected
from jaxspeech.corpora.text_lines import BOM_SKIPPED, CRLF_SKIPPED
from jaxspeech.data import record
from jaxspeech.data.lines import refuse_pipe
from jaxspeech.errors import UserError

# Our key → what other tools call it; the first that is there counts.
ALIASES = {
    "id": ("id", "utt_id", "utterance_id", "uttid", "utt", "sample_id", "key"),
    "audio": ("audio", "audio_filepath", "path", "audio_path", "audio_file", "wav", "file_name", "filename", "file"),
    "text": ("text", "transcript", "transcription", "sentence"),
    "duration": ("duration", "seconds", "audio_duration", "dur", "duration_seconds"),
    "speaker": ("speaker", "speaker_id", "spk_id", "spk"),
    "language": ("language", "lang"),
}
_OURS = {name: (ours, rank) for ours, names in ALIASES.items() for rank, name in enumerate(names)}
_BOM = b"\xef\xbb\xbf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="each is a split that has the file's name")
    parser.add_argument("--root", metavar="DIR", help="where relative audio paths begin (default: the file's folder)")
    parser.add_argument(
        "--moved",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="absolute audio paths that begin with OLD begin with NEW now; may be given more than once",
    )


def source(args: argparse.Namespace) -> "JsonLines":
    moved = []
    for pair in args.moved:
        old, equals, new = pair.partition("=")
        if not equals or not os.path.isabs(old):
            raise UserError(f"--moved={pair}: give OLD=NEW, where OLD is the beginning of absolute paths")
        moved.append((old, os.path.abspath(new)))
    return JsonLines(args.files, root=args.root, moved=moved)


class JsonLines:
    """Files of JSON lines (a `Source`): each is a split.

    Attributes:
        notes: what was odd but harmless, and how often.
        lists: the files, which `prepare` must not write over.
    """

    name = "jsonl"

    def __init__(self, files: list[str], *, root: str | None = None, moved: list[tuple[str, str]] | None = None):
        """Raises `UserError` if a file is missing, is one JSON array, or has the name of another."""
        self._files: dict[str, str] = {}
        for file in files:
            name = os.path.basename(file).removesuffix(".jsonl").removesuffix(".json")
            if name in self._files:
                raise UserError(f"{file} and {self._files[name]} would both be split {name!r}; prepare them one by one")
            _refuse_other_forms(file)
            self._files[name] = file
        self.lists = list(self._files.values())
        self._root, self._moved = root, moved or []
        self.notes = Notes()

    def splits(self) -> list[str]:
        return list(self._files)

    def official(self, split: str) -> Official | None:
        return None

    def items(self, split: str) -> Iterator[Found | Rejected]:
        file = self._files[split]
        folder = os.path.abspath(self._root or os.path.dirname(file))
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                where = f"{file}:{number}"
                if line.startswith(_BOM):  # also within a file that was put together from several
                    line = line[len(_BOM) :]
                    self.notes.add(BOM_SKIPPED, file, number)
                if line.endswith(b"\r\n"):
                    self.notes.add(CRLF_SKIPPED, file, number)
                if not line.strip():
                    continue
                row = _object(line)
                yield Rejected(where, *row) if isinstance(row, tuple) else Found(where, self._ours(row, folder))

    def _ours(self, row: dict[str, Any], folder: str) -> dict[str, Any]:
        """The row with our keys and absolute paths."""
        # One pass over the keys: this is done for every line, in one process.
        best: dict[str, tuple[str, int]] = {}
        for key, value in row.items():
            alias = _OURS.get(key)
            if alias is not None and value is not None and alias <= best.get(alias[0], alias):
                best[alias[0]] = alias
        if row.get("segments") is not None:
            best.pop("audio", None)
        for ours, alias in best.items():
            name = ALIASES[ours][alias[1]]
            if name != ours:
                row[ours] = row.pop(name)
        if isinstance(row.get("segments"), list):
            row["segments"] = [
                piece | {"audio": self._path(piece.get("audio"), folder)} if isinstance(piece, dict) else piece
                for piece in row["segments"]
            ]
        else:
            written = row.get("audio")
            row["audio"] = self._path(written, folder)
            if row.get("id") is None and isinstance(written, str):
                row["id"] = _named(written, row)
        if isinstance(row.get("id"), int):
            row["id"] = str(row["id"])
        return row

    def _path(self, path: Any, folder: str) -> Any:
        if not isinstance(path, str) or not path or "://" in path:
            return path
        if not os.path.isabs(path):
            plain = f"{folder}/{path}"
            return os.path.normpath(plain) if "./" in plain or "//" in plain else plain
        for old, new in self._moved:
            if path == old or path.startswith(old.rstrip("/") + "/"):
                return new + path[len(old.rstrip("/")) :]
        return path


def _object(line: bytes) -> dict[str, Any] | tuple[str, str]:
    """The object of a line, or reason and detail of why it has none."""
    try:
        row = record.read_json(line)
    except UnicodeDecodeError as error:
        return "bad UTF-8", f"byte {error.start + 1} of the line, 0x{line[error.start]:02x}; save the file as UTF-8"
    except json.JSONDecodeError as error:
        return "bad JSON", f"{error.msg} at column {error.colno}"
    except RecursionError:
        return "bad JSON", "nested too deeply"
    except ValueError as error:  # a number of thousands of digits
        return "bad JSON", str(error)
    if not isinstance(row, dict):
        return "bad JSON", f"a {type(row).__name__}, not an object"
    return row


def _named(path: str, row: dict[str, Any]) -> str:
    """An id for a row that has none: its path, and its stretch if it has one."""
    stem = os.path.splitext(path)[0].lstrip("./")
    return stem if row.get("offset") is None else f"{stem}@{row['offset']}+{row.get('duration')}"


def _refuse_other_forms(file: str) -> None:
    refuse_pipe(file)
    try:
        with open(file, "rb") as opened:
            head = opened.read(4096).removeprefix(_BOM).lstrip()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; give a file of JSON lines") from error
    if head.startswith(b"["):
        raise UserError(f"{file} is one JSON array, not JSON lines; `jaxspeech prepare` has names for such formats too")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{file} is in UTF-16; save it as UTF-8")
