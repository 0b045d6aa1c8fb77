"""VoxLM's manifests: `timestamps_manifest.json` with the times of words, and `<split>_manifest.json` without."""

import argparse
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from jaxspeech.corpora import json_list, text_lines
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.errors import UserError

_TIMES = "timestamps_manifest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The manifests."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help=f"{_TIMES}.json (a split named after its folder) or <split>_manifest.json; or a folder with such files",
    )
    parser.add_argument("--root", metavar="DIR", help="where relative paths begin (the file's folder)")
    parser.add_argument(
        "--text-key",
        default="text",
        metavar="KEY",
        help="which text: text (the reference in small letters; default), text_whisper or text_whisperx (as heard)",
    )


def source(args: argparse.Namespace) -> "VoxLM":
    """The manifests as a source. Raises `UserError` if there are none, or one is no JSON list."""
    files: dict[str, str] = {}
    for path in args.files:
        for found in _manifests(path) if os.path.isdir(path) else [path]:
            split = _split(found)
            if split in files:
                raise UserError(f"{found} and {files[split]} would both be split {split!r}; prepare them one at a time")
            json_list.refuse_what_is_no_list(found, f"{_TIMES}.json or <split>_manifest.json of VoxLM")
            files[split] = found
    return VoxLM(files, args.root, args.text_key)


@dataclasses.dataclass(frozen=True)
class VoxLM:
    """Manifests by split.

    Attributes:
        files: path of each split.
        root: where relative paths begin; None: the folder of the manifest.
        text_key: which of the texts.
    """

    files: dict[str, str]
    root: str | None = None
    text_key: str = "text"
    name: str = "voxlm"

    def splits(self) -> list[str]:
        return list(self.files)

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """In the order of the manifest."""
        path = self.files[split]
        root = self.root or os.path.dirname(os.path.abspath(path))
        for where, entry in json_list.objects(path, os.path.basename(path)):
            yield entry if isinstance(entry, Rejected) else self._utterance(where, entry, root)

    def official(self, split: str) -> Official | None:
        """Nobody publishes what a manifest of yours holds."""
        return None

    def _utterance(self, where: str, entry: dict[str, Any], root: str) -> Found | Rejected:
        audio, text = entry.get("audio"), entry.get(self.text_key)
        if not isinstance(audio, str) or not audio:
            return Rejected(where, "no audio", f"audio is {audio!r}")
        if not isinstance(text, str):
            return Rejected(where, "no transcript", f"{self.text_key} is {text!r}")
        name = entry.get("id") or os.path.splitext(audio)[0]
        row = {"id": name, "audio": text_lines.absolute(audio, root), "text": text}
        if "timestamps" in entry:
            try:
                row["words"] = [_word(stamp) for stamp in entry["timestamps"]]
            except (TypeError, KeyError, ValueError, OverflowError) as error:
                return Rejected(where, "bad words", f"{type(error).__name__}: {error}")
        return Found(where, row | {key: value for key, value in entry.items() if key not in (*row, "timestamps")})


def _manifests(folder: str) -> list[str]:
    """All manifests in a folder and in those in it."""
    found = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        found += [os.path.join(place, file) for file in sorted(files) if file.endswith("_manifest.json")]
    if not found:
        raise UserError(f"{folder} holds no {_TIMES}.json and no <split>_manifest.json; give the path of one")
    return found


def _split(path: str) -> str:
    folder, file = os.path.split(os.path.abspath(path))
    stem = os.path.splitext(file)[0]
    return os.path.basename(folder) or stem if stem == _TIMES else stem.removesuffix("_manifest") or stem


def _word(stamp: dict[str, Any]) -> list[Any]:
    """[word, start, end]: Whisper writes words with the space before them."""
    word, start, end = stamp["word"], float(stamp["start"]), float(stamp["end"])
    if not isinstance(word, str):
        raise TypeError(f"a word is {word!r}")
    if not 0 <= start <= end:
        raise ValueError(f"the word {word!r} goes from {start:g} s to {end:g} s")
    return [word.strip(), start, end]
