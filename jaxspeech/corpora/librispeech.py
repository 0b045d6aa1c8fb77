"""LibriSpeech: read English, 960 h to train on (openslr.org/12). Also Mini LibriSpeech (openslr.org/31).

    LibriSpeech/dev-clean/84/121123/84-121123-0000.flac
    LibriSpeech/dev-clean/84/121123/84-121123.trans.txt     84-121123-0000 GO DO YOU HEAR

Hours: table 1 of "LibriSpeech: an ASR corpus based on public domain audio books" (ICASSP 2015), in which dev-other and
test-other stand the wrong way round: the archives have 5.1 and 5.3 h, as others count too (icefall,
egs/librispeech/ASR/local/display_manifest_statistics.py). Utterances: the Hugging Face data set `librispeech_asr`.
For the mini sets nothing is published.
"""

import argparse
from collections.abc import Iterator

from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.corpora.tree import Tree
from jaxspeech.errors import UserError

OFFICIAL = {
    "train-clean-100": Official(28539, 100.6),
    "train-clean-360": Official(104014, 363.6),
    "train-other-500": Official(148688, 496.7),
    "dev-clean": Official(2703, 5.4),
    "dev-other": Official(2864, 5.1),
    "test-clean": Official(2620, 5.4),
    "test-other": Official(2939, 5.3),
}
_SPLITS = (*OFFICIAL, "train-clean-5", "dev-clean-2")  # the last two: Mini LibriSpeech


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where it is."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="the folder LibriSpeech, one of its splits, or a .tar of either; a .tar.gz must be unpacked or gunzipped",
    )


def source(args: argparse.Namespace) -> "LibriSpeech":
    """The splits that are there. Raises `UserError` if there is none."""
    return LibriSpeech([Tree.open(path) for path in args.paths])


class LibriSpeech:
    """The splits found in folders and tars."""

    name = "librispeech"

    def __init__(self, trees: list[Tree]):
        self._trees = trees
        self._found: dict[str, Tree] = {}

    def splits(self) -> list[str]:
        """In the order of the paper's table. Raises `UserError` if there is none, or one twice."""
        if not self._found:
            for tree in self._trees:
                here = _find(tree)
                if not here:
                    raise UserError(
                        f"{tree.path} holds none of {', '.join(_SPLITS)}; give the folder LibriSpeech or one of these"
                    )
                for split, found in here.items():
                    if split in self._found:
                        raise UserError(f"{split} is both in {self._found[split].path} and {found.path}; give one")
                    self._found[split] = found
        return [split for split in _SPLITS if split in self._found]

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """By speaker, chapter and line of the transcript."""
        self.splits()
        tree = self._found[split]
        for speaker in tree.folders():
            for chapter in tree.folders(speaker):
                yield from _chapter(tree, speaker, chapter)

    def official(self, split: str) -> Official | None:
        """What is published of it."""
        return OFFICIAL.get(split)


def _find(tree: Tree) -> dict[str, Tree]:
    """The splits in a tree: it is one of them, or holds them, or holds the folder that does."""
    if tree.name in _SPLITS:
        return {tree.name: tree}
    for folder in ("", "LibriSpeech"):
        found = {name: tree.at(folder).at(name) for name in tree.folders(folder) if name in _SPLITS}
        if found:
            return found
    return {}


def _chapter(tree: Tree, speaker: str, chapter: str) -> Iterator[Found | Rejected]:
    folder, prefix = f"{speaker}/{chapter}", f"{speaker}-{chapter}"
    try:
        there = {name.removesuffix(".flac") for name in tree.files(folder, ".flac")}
    except UserError as error:
        yield Rejected(f"{tree.name}/{folder}", "unreadable folder", str(error))
        return
    told = set()
    transcript = f"{folder}/{prefix}.trans.txt"
    for line in tree.lines(transcript) if tree.exists(transcript) else ():
        if isinstance(line, Rejected):
            yield line
            continue
        where, content = line
        name, _, text = content.partition(" ")
        if not name.startswith(f"{prefix}-"):
            yield Rejected(where, "bad line", f"a line is '{prefix}-0000 TEXT', but this begins with {name!r}")
            continue
        told.add(name)
        audio = tree.audio(f"{folder}/{name}.flac")
        row = {"id": name, "audio": audio, "text": text.strip(), "speaker": speaker, "language": "en"}
        yield Found(where, row)
    for name in sorted(there - told):
        yield Rejected(f"{tree.name}/{folder}/{name}.flac", "no transcript", f"no line of {prefix}.trans.txt tells it")
