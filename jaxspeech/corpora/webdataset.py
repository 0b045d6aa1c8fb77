"""WebDataset tars: `<key>.flac` (wav, mp3, …) next to `<key>.txt`, or to `<key>.json` with the text in it."""

import argparse
import dataclasses
import glob
import itertools
import json
import os
import re
from typing import Any

from jaxspeech.corpora import tar_shards, text_lines
from jaxspeech.corpora.tar_shards import Sample, TarShards, Unusable
from jaxspeech.errors import UserError

_BRACES = re.compile(r"\{([^{}]*)\}")
_TEXT_KEYS = ("text", "transcript", "transcription", "sentence")
_KEPT = {
    "id": str,
    "duration": (int, float),
    "speaker": str,
    "language": str,
    "translation": str,
    "words": list,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The tars and where the text is."""
    parser.add_argument(
        "shards",
        nargs="+",
        metavar="TARS",
        help="tars, patterns such as 'train-{000..012}.tar' or 'train-*.tar' (one split together), "
        "or text files that list tars (a split each)",
    )
    parser.add_argument("--root", metavar="DIR", help="where the tars of a list are now, if not where it says")
    parser.add_argument("--name", metavar="SPLIT", help="name of the split (what the names of the tars begin with)")
    parser.add_argument("--text-ending", metavar="E", help="the text is the member with this ending (txt, else json)")
    parser.add_argument("--text-key", metavar="KEY", help=f"of the text in the JSON ({', '.join(_TEXT_KEYS)})")
    parser.add_argument(
        "--tar-in-id", action="store_true", help="ids are <tar>/<key>, for tars that count their keys from 0 again"
    )


def source(args: argparse.Namespace) -> TarShards:
    """The tars as a source. Raises `UserError` if a list cannot be read or a pattern finds nothing."""
    shards: dict[str, list[tuple[str, str]]] = {}
    together: list[tuple[str, str]] = []
    for given in args.shards:
        if given.endswith((".list", ".txt", ".lst")):
            split = os.path.splitext(os.path.basename(given))[0]
            if split in shards:
                raise UserError(f"two lists would both be split {split!r}; prepare them one at a time")
            shards[split] = tar_shards.listed(given, args.root)
        else:
            together += [(given, text_lines.absolute(path, "")) for path in expand(given)]
    if together:
        split = args.name or _beginning([path for _, path in together])
        if split in shards:
            raise UserError(f"a list and the other tars would both be split {split!r}; give --name for the tars")
        shards[split] = together
    describe = _Describe(args.text_ending, args.text_key, args.tar_in_id)
    endings = ("txt", "json") + ((args.text_ending.lower(),) if args.text_ending else ())
    return TarShards("webdataset", shards, split_name, describe, endings)


def split_name(member: str) -> tuple[str, str]:
    """Key and ending: what stands before and behind the first dot of the file's name."""
    folder, file = os.path.split(member)
    key, _, ending = file.partition(".")
    return os.path.join(folder, key), ending.lower()


def expand(pattern: str) -> list[str]:
    """The tars that a name with {0..12}, {a,b} or wildcards stands for. Raises `UserError` if there are none."""
    parts = _BRACES.split(pattern)  # text, braces, text, …
    choices = [[part] if place % 2 == 0 else _choices(part, pattern) for place, part in enumerate(parts)]
    names = ["".join(choice) for choice in itertools.product(*choices)]
    found = []
    for name in names:
        wild = glob.has_magic(name) and "://" not in name and not os.path.exists(name)
        found += sorted(glob.glob(name)) if wild else [name]
    if not found:
        raise UserError(f"{pattern} matches no file; give tars, or a text file that lists them")
    return found


def _choices(braces: str, pattern: str) -> list[str]:
    first, dots, last = braces.partition("..")
    if not dots:
        return braces.split(",")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise UserError(f"{pattern}: {{{braces}}} is no range such as {{000..012}}")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _beginning(paths: list[str]) -> str:
    """What the names of all tars begin with; else the name of the first one's folder."""
    names = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    common = "".join(letters[0] for letters in itertools.takewhile(lambda column: len({*column}) == 1, zip(*names)))
    return common.rstrip("0123456789-_.") or os.path.basename(os.path.dirname(paths[0])) or "data"


@dataclasses.dataclass(frozen=True)
class _Describe:
    """Sample → manifest row."""

    ending: str | None
    key: str | None
    tar_in_id: bool

    def __call__(self, sample: Sample) -> dict[str, Any]:
        row = self._json(sample) if "json" in sample.texts else {}
        ending = self.ending.lower() if self.ending else "txt"
        if self.key is None and (ending in sample.texts or "text" not in row):
            row["text"] = sample.text(ending)
        if self.key is not None and "text" not in row:
            raise Unusable("no transcript", f"{sample.key}.json has no text {self.key!r}")
        if self.tar_in_id:
            row["id"] = f"{os.path.splitext(os.path.basename(sample.tar))[0]}/{row.get('id', sample.key)}"
        return row

    def _json(self, sample: Sample) -> dict[str, Any]:
        try:
            content = json.loads(sample.text("json"))
        except (ValueError, RecursionError) as error:
            raise Unusable("bad JSON", f"{sample.key}.json: {error}") from error
        if not isinstance(content, dict):
            raise Unusable("bad JSON", f"{sample.key}.json is no object")
        row = {key: content[key] for key, kind in _KEPT.items() if type(content.get(key)) in _types(kind)}
        for key in (self.key,) if self.key else _TEXT_KEYS:
            if isinstance(content.get(key), str):
                return row | {"text": content[key]}
        return row


def _types(kind: Any) -> tuple[type, ...]:
    return kind if isinstance(kind, tuple) else (kind,)
