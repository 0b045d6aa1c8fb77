"""Common Voice, scripted speech: one language of a release (commonvoice.mozilla.org), 16.1 and those before and after.

    cv-corpus-16.1-2023-12-06/en/train.tsv            client_id path sentence up_votes …, a header and a row a clip
    cv-corpus-16.1-2023-12-06/en/clip_durations.tsv   clip duration[ms]
    cv-corpus-16.1-2023-12-06/en/clips/common_voice_en_1.mp3

The TSVs know no quoting: a quote is a character of its sentence. Columns are found by their names, because releases
added some (variant 13.0, sentence_id and sentence_domain 17.0) and renamed one (accent, accents). Files and columns:
the README of github.com/common-voice/cv-dataset. Its JSON files have the figures of each release; those of English are
known here, others are read from such a file with --statistics. Hours are published for `validated` alone.
"""

import argparse
import csv
import json
import re
from collections.abc import Iterator
from typing import Any

from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.corpora.tree import Tree
from jaxspeech.errors import UserError

SPLITS = ("train", "dev", "test")
MORE = ("validated", "other", "invalidated")

# Clips of English in each release, and hours of `validated`.
_BUCKETS = ("train", "dev", "test", "validated", "invalidated", "other")
_ENGLISH = {
    "16.1": ((1090061, 16390, 16390, 1782818, 288077, 299335), 2585.58),
    "17.0": ((1101170, 16393, 16393, 1799288, 292773, 321347), 2614.76),
    "18.0": ((1110033, 16395, 16395, 1812713, 296488, 331395), 2639.31),
    "19.0": ((1116566, 16396, 16396, 1822496, 298826, 337807), 2657.72),
    "20.0": ((1124486, 16398, 16398, 1834556, 301822, 348975), 2680.06),
    "21.0": ((1131718, 16399, 16399, 1845369, 304560, 357220), 2700.97),
    "22.0": ((1138760, 16401, 16401, 1855619, 306854, 370737), 2723.05),
    "23.0": ((1143276, 16402, 16402, 1862170, 307995, 371586), 2734.89),
    "24.0": ((1147819, 16403, 16403, 1869726, 309878, 389504), 2750.41),
    "25.0": ((1147812, 16403, 16403, 1881067, 310527, 382810), 2751.56),
}
_RELEASE = re.compile(r"cv-corpus-(\d+(?:\.\d+)?)-\d{4}-\d{2}-\d{2}")
_COUNTS = ("up_votes", "down_votes")
# Columns that have a key of the manifest, and names that a column must not take there.
_TAKEN = frozenset(("client_id", "path", "sentence", "locale"))
_KEYS = frozenset(("id", "audio", "text", "duration", "offset", "channel", "segments", "speaker", "language", "words"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where it is, and which of it is wanted."""
    parser.add_argument("path", metavar="PATH", help="the unpacked release or one language of it, or a plain .tar")
    parser.add_argument("--language", metavar="CODE", help="which language, where the release holds several: en, zh-CN")
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        choices=MORE,
        metavar="LIST",
        help="lists beyond train, dev and test: validated (holds these three), other (not voted on), invalidated",
    )
    parser.add_argument(
        "--statistics", metavar="JSON", help="cv-corpus-*.json of this release, for the official numbers of clips"
    )


def source(args: argparse.Namespace) -> "CommonVoice":
    """One language. Raises `UserError` if it is not there, or `--statistics` is none."""
    official = statistics(args.statistics) if args.statistics else {}
    return CommonVoice(Tree.open(args.path), args.language, args.also, official)


class CommonVoice:
    """One language of a release."""

    name = "commonvoice"

    def __init__(self, tree: Tree, language: str | None, also: list[str], statistics: dict[str, Any]):
        self._whole = tree
        self._wanted = language
        self._also = also
        self._statistics = statistics
        self._tree: Tree | None = None
        self._milliseconds: dict[str, int] = {}

    def splits(self) -> list[str]:
        """train, dev, test and what else is asked for. A delta release, which has none of the three, gives the rest."""
        there = {name.removesuffix(".tsv") for name in self._opened().files("", ".tsv")}
        found = [name for name in SPLITS if name in there] or [name for name in MORE if name in there]
        for name in self._also:
            if name not in there:
                raise UserError(f"{self._opened().path} has no {name}.tsv; leave it out of --also")
        return found + [name for name in MORE if name in self._also and name not in found]

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """In the order of the TSV. Durations come from clip_durations.tsv where it is there."""
        tree = self._opened()
        self._milliseconds = self._milliseconds or _milliseconds(tree)
        for row in rows(tree, f"{split}.tsv", ("path", "sentence")):
            yield row if isinstance(row, Rejected) else self._item(tree, *row)

    def official(self, split: str) -> Official | None:
        """From --statistics, else of English from 16.1 to 25.0."""
        language = self._opened().name
        if self._statistics:
            told = self._statistics.get(language, {})
            hours = told.get("validHrs") if split == "validated" else None
            return Official(told.get("buckets", {}).get(split), hours)
        release = _RELEASE.search(self._whole.path) or _RELEASE.search(self._opened().inside)
        known = _ENGLISH.get(release[1]) if release and language == "en" else None
        if known is None:
            return None
        clips, hours = known
        return Official(clips[_BUCKETS.index(split)], hours if split == "validated" else None)

    def _opened(self) -> Tree:
        if self._tree is None:
            self._tree = find(self._whole, self._wanted)
        return self._tree

    def _item(self, tree: Tree, where: str, columns: dict[str, str]) -> Found | Rejected:
        clip = clip_name(columns["path"])
        if not clip:
            return Rejected(where, "no audio", "the column 'path' is empty")
        row: dict[str, Any] = {
            "id": clip.rpartition(".")[0],
            "audio": tree.audio(f"clips/{clip}"),
            "text": columns["sentence"].strip(),
            "language": columns.get("locale") or tree.name,
        }
        if speaker := columns.get("client_id"):
            row["speaker"] = speaker
        if milliseconds := self._milliseconds.get(clip):
            row["duration"] = milliseconds / 1000
        for key, value in columns.items():
            if value and key not in _TAKEN and key not in _KEYS:
                row[key] = int(value) if key in _COUNTS and value.isdecimal() else value
        return Found(where, row)


def find(tree: Tree, language: str | None) -> Tree:
    """The folder of a language, in a release or itself. Raises `UserError` if there is none, or a choice of several."""
    places = [tree, *(tree.at(name) for name in tree.folders() if _RELEASE.search(name))]
    found = {}
    for place in places:
        if place.exists("validated.tsv") or place.exists("train.tsv"):
            found[place.name] = place
        found |= {
            name: place.at(name)
            for name in place.folders()
            if place.exists(f"{name}/validated.tsv") or place.exists(f"{name}/train.tsv")
        }
    if language is None and len(found) == 1:
        return next(iter(found.values()))
    if language in found:
        return found[language]
    if not found:
        raise UserError(f"{tree.path} has no language with train.tsv or validated.tsv; give the unpacked release")
    wish = f"has no language {language!r}" if language else "holds several languages"
    raise UserError(f"{tree.path} {wish}; give --language, one of {', '.join(sorted(found))}")


def rows(
    tree: Tree, name: str, required: tuple[str, ...], escape: str | None = None
) -> Iterator[tuple[str, dict[str, str]] | Rejected]:
    """(where, columns by name) of each row of a TSV whose quotes are characters like others.

    Args:
        required: columns that must be there; `UserError` names a missing one.
        escape: the character that takes the meaning from what follows it, in files that have one.
    """
    header: list[str] | None = None
    for line in tree.lines(name):
        if isinstance(line, Rejected):
            yield line
            continue
        where, content = line
        # One line at a time: no quote and no escape can make it swallow the next.
        try:
            fields = (
                content.split("\t")
                if escape is None
                else next(csv.reader([content], delimiter="\t", quoting=csv.QUOTE_NONE, escapechar=escape))
            )
        except csv.Error as error:  # a carriage return within it, a field of megabytes
            yield Rejected(where, "bad line", str(error))
            continue
        if header is None:
            header = fields
            missing = [column for column in required if column not in header]
            if missing:
                raise UserError(
                    f"{tree.audio(name)} has no column {missing[0]!r}, but {', '.join(header)[:200]}; "
                    "give the file as it was published"
                )
        elif len(fields) != len(header):
            yield Rejected(where, "bad line", f"{len(fields)} columns instead of {len(header)}")
        else:
            yield where, dict(zip(header, fields))


def clip_name(path: str) -> str:
    """The file of a clip; early releases leave out its ending."""
    path = path.strip()
    return path if not path or "." in path else f"{path}.mp3"


def statistics(path: str) -> dict[str, Any]:
    """What a cv-corpus-*.json says of each language. Raises `UserError`."""
    try:
        with open(path, encoding="utf-8") as file:
            return dict(json.load(file)["locales"])
    except OSError as error:
        raise UserError(f"--statistics {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--statistics {path} has no 'locales'; give cv-corpus-<release>.json of common-voice/cv-dataset"
        ) from error


def _milliseconds(tree: Tree) -> dict[str, int]:
    """Duration of each clip; without the file (before 14.0) headers tell them."""
    found: dict[str, int] = {}
    for name in ("clip_durations.tsv", "times.txt"):  # the name until 16.0
        if tree.exists(name):
            for line in tree.lines(name):
                clip, _, value = ("", "", "") if isinstance(line, Rejected) else line[1].partition("\t")
                if value.strip().isdecimal():
                    found[clip] = int(value)
            break
    return found
