"""MooER's packed data: `data.list`, which names tars of `<key>.txt` and `<key>.wav`."""

import argparse
import os
from typing import Any

from jaxspeech.corpora import tar_shards
from jaxspeech.corpora.tar_shards import Sample, TarShards
from jaxspeech.errors import UserError

# Stands for a space between Latin words, because all other spaces are deleted when MooER packs.
SPACE = "▁"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The lists."""
    parser.add_argument("lists", nargs="+", metavar="LIST", help="data.list; each is a split, named after its folder")
    parser.add_argument("--root", metavar="DIR", help="where the tars are now, if not where the list says")
    parser.add_argument("--keep-marks", action="store_true", help=f"leave {SPACE} in texts; else it becomes a space")


def source(args: argparse.Namespace) -> TarShards:
    """The lists as a source. Raises `UserError` if one cannot be read."""
    shards: dict[str, list[tuple[str, str]]] = {}
    for path in args.lists:
        folder, file = os.path.split(os.path.abspath(path))
        split = os.path.splitext(file)[0]
        split = os.path.basename(folder) or split if split == "data" else split
        if split in shards:
            raise UserError(f"two lists would both be split {split!r}; prepare them one at a time")
        shards[split] = tar_shards.listed(path, args.root)
    return TarShards("mooer", shards, split_name, _as_it_is if args.keep_marks else _describe, ("txt",))


def split_name(member: str) -> tuple[str, str]:
    """Key and ending: what stands before and behind the last dot."""
    key, _, ending = member.rpartition(".")
    return (key, ending.lower()) if key else (member, "")


def _as_it_is(sample: Sample) -> dict[str, Any]:
    return {"text": sample.text("txt")}


def _describe(sample: Sample) -> dict[str, Any]:
    return {"text": sample.text("txt").replace(SPACE, " ").strip()}
