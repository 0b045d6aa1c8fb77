"""Multilingual LibriSpeech: read books in eight languages, 50,000 h (openslr.org/94).

    mls_polish/train/transcripts.txt                              6892_10049_000000 <tab> text
    mls_polish/train/audio/6892/10049/6892_10049_000000.flac      .opus in the smaller download, mls_polish_opus
    mls_polish/train/limited_supervision/9hr/handles.txt          names of the utterances, one a line
    mls_polish/train/limited_supervision/1hr/0/handles.txt        six folds of 10 minutes each, 0 to 5

Hours: the README in each archive. Utterances: the Hugging Face data set `multilingual_librispeech`, which lacks
English; of that, the lines of train/transcripts.txt alone are known. Hours of the limited sets: their names.
"""

import argparse
from collections.abc import Iterator

from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.corpora.tree import Tree
from jaxspeech.errors import UserError

_SPLITS = ("train", "dev", "test")
# Language: its code, (utterances, hours) of train, dev and test, utterances of the 9 h set and of the six folds.
_LANGUAGES = {
    "english": ("en", (10808037, 44659.74), (None, 15.75), (None, 15.55), None, None),
    "german": ("de", (469942, 1966.51), (3469, 14.28), (3394, 14.29), 2194, 241),
    "dutch": ("nl", (374287, 1554.24), (3095, 12.76), (3075, 12.76), 2153, 234),
    "french": ("fr", (258213, 1076.58), (2416, 10.07), (2426, 10.07), 2167, 241),
    "spanish": ("es", (220701, 917.68), (2408, 9.99), (2385, 10.00), 2110, 233),
    "italian": ("it", (59623, 247.38), (1248, 5.18), (1262, 5.27), 2173, 240),
    "portuguese": ("pt", (37533, 160.96), (826, 3.64), (871, 3.74), 2116, 236),
    "polish": ("pl", (25043, 103.65), (512, 2.08), (520, 2.14), 2173, 238),
}
_LIMITED = "train/limited_supervision"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where it is, and which splits."""
    parser.add_argument("path", metavar="PATH", help="an unpacked language such as mls_polish, or a plain .tar of it")
    parser.add_argument(
        "--limited",
        action="store_true",
        help="also the limited supervision sets: train-9hr, and train-1hr (all six folds of 10 minutes)",
    )


def source(args: argparse.Namespace) -> "Mls":
    """The language. Raises `UserError` if there is none."""
    return Mls(Tree.open(args.path), args.limited)


class Mls:
    """One language."""

    name = "mls"

    def __init__(self, tree: Tree, limited: bool = False):
        self._whole = tree
        self._limited = limited
        self._found: Tree | None = None

    def splits(self) -> list[str]:
        """train, dev, test, and the limited sets. Raises `UserError` if none of the first is there."""
        tree = self._tree()
        found = [split for split in _SPLITS if tree.exists(f"{split}/transcripts.txt")]
        if self._limited:
            if not tree.exists(f"{_LIMITED}/9hr/handles.txt"):
                raise UserError(f"{tree.path} has no {_LIMITED}/9hr/handles.txt; leave out --limited")
            found += ["train-9hr", "train-1hr"]
        return found

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """In the order of transcripts.txt; last the handles of a limited set that it does not tell."""
        tree = self._tree()
        folder, _, limit = split.partition("-")
        handles: dict[str, str] | None = None
        if limit:
            handles = {}
            for line in _handles(tree, limit):
                if isinstance(line, Rejected):
                    yield line
                else:
                    handles.setdefault(line[1].strip(), line[0])
        endings = [".opus", ".flac"]
        for line in tree.lines(f"{folder}/transcripts.txt"):
            if isinstance(line, Rejected):
                if handles is None:
                    yield line
                continue
            where, content = line
            name, _, text = content.partition("\t")
            if handles is not None and handles.pop(name, None) is None:
                continue
            parts = name.split("_")
            if len(parts) != 3 or not all(parts):
                yield Rejected(where, "bad line", f"it begins with {name[:40]!r}, no name like 6892_10049_000000")
                continue
            place = f"{folder}/audio/{parts[0]}/{parts[1]}/{name}"
            if not tree.exists(place + endings[0]) and tree.exists(place + endings[1]):
                endings.reverse()
            row = {"id": name, "audio": tree.audio(place + endings[0]), "text": text.strip(), "speaker": parts[0]}
            yield Found(where, row | ({"language": self._code()} if self._code() else {}))
        for name, where in (handles or {}).items():
            yield Rejected(where, "no transcript", f"{name} is not in {folder}/transcripts.txt")

    def official(self, split: str) -> Official | None:
        """Of the eight languages."""
        known = _LANGUAGES.get(self._language())
        if known is None:
            return None
        _, *parts, nine, one = known
        if split in _SPLITS:
            return Official(*parts[_SPLITS.index(split)])
        return Official(nine, 9.0) if split == "train-9hr" else Official(one, 1.0)

    def _tree(self) -> Tree:
        if self._found is None:
            inside = [self._whole.at(name) for name in self._whole.folders() if name.startswith("mls_")]
            found = [place for place in (self._whole, *inside) if any(map(place.exists, _transcripts()))]
            if len(found) != 1:
                several = (
                    f"holds {', '.join(place.name for place in found)}" if found else "has no train/transcripts.txt"
                )
                raise UserError(f"{self._whole.path} {several}; give the folder of one language, such as mls_polish")
            self._found = found[0]
        return self._found

    def _language(self) -> str:
        """polish of mls_polish and mls_polish_opus."""
        return self._tree().name.removesuffix(".tar").removeprefix("mls_").removesuffix("_opus")

    def _code(self) -> str:
        known = _LANGUAGES.get(self._language())
        return known[0] if known else ""


def _transcripts() -> list[str]:
    return [f"{split}/transcripts.txt" for split in _SPLITS]


def _handles(tree: Tree, limit: str) -> Iterator[tuple[str, str] | Rejected]:
    """The lines of the files that name the utterances of a limited set."""
    if limit == "9hr":
        yield from tree.lines(f"{_LIMITED}/9hr/handles.txt")
        return
    for fold in tree.folders(f"{_LIMITED}/1hr"):
        yield from tree.lines(f"{_LIMITED}/1hr/{fold}/handles.txt")
