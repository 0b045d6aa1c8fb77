"""JSON manifests of CAIMAN-ASR: one list of {"transcript", "files": [{"fname", …}], "original_duration"}."""

import argparse
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from jaxspeech.corpora import json_list, text_lines
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.errors import UserError

_OWN = ("transcript", "files", "original_duration", "original_num_samples")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The manifests, and where their audio is."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="JSON manifests; each is a split that has its name")
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where the paths in them begin, as in CAIMAN's --data_dir (the file's folder)"
    )


def source(args: argparse.Namespace) -> "Caiman":
    """The manifests as a source. Raises `UserError` if one is no JSON list."""
    files: dict[str, str] = {}
    for path in args.files:
        split = os.path.splitext(os.path.basename(path))[0]
        if split in files:
            raise UserError(f"{path} and {files[split]} would both be split {split!r}; prepare them one at a time")
        json_list.refuse_what_is_no_list(path, "a manifest of CAIMAN-ASR (for JSON lines: jaxspeech prepare jsonl)")
        files[split] = path
    return Caiman(files, args.data_dir)


@dataclasses.dataclass(frozen=True)
class Caiman:
    """Manifests by split.

    Attributes:
        files: path of each split.
        root: where paths begin; None: the folder of the manifest.
    """

    files: dict[str, str]
    root: str | None = None
    name: str = "caiman"

    def splits(self) -> list[str]:
        return list(self.files)

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """In the order of the manifest. Tags such as <EOS> stay in the text."""
        path = self.files[split]
        root = self.root or os.path.dirname(os.path.abspath(path))
        for where, entry in json_list.objects(path, os.path.basename(path)):
            yield entry if isinstance(entry, Rejected) else _utterance(where, entry, root)

    def official(self, split: str) -> Official | None:
        """Nobody publishes what a manifest of yours holds."""
        return None


def _utterance(where: str, entry: dict[str, Any], root: str) -> Found | Rejected:
    files = entry.get("files")
    if not isinstance(files, list) or not files or not all(isinstance(file, dict) for file in files):
        return Rejected(where, "no audio", "'files' is no list with an object in it")
    if len(files) > 1:
        return Rejected(where, "several audio files", ", ".join(str(file.get("fname")) for file in files))
    (file,) = files
    name, text = file.get("fname"), entry.get("transcript")
    if not isinstance(name, str) or not name:
        return Rejected(where, "no audio", f"fname is {name!r}")
    if not isinstance(text, str):
        return Rejected(where, "no transcript", f"transcript is {text!r}")
    row: dict[str, Any] = {"id": os.path.splitext(name)[0], "audio": text_lines.absolute(name, root), "text": text}
    duration = file.get("duration") or entry.get("original_duration")
    if duration:  # validation sets may say 0.0: the header tells it then
        row["duration"] = duration
    return Found(where, row | {key: value for key, value in entry.items() if key not in _OWN and key not in row})
