"""`jaxspeech prepare export-mooer`: a manifest as MooER's packed data, tars of `<key>.txt` and `<key>.wav`.

The same manifest and flags give the same bytes: utterances are sorted by id (or shuffled by a seed), members have no
times and no owners. `data.list`, which names the tars, is written last.
"""

import argparse
import functools
import io
import os
import pathlib
import random
import re
import string
import sys
import tarfile
from typing import Any

from jaxspeech import output
from jaxspeech.corpora import exports
from jaxspeech.corpora.exports import Account, Lost
from jaxspeech.corpora.mooer import SPACE
from jaxspeech.data import rows as manifest_rows
from jaxspeech.data.audio import AudioError
from jaxspeech.data.rows import Row, Rows
from jaxspeech.errors import UserError

_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_BETWEEN_LETTERS = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
# Scripts that are written without spaces: CJK marks, kana, Han, full-width forms.
_SOLID = "\u3001-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_BESIDE_SOLID = re.compile(rf"(?<=[{_SOLID}]) +| +(?=[{_SOLID}])")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The manifest, the folder, and how to pack."""
    exports.add_arguments(parser)
    parser.add_argument(
        "--num-utts-per-shard", type=int, default=100000, metavar="N", help="utterances in a tar (100000)"
    )
    parser.add_argument(
        "--text-norm",
        nargs="?",
        const="true",
        default="false",
        choices=("true", "false", "fixed"),
        help=f"true: as MooER packs for recognition (ASCII in capitals, {SPACE} between Latin words, no other spaces); "
        f"fixed: the same, but {SPACE} also beside digits and marks (IT'S{SPACE}5{SPACE}PM); false: texts as they are",
    )
    parser.add_argument(
        "--shuffle", type=int, metavar="SEED", help="shuffle the utterances, which are sorted otherwise"
    )
    parser.add_argument(
        "--sample-rate",
        type=int,
        metavar="HZ",
        help="make 16-bit mono wav of this rate of all audio; MooER wants 16000 (files stay as they are)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Writes the tars and data.list."""
    if args.num_utts_per_shard < 1:
        raise UserError(f"--num-utts-per-shard is {args.num_utts_per_shard}; give 1 or more")
    out = output.folder(args.out, "--out")
    account = Account(out, args.manifest, args.max_failed)
    rows = Rows(args.manifest)
    order = _order(rows, account, args.shuffle)
    function = functools.partial(_sample, norm=args.text_norm, rate=args.sample_rate)
    shards = _Shards(out, args.num_utts_per_shard)
    with shards:
        # Few utterances travel together: their audio travels with them.
        for item in manifest_rows.each(function, rows, order, processes=args.processes, block=16, what="utterances"):
            if isinstance(item, Lost):
                account.lose(item)
                continue
            key, text, ending, content, seconds = item
            shards.add(key, text, ending, content)
            account.keep(seconds)
    totals = account.close()
    listed = shards.finish()
    print(f"{exports.summary(listed, totals)}; {len(shards.paths)} tars", file=sys.stderr)
    return totals | {"list": listed, "shards": [str(path) for path in shards.paths]}


def normalise(text: str, norm: str) -> str:
    """A text as MooER's `text_norm` makes it ("true"), with spaces beside digits and marks kept ("fixed"), or as is.

    "it's 5 pm" becomes "IT'S5PM" or "IT'S▁5▁PM". Line ends become spaces in each.
    """
    text = exports.one_line(text.replace("\ufeff", ""))
    if norm == "false":
        return text
    text = text.translate(_UPPER)
    if norm == "true":
        return _BETWEEN_LETTERS.sub(SPACE, text).replace(" ", "")
    return re.sub(" +", SPACE, _BESIDE_SOLID.sub("", text))


def _order(rows: Rows, account: Account, seed: int | None) -> list[int]:
    """Places of the utterances that have an id of their own, in the order in which they are packed."""
    ids: dict[str, int] = {}
    for place in range(len(rows)):
        row = rows[place]
        if row.problem is not None:
            account.lose(Lost(row.where, *row.problem))
        elif row.row["id"] in ids:
            earlier = rows.where(ids[row.row["id"]])
            account.lose(Lost(row.where, "duplicate id", f"{row.row['id']} is also at {earlier}"))
        else:
            ids[row.row["id"]] = place
    order = [ids[name] for name in sorted(ids, key=str.encode)]
    if seed is not None:
        random.Random(seed).shuffle(order)
    return order


def _sample(row: Row, *, norm: str, rate: int | None) -> tuple[str, bytes, str, bytes, float] | Lost:
    """Key, text, ending and content of the audio, seconds."""
    record = exports.usable(row)
    if isinstance(record, Lost):
        return record
    try:
        ending, content = exports.encode(record, rate)
    except AudioError as error:
        return Lost(row.where, error.reason, error.detail)
    return record.id, normalise(record.text, norm).encode(), ending, content, record.duration


class _Shards:
    """Tars that are written one after the other, each whole or not at all."""

    def __init__(self, out: pathlib.Path, size: int):
        self.paths: list[pathlib.Path] = []
        self._out, self._size = out, size
        self._tar: tarfile.TarFile | None = None
        self._count = 0
        self._list = out / "data.list"
        self._older = self._list.read_text("utf-8").splitlines() if self._list.is_file() else []
        self._list.unlink(missing_ok=True)  # no list names what is half new

    def add(self, key: str, text: bytes, ending: str, content: bytes) -> None:
        """Adds an utterance. Raises `UserError` if it cannot be written."""
        try:
            if self._tar is None:
                self._tar = tarfile.TarFile(self._temporary(), "w", format=tarfile.GNU_FORMAT, encoding="utf-8")
            for name, data in ((f"{key}.txt", text), (f"{key}.{ending}", content)):
                member = tarfile.TarInfo(name)  # of time 0 and owner 0, mode 0644
                member.size = len(data)
                self._tar.addfile(member, io.BytesIO(data))
            self._count += 1
            if self._count == self._size:
                self._close()
        except OSError as error:
            raise UserError(
                f"{self._out} cannot be written: {error.strerror}; is there space and permission?"
            ) from error

    def finish(self) -> str:
        """Writes data.list, and removes tars that an older one named and this one does not."""
        exports.write_lines(self._list, (str(path) for path in self.paths))
        for line in self._older:
            path = pathlib.Path(line)
            if path.parent == self._out and path not in self.paths:
                path.unlink(missing_ok=True)
        return str(self._list)

    def __enter__(self) -> "_Shards":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._tar is not None:
            self._close()
        elif self._tar is not None:
            self._tar.fileobj.close()
            self._temporary().unlink(missing_ok=True)

    def _temporary(self) -> pathlib.Path:
        return self._out / f".shards_{len(self.paths):09d}.tar.tmp"

    def _close(self) -> None:
        assert self._tar is not None
        self._tar.close()
        with open(self._temporary(), "rb") as file:
            os.fsync(file.fileno())
        target = self._out / f"shards_{len(self.paths):09d}.tar"
        os.replace(self._temporary(), target)
        self.paths.append(target)
        self._tar, self._count = None, 0
