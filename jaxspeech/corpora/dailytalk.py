"""DailyTalkContiguous: 2,541 English dialogues in stereo with the times of words, as Moshi is fine-tuned on.

    dailytalk.jsonl            {"path": "data_stereo/0.wav", "duration": 23.1}
    data_stereo/0.wav          left: the speaker that the model learns to be; right: the other
    data_stereo/0.json         {"alignments": [["hello", [0.52, 0.84], "SPEAKER_MAIN"], …]}

A dialogue is one utterance: the whole file with both channels. `text` and `words` are those of SPEAKER_MAIN, the left
channel. For speech recognition that channel alone is what the text belongs to: --mono takes it. Words of other
speakers, where a file has them, are kept under `others`.

Dialogues: the DailyTalk paper (arXiv 2207.01063), which says about 20 h of them without the pauses of this version.
"""

import argparse
import json
import math
import posixpath
from collections.abc import Iterator
from typing import Any

from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.corpora.tree import Tree
from jaxspeech.errors import UserError

_LIST = "dailytalk.jsonl"
_MAIN = "SPEAKER_MAIN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where it is, and which channels."""
    parser.add_argument("path", metavar="DIR", help=f"the folder with {_LIST} and data_stereo/, or a plain .tar of it")
    parser.add_argument(
        "--mono", action="store_true", help="take the left channel alone, to which the words belong: for recognition"
    )


def source(args: argparse.Namespace) -> "DailyTalk":
    """The dialogues. Raises `UserError` if their list is not there."""
    tree = Tree.open(args.path)
    lists = [_LIST] if tree.exists(_LIST) else tree.files("", ".jsonl")
    if len(lists) != 1:
        raise UserError(f"{args.path} has no {_LIST}; give the folder of DailyTalkContiguous")
    return DailyTalk(tree, lists[0], args.mono)


class DailyTalk:
    """The dialogues of a list."""

    name = "dailytalk"

    def __init__(self, tree: Tree, listing: str = _LIST, mono: bool = False):
        self._tree = tree
        self._list = listing
        self._mono = mono

    def splits(self) -> list[str]:
        """All is to train on; no division is published."""
        return ["train"]

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """In the order of the list."""
        for line in self._tree.lines(self._list):
            yield line if isinstance(line, Rejected) else self._item(*line)

    def official(self, split: str) -> Official | None:
        """Dialogues."""
        return Official(2541)

    def _item(self, where: str, line: str) -> Found | Rejected:
        try:
            entry = json.loads(line)
            path = posixpath.normpath(entry["path"])
            duration = float(entry["duration"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            return Rejected(where, "bad line", f"no JSON object with path and duration ({error})")
        transcript = f"{posixpath.splitext(path)[0]}.json"
        if not self._tree.exists(transcript):
            return Rejected(where, "no transcript", f"no {transcript}")
        try:
            alignments = json.loads(self._tree.read(transcript))["alignments"]
            words = sorted((_word(item) for item in alignments), key=lambda word: word[1])
        except (ValueError, KeyError, TypeError, OverflowError, UserError) as error:
            return Rejected(where, "bad transcript", f"{transcript}: {error}")
        main = [word[:3] for word in words if word[3] == _MAIN]
        row: dict[str, Any] = {
            "id": posixpath.splitext(path)[0].replace("/", "-").removeprefix("data_stereo-"),
            "audio": self._tree.audio(path),
            "text": " ".join(word[0] for word in main),
            "language": "en",
            "words": main,
        }
        if math.isfinite(duration) and duration > 0:
            row["duration"] = duration
        if len(main) < len(words):
            row["others"] = [word for word in words if word[3] != _MAIN]
        return Found(where, row | ({"channel": 0} if self._mono else {}))


def _word(item: Any) -> list[Any]:
    """[word, start, end, speaker] of an alignment; raises `ValueError` or `TypeError` for what is none."""
    text, (start, end), speaker = item
    if not 0 <= float(start) <= float(end) < math.inf:
        raise ValueError(f"the word {text!r} goes from {start} s to {end} s")
    return [str(text).strip(), float(start), float(end), str(speaker)]
