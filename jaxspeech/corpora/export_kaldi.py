"""`jaxspeech prepare export-kaldi`: a manifest as a Kaldi data folder, sorted as its tools want it (C locale)."""

import argparse
import collections
import functools
import os
import pathlib
import re
import sys
from collections.abc import Iterable
from typing import Any

from jaxspeech import output
from jaxspeech.corpora import exports
from jaxspeech.corpora.exports import Located, Lost
from jaxspeech.data import rows as manifest_rows
from jaxspeech.data.rows import Rows

_SPACE = re.compile(r"\s+")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The manifest, the folder, and what to do about what Kaldi cannot name."""
    exports.add_arguments(parser)
    parser.add_argument(
        "--extract",
        action="store_true",
        help="write audio that is in no plain file (in tars, behind URLs, of several segments) to DIR/audio",
    )
    parser.add_argument(
        "--speaker-prefix",
        action="store_true",
        help="ids are <speaker>-<id>, so that utterances sort as their speakers do, which Kaldi's checks want",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Writes wav.scp, text, utt2spk, spk2utt, utt2dur, and segments and utt2lang where there is need."""
    out = output.folder(args.out, "--out")
    account = exports.Account(out, args.manifest, args.max_failed)
    rows = Rows(args.manifest)
    function = functools.partial(exports.locate, into=str(out / "audio") if args.extract else None)
    kept: dict[str, Located] = {}
    for item in manifest_rows.each(function, rows, processes=args.processes, what="utterances"):
        item = _named(item, args.speaker_prefix)
        if isinstance(item, Located) and item.row["id"] in kept:
            item = Lost(item.where, "duplicate id", f"{item.row['id']} is also at {kept[item.row['id']].where}")
        if isinstance(item, Lost):
            account.lose(item)
            continue
        account.keep(item.duration)
        kept[item.row["id"]] = item
    totals = account.close()
    _write(out, sorted(kept.values(), key=lambda item: item.row["id"].encode()))
    print(exports.summary(str(out), totals), file=sys.stderr)
    return totals | {"out": str(out)}


def _named(item: Located | Lost, prefix: bool) -> Located | Lost:
    """The utterance under the id that it has in Kaldi."""
    if isinstance(item, Lost):
        return item
    name, speaker = item.row["id"], item.row.get("speaker")
    if _SPACE.search(name):
        return Lost(item.where, "no usable name", f"id {name!r} has white space, at which Kaldi parts id and text")
    if "\n" in item.audio or item.audio.endswith("|"):
        return Lost(item.where, "no usable name", f"Kaldi would take {item.audio!r} for something else")
    if prefix and speaker:
        item.row["id"] = f"{_speaker(item)}-{name}"
    return item


def _write(out: pathlib.Path, items: list[Located]) -> None:
    """The files of the folder. `items` are sorted."""
    files: dict[str, list[str]] = {
        name: [] for name in ("wav.scp", "segments", "text", "utt2spk", "utt2dur", "utt2lang")
    }
    cut = any(item.offset is not None or item.channel is not None for item in items)
    recordings = _recordings({item.audio for item in items}) if cut else {}
    speakers: dict[str, list[str]] = collections.defaultdict(list)
    for item in items:
        name = item.row["id"]
        if cut:
            begin = item.offset or 0.0
            stretch = f"{name} {recordings[item.audio]} {_seconds(begin)} {_seconds(begin + item.duration)}"
            files["segments"].append(stretch if item.channel is None else f"{stretch} {item.channel}")
        else:
            files["wav.scp"].append(f"{name} {item.audio}")
        files["text"].append(f"{name} {exports.one_line(item.row['text'])}".rstrip())
        files["utt2spk"].append(f"{name} {_speaker(item)}")
        files["utt2dur"].append(f"{name} {_seconds(item.duration)}")
        if item.row.get("language"):
            files["utt2lang"].append(f"{name} {item.row['language']}")
        speakers[_speaker(item)].append(name)
    if cut:
        files["wav.scp"] = [f"{name} {path}" for path, name in _sorted(recordings.items())]
    by_name = _sorted((" ".join(names), speaker) for speaker, names in speakers.items())
    files["spk2utt"] = [f"{speaker} {names}" for names, speaker in by_name]
    for name in ("segments", "utt2lang"):  # an older export may have left them
        if not files[name]:
            files.pop(name)
            (out / name).unlink(missing_ok=True)
    for name, lines in files.items():
        exports.write_lines(out / name, lines)


def _sorted(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs by their second part, in the order of bytes, which is that of the C locale."""
    return sorted(pairs, key=lambda pair: pair[1].encode())


def _recordings(paths: set[str]) -> dict[str, str]:
    """An id for each file: its name without ending, and a number where several files have the same."""
    ids: dict[str, str] = {}
    taken: set[str] = set()
    for path in sorted(paths):
        stem = _SPACE.sub("_", os.path.splitext(os.path.basename(path))[0]) or "recording"
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        ids[path] = name
    return ids


def _speaker(item: Located) -> str:
    """The speaker; without one, every utterance is its own, as is the custom."""
    return _SPACE.sub("_", item.row.get("speaker") or item.row["id"])


def _seconds(value: float) -> str:
    return repr(round(value, 6))
