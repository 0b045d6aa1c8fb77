"""The People's Speech: 30,000 h of English from archive.org (mlcommons.org, arXiv 2111.09344).

    train/clean.json                                          a line a source: {"identifier", "training_data":
                                                              {"duration_ms": […], "label": […], "name": […]}}
    train/clean/NAME_DOT_mp3_00000.flac                       clips, unpacked …
    train/clean/clean_000000.tar                              … or left in their tars
    validation/validation.json, test/test.json                laid out the same way

Sets: clean, dirty, and clean_sa, dirty_sa (of a share-alike licence). Clips in tars are found by name, from the headers
of the tars, and stay where they are. Of the single sets no exact number of clips or hours is published.
"""

import argparse
import json
import posixpath
from collections.abc import Iterator
from typing import Any

from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.corpora.tree import Tree
from jaxspeech.errors import UserError

_SETS = {
    "clean": "train/clean",
    "clean_sa": "train/clean_sa",
    "dirty": "train/dirty",
    "dirty_sa": "train/dirty_sa",
    "validation": "validation/validation",
    "test": "test/test",
}
_COLUMNS = ("duration_ms", "label", "name")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where it is."""
    parser.add_argument(
        "path", metavar="DIR", help="the folder with train/, validation/ and test/; its clips unpacked or in their .tar"
    )


def source(args: argparse.Namespace) -> "PeoplesSpeech":
    """The sets that are there."""
    return PeoplesSpeech(Tree.open(args.path))


class PeoplesSpeech:
    """The sets found in a folder."""

    name = "peoples_speech"

    def __init__(self, tree: Tree):
        self._tree = tree

    def splits(self) -> list[str]:
        """clean, clean_sa, dirty, dirty_sa, validation and test, as far as they are there. Raises `UserError`."""
        found = [name for name, place in _SETS.items() if self._tree.exists(f"{place}.json")]
        if not found:
            raise UserError(f"{self._tree.path} has no train/clean.json; give the folder of the People's Speech")
        return found

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """By line of the JSON and clip."""
        place = _SETS[split]
        shards = _shards(self._tree.at(place))
        for line in self._tree.lines(f"{place}.json"):
            if isinstance(line, Rejected):
                yield line
                continue
            where, content = line
            try:
                entry = json.loads(content)
                columns = [entry["training_data"][column] for column in _COLUMNS]
                clips = list(zip(*columns, strict=True))
            except (ValueError, KeyError, TypeError) as error:
                yield Rejected(
                    where, "bad line", f"no training_data with {', '.join(_COLUMNS)} of one length ({error})"
                )
                continue
            for number, clip in enumerate(clips):
                yield self._clip(f"{where}:{number}", place, shards, entry.get("identifier"), *clip)

    def official(self, split: str) -> Official | None:
        """No exact number is published."""
        return None

    def _clip(
        self, where: str, place: str, shards: dict[str, str], source: Any, milliseconds: Any, text: Any, name: Any
    ) -> Found | Rejected:
        if not isinstance(name, str) or not name or not isinstance(text, str):
            return Rejected(where, "bad clip", "its name or label is no text")
        audio = shards.get(name) or self._tree.audio(f"{place}/{name}")
        row: dict[str, Any] = {"id": posixpath.splitext(name)[0], "audio": audio, "text": text.strip()}
        if isinstance(milliseconds, int | float) and milliseconds > 0:
            row["duration"] = milliseconds / 1000
        row |= {"language": "en"} | ({"identifier": source} if isinstance(source, str) else {})
        return Found(where, row)


def _shards(folder: Tree) -> dict[str, str]:
    """Where each clip lies that is in a tar."""
    found: dict[str, str] = {}
    for file in folder.files("", ".tar"):
        shard = Tree.open(folder.audio(file))
        found |= {name: shard.audio(name) for name in shard.all_files()}
    return found
