"""`jaxspeech prepare export-nemo`: a manifest as the JSON lines that NeMo reads."""

import argparse
import functools
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from jaxspeech import output
from jaxspeech.corpora import exports
from jaxspeech.corpora.exports import Account, Located, Lost
from jaxspeech.data import rows as manifest_rows
from jaxspeech.data.rows import Rows
from jaxspeech.errors import UserError

# What a line of ours says of where its audio is; NeMo's line says it anew.
_PLACES = ("audio", "segments", "offset", "duration", "channel", "text", "language")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The manifest, the folder, and what to do about what NeMo cannot name."""
    exports.add_arguments(parser)
    parser.add_argument(
        "--extract",
        action="store_true",
        help="write audio that NeMo cannot name (in tars, behind URLs, one channel, several segments) to DIR/audio",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Writes DIR/<name of the manifest>.json, in the order of the manifest."""
    out = output.folder(args.out, "--out")
    account = Account(out, args.manifest, args.max_failed)
    rows = Rows(args.manifest)
    target = out / f"{pathlib.Path(args.manifest).stem}.json"
    if os.path.realpath(target) == os.path.realpath(args.manifest):
        raise UserError(f"--out={args.out}: {target} is the manifest that is read; choose another folder")
    into = str(out / "audio") if args.extract else None
    function = functools.partial(exports.locate, into=into, channels=False)
    ids: dict[str, str] = {}

    def lines() -> Iterator[str]:
        for item in manifest_rows.each(function, rows, processes=args.processes, what="utterances"):
            if isinstance(item, Located) and item.row["id"] in ids:
                item = Lost(item.where, "duplicate id", f"{item.row['id']} is also at {ids[item.row['id']]}")
            if isinstance(item, Lost):
                account.lose(item)
                continue
            account.keep(item.duration)
            ids[item.row["id"]] = item.where
            yield json.dumps(_line(item), ensure_ascii=False, allow_nan=False)
        totals.update(account.close())  # where too many failed, the file is not put in place

    totals: dict[str, Any] = {}
    exports.write_lines(target, lines())
    print(exports.summary(str(target), totals), file=sys.stderr)
    return totals | {"manifest": str(target)}


def _line(item: Located) -> dict[str, Any]:
    """The object of a line: NeMo's keys, then what else our line has (`id`, `speaker`, `words`, …)."""
    line: dict[str, Any] = {"audio_filepath": item.audio, "text": item.row["text"], "duration": item.duration}
    if item.offset is not None:
        line["offset"] = item.offset
    if item.row.get("language"):
        line["lang"] = item.row["language"]
    return line | {key: value for key, value in item.row.items() if key not in _PLACES}
