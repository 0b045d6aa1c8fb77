"""Moshi's fine-tuning data: JSON lines of {"path", "duration"}, and beside each stereo file a `.json` of its words.

    {"alignments": [["hello", [0.52, 0.84], "SPEAKER_MAIN"], …], "text_conditions": {…}}

The left channel is what the model learns to say, the right one what it hears. A file is one utterance with both.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

from jaxspeech.corpora import text_lines
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.errors import UserError

_MAIN = "SPEAKER_MAIN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The lists, and what becomes of the channels."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="JSON lines (or .gz), each a split; or a folder with such files"
    )
    parser.add_argument("--root", metavar="DIR", help="where relative paths begin (the file's folder)")
    parser.add_argument(
        "--channels",
        choices=("both", "main", "each"),
        default="both",
        help=f"both: stereo, to train Moshi (default); main: the left one, to which the words of {_MAIN} belong; "
        "each: an utterance for each side, with its own words; main and each are for recognition",
    )


def source(args: argparse.Namespace) -> "Moshi":
    """The lists as a source. Raises `UserError` if there are none."""
    files: dict[str, str] = {}
    for path in args.files:
        inside = sorted(str(found) for found in pathlib.Path(path).rglob("*.jsonl")) if os.path.isdir(path) else [path]
        if not inside:
            raise UserError(f"{path} holds no .jsonl; give the list of audio files")
        for found in inside:
            split = os.path.basename(found).removesuffix(".gz").removesuffix(".jsonl")
            if split in files:
                raise UserError(f"{found} and {files[split]} would both be split {split!r}; prepare them one at a time")
            if not os.path.isfile(found):
                raise UserError(f"{found} does not exist; give a file of JSON lines with path and duration")
            files[split] = found
    return Moshi(files, args.root, args.channels)


@dataclasses.dataclass(frozen=True)
class Moshi:
    """Lists by split.

    Attributes:
        files: path of each split.
        root: where relative paths begin; None: the folder of the list.
        channels: what becomes of them.
    """

    files: dict[str, str]
    root: str | None = None
    channels: Literal["both", "main", "each"] = "both"
    name: str = "moshi"

    @property
    def lists(self) -> list[str]:
        """What `prepare` must not write over."""
        return list(self.files.values())

    def splits(self) -> list[str]:
        return list(self.files)

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """In the order of the list."""
        path = self.files[split]
        root = self.root or os.path.dirname(os.path.abspath(path))
        for number, line in text_lines.read(path):
            yield from self._file(f"{os.path.basename(path)}:{number}", line, root)

    def official(self, split: str) -> Official | None:
        """Nobody publishes what lists of yours hold."""
        return None

    def _file(self, where: str, line: bytes, root: str) -> Iterator[Found | Rejected]:
        try:
            entry = json.loads(text_lines.decode(line))
            path, duration = entry["path"], entry.get("duration")
            if not isinstance(path, str) or not path:
                raise TypeError(f"path is {path!r}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            yield Rejected(where, "bad line", f"no JSON object with path and duration ({error})")
            return
        audio = text_lines.absolute(path, root)
        transcript = f"{os.path.splitext(audio)[0]}.json"
        try:
            with open(transcript, encoding="utf-8-sig") as file:
                content = json.load(file)
            words = sorted((_word(item) for item in content["alignments"]), key=lambda word: word[1])
        except FileNotFoundError:
            failed = os.path.exists(f"{transcript}.err")
            yield Rejected(where, "no transcript", f"{transcript}" + (" (annotating it failed)" if failed else ""))
            return
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            yield Rejected(where, "bad transcript", f"{transcript}: {error}")
            return
        row: dict[str, Any] = {"id": os.path.splitext(path)[0].lstrip("./"), "audio": audio}
        row |= {} if duration is None else {"duration": duration}
        main = [word[:3] for word in words if word[3] == _MAIN]
        others = [word for word in words if word[3] != _MAIN]
        if self.channels == "each":
            yield Found(where, row | {"id": f"{row['id']}-left", "channel": 0} | _said(main))
            yield Found(where, row | {"id": f"{row['id']}-right", "channel": 1} | _said([w[:3] for w in others]))
            return
        row |= _said(main)
        row |= {"channel": 0} if self.channels == "main" else {}
        row |= {"others": others} if others else {}
        row |= {"text_conditions": content["text_conditions"]} if content.get("text_conditions") else {}
        yield Found(where, row)


def _said(words: list[list[Any]]) -> dict[str, Any]:
    return {"text": " ".join(word[0] for word in words), "words": words}


def _word(item: Any) -> list[Any]:
    """[word, start, end, speaker] of an alignment; raises `ValueError` or `TypeError` for what is none."""
    text, (start, end), speaker = item
    if not 0 <= float(start) <= float(end) < math.inf:
        raise ValueError(f"the word {text!r} goes from {start} s to {end} s")
    return [str(text).strip(), float(start), float(end), str(speaker)]
