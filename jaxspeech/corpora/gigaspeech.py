"""GigaSpeech: English audiobooks, podcasts and YouTube, 10,000 h transcribed (github.com/SpeechColab/GigaSpeech).

    GigaSpeech/GigaSpeech.json      {"audios": [{"aid", "path", "segments": [{"sid", "text_tn", …}, …]}, …]}
    GigaSpeech/audio/podcast/P0001/POD0000000025.opus       hours long; a segment is a stretch of it

The JSON has gigabytes and is read as a stream, one recording at a time. Texts are in capitals, and punctuation is
written as tags: `<COMMA>` becomes a comma, or is removed. Utterances with a garbage tag (<SIL> <MUSIC> <NOISE> <OTHER>)
hold no speech that was transcribed and are filtered, as its README asks.

Hours: that README. It states no numbers of utterances.
"""

import argparse
import os
import re
from collections.abc import Iterator
from typing import Any

from jaxspeech.corpora import json_stream
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.corpora.tree import Tree
from jaxspeech.errors import UserError

OFFICIAL = {
    "XS": Official(None, 10.0),
    "S": Official(None, 250.0),
    "M": Official(None, 1000.0),
    "L": Official(None, 2500.0),
    "XL": Official(None, 10000.0),
    "DEV": Official(None, 12.0),
    "TEST": Official(None, 40.0),
}
GARBAGE = frozenset(("<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>"))
_MARKS = {"<COMMA>": ",", "<PERIOD>": ".", "<QUESTIONMARK>": "?", "<EXCLAMATIONPOINT>": "!"}
_MARK = re.compile(rf"\s*({'|'.join(_MARKS)})")
_FILE = "GigaSpeech.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where it is, which subset to train on, and what becomes of the punctuation."""
    parser.add_argument("path", metavar="DIR", help=f"the folder with {_FILE} and audio/, the archives unpacked")
    parser.add_argument(
        "--subset",
        default="XL",
        choices=[name for name in OFFICIAL if name not in ("DEV", "TEST")],
        help="what to train on, 10 to 10,000 h; each holds the smaller ones (XL)",
    )
    parser.add_argument(
        "--punctuation",
        default="write",
        choices=("write", "remove"),
        help="make marks of its four punctuation tags, or remove them (write)",
    )


def source(args: argparse.Namespace) -> "GigaSpeech":
    """The corpus. Raises `UserError` if its JSON is not there."""
    return GigaSpeech(args.path, args.subset, args.punctuation == "write")


class GigaSpeech:
    """One training subset, DEV and TEST."""

    name = "gigaspeech"

    def __init__(self, path: str, subset: str = "XL", punctuation: bool = True):
        self._tree = Tree.open(path)
        if not os.path.isfile(os.path.join(self._tree.path, _FILE)):
            raise UserError(f"{path} has no {_FILE}; give the folder that it was downloaded to")
        self._subset = subset
        self._punctuation = punctuation

    def splits(self) -> list[str]:
        """The subset, DEV and TEST."""
        return [self._subset, "DEV", "TEST"]

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """By recording and segment, in the order of the JSON."""
        path = os.path.join(self._tree.path, _FILE)
        try:
            with open(path, encoding="utf-8") as file:
                for audio in json_stream.elements(file, "audios"):
                    yield from self._recording(audio, f"{{{split}}}")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not valid UTF-8 ({error.reason}); fetch it again") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise UserError(f"{path}: {error}; fetch it again") from error

    def official(self, split: str) -> Official | None:
        """Hours of the README."""
        return OFFICIAL.get(split)

    def _recording(self, audio: Any, label: str) -> Iterator[Found | Rejected]:
        """The segments of a recording that belong to a subset."""
        if not isinstance(audio, dict) or not isinstance(audio.get("segments"), list):
            if label != "{DEV}" and label != "{TEST}":  # told once, with what is trained on
                yield Rejected(_FILE, "bad recording", "an entry of 'audios' is no object with 'segments'")
            return
        name = str(audio.get("aid") or audio.get("path"))
        place = audio.get("path")
        for segment in audio["segments"]:
            if isinstance(segment, dict) and label in (segment.get("subsets") or ()):
                yield self._segment(segment, name, place)

    def _segment(self, segment: dict[str, Any], recording: str, place: Any) -> Found | Rejected:
        try:
            name, text = segment["sid"], segment["text_tn"]
            if not (isinstance(name, str) and isinstance(text, str)):
                raise ValueError(f"sid is {name!r}, text_tn {text!r}")
            begin, end = float(segment["begin_time"]), float(segment["end_time"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            where = f"{_FILE}:{segment.get('sid') or recording}"
            return Rejected(where, "bad segment", f"no usable sid, begin_time, end_time or text_tn ({error})")
        where = f"{_FILE}:{name}"
        garbage = GARBAGE.intersection(text.split())
        if garbage:
            return Rejected(where, "garbage utterance", " ".join(sorted(garbage)), "filtered")
        if not isinstance(place, str) or not place:
            return Rejected(where, "no audio", f"recording {recording} has no 'path'")
        if not 0 <= begin < end:
            return Rejected(where, "bad segment", f"it goes from {begin:g} s to {end:g} s")
        row: dict[str, Any] = {"id": name, "audio": self._tree.audio(place), "offset": begin}
        row |= {"duration": round(end - begin, 6), "text": punctuated(text, self._punctuation), "language": "en"}
        speaker = segment.get("speaker")
        return Found(where, row | ({"speaker": str(speaker)} if speaker not in (None, "", "N/A") else {}))


def punctuated(text: str, write: bool) -> str:
    """The text with its punctuation tags made marks, or removed."""
    text = _MARK.sub((lambda tag: _MARKS[tag[1]]) if write else "", text)
    return " ".join(text.split())
