"""Tables of comma- or tab-separated values, with the names of the columns given.

A line is a row: a stray quote costs its own row at most, never those that follow. Quoting is decided beforehand, not
guessed: none for tabs (a quote is a letter there, as in Common Voice), that of RFC 4180 for commas.
"""

import argparse
import csv
import dataclasses
import itertools
import math
import os
from collections.abc import Iterator
from typing import Any, Literal

from jaxspeech.corpora import text_lines
from jaxspeech.corpora.source import Found, Notes, Official, Rejected
from jaxspeech.data.lines import refuse_pipe
from jaxspeech.errors import UserError

_KEYS = ("audio", "text", "id", "duration", "offset", "end", "speaker", "language", "translation")
_NUMBERS = ("duration", "offset", "end")
_DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_ENDINGS = {".tsv": "\t", ".csv": ","}
_LONGEST = 50  # lines of one row, with --multiline

csv.field_size_limit(1 << 24)  # characters; a long transcript is no error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files, their dialect and their columns."""
    parser.add_argument("files", nargs="+", metavar="FILE", help=".csv or .tsv (or .gz of them); each becomes a split")
    parser.add_argument("--audio", required=True, metavar="COLUMN", help="column with the path of the audio")
    parser.add_argument("--text", required=True, metavar="COLUMN", help="column with the transcript")
    helps = {
        "id": "(the path of the audio without its ending, and the offset)",
        "duration": "in seconds (from the header of the audio)",
        "offset": "in seconds, where the row is a piece of its file",
        "end": "in seconds, in place of a duration",
    }
    for key in _KEYS[2:]:
        parser.add_argument(f"--{key}", metavar="COLUMN", help=f"column with the {key} {helps.get(key, '')}".strip())
    parser.add_argument(
        "--columns", metavar="A,B,…", help="names of the columns, in order, of a file whose first line is no header"
    )
    parser.add_argument(
        "--delimiter", metavar="D", help=f"{', '.join(_DELIMITERS)} or a character (.tsv: tab, .csv: comma)"
    )
    parser.add_argument(
        "--quoting",
        choices=("none", "csv"),
        help='csv: a field may stand in double quotes, "" is one in it; none: a quote is a letter (for tabs)',
    )
    parser.add_argument(
        "--multiline",
        action="store_true",
        help="with csv quoting: a quoted field may hold line breaks (they become spaces)",
    )
    parser.add_argument("--root", metavar="DIR", help="where relative paths begin (the folder of the file)")
    parser.add_argument(
        "--audio-pattern", default="{}", metavar="P", help="path made of the audio column's value, such as wavs/{}.wav"
    )


def source(args: argparse.Namespace) -> "Table":
    """The tables as a source. Raises `UserError` for a column or file that is not there."""
    files: dict[str, str] = {}
    for file in args.files:
        refuse_pipe(file)
        name = os.path.basename(file).removesuffix(".gz")
        split = os.path.splitext(name)[0]
        if split in files:
            raise UserError(f"{files[split]} and {file} would both be split {split!r}; prepare them one at a time")
        files[split] = file
    if "{}" not in args.audio_pattern:
        raise UserError(f"--audio-pattern is {args.audio_pattern!r}; write {{}} where the column's value goes")
    columns = {key: name for key in _KEYS if (name := getattr(args, key)) is not None}
    names = None if args.columns is None else [name.strip() for name in args.columns.split(",")]
    dialects = {split: _dialect(args, file) for split, file in files.items()}
    table = Table("table", files, columns, names, dialects, args.multiline, args.root, args.audio_pattern)
    for split in files:
        table.header(split)
    return table


@dataclasses.dataclass(frozen=True)
class Table:
    """Tables by split.

    Attributes:
        files: path of each split.
        columns: our key → name of the column.
        names: names of all columns; None: the first line has them.
        dialects: delimiter and quoting of each split.
        multiline: whether a quoted field may hold line breaks.
        root: where relative paths begin; None: the folder of the file.
        pattern: a path with {} for the value of the audio column.
        notes: what was odd but harmless, and how often.
    """

    name: str
    files: dict[str, str]
    columns: dict[str, str]
    names: list[str] | None
    dialects: "dict[str, Dialect]"
    multiline: bool = False
    root: str | None = None
    pattern: str = "{}"
    notes: Notes = dataclasses.field(default_factory=Notes)

    def splits(self) -> list[str]:
        return list(self.files)

    def header(self, split: str) -> list[str]:
        """Names of all columns of a split. Raises `UserError` if one that is asked for is not among them."""
        path = self.files[split]
        if self.names is not None:
            names = self.names
        else:
            first = next(text_lines.read(path), None)
            if first is None:
                raise UserError(f"{path} is empty; its first line should name the columns")
            try:
                names = [name.strip() for name in self.dialects[split].split(text_lines.decode(first[1]))]
            except (ValueError, _Bad) as error:
                raise UserError(f"{path}:{first[0]}: {error}; the first line should name the columns") from error
        for key, name in self.columns.items():
            if names.count(name) != 1:
                has = "has two columns" if name in names else "has no column"
                hint = "; for a file without a header, give --columns" if self.names is None else ""
                raise UserError(f"--{key}: {path} {has} {name!r}, but {', '.join(names)}{hint}")
        return names

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """One a row, in the order of the file."""
        path = self.files[split]
        names = self.header(split)
        places = {key: names.index(name) for key, name in self.columns.items()}
        root = self.root or os.path.dirname(os.path.abspath(path))
        file = os.path.basename(path)
        for number, cells in self._rows(split, len(names)):
            where = f"{file}:{number}"
            if isinstance(cells, _Bad):
                yield Rejected(where, cells.reason, cells.detail)
                continue
            try:
                row = self._row({key: cells[place].strip() for key, place in places.items()}, root)
            except _Bad as error:
                yield Rejected(where, error.reason, error.detail)
                continue
            yield Found(where, row)

    def official(self, split: str) -> Official | None:
        """Nobody publishes what a table of yours holds."""
        return None

    def _rows(self, split: str, width: int) -> "Iterator[tuple[int, list[str] | _Bad]]":
        """(line, cells) of each row after the header."""
        lines = text_lines.read(self.files[split], self.notes)
        if self.names is None:
            next(lines)
        dialect = self.dialects[split]
        held: list[tuple[int, bytes]] = []  # lines read in search of the end of a quoted field
        while (line := held.pop(0) if held else next(lines, None)) is not None:
            number, joined = line
            if dialect.quoting == "none" and joined.count(b'"') % 2:  # a reader that pairs quotes loses rows here
                self.notes.add("unpaired quote kept as a letter", self.files[split], number)
            cells = _cells(dialect, joined, width)
            if self.multiline and isinstance(cells, _Bad) and cells.reason == _UNCLOSED:
                held += itertools.islice(lines, _LONGEST - 1 - len(held))
                for count, (_, more) in enumerate(held, start=1):
                    joined += b" " + more
                    longer = _cells(dialect, joined, width)
                    if not isinstance(longer, _Bad):
                        cells, held = longer, held[count:]
                        break
                    if longer.reason == _MISPLACED:  # more lines do not mend that
                        break
            yield number, cells

    def _row(self, values: dict[str, str], root: str) -> dict[str, Any]:
        """A manifest row; raises `_Bad`."""
        if not values["audio"]:
            raise _Bad("no audio", f"column {self.columns['audio']} is empty")
        row: dict[str, Any] = {key: value for key, value in values.items() if value or key == "text"}
        for key in _NUMBERS:
            if key in row:
                row[key] = _number(row[key], self.columns[key])
        for key in ("offset", "end"):
            if key in self.columns and key not in row:
                raise _Bad("bad number", f"column {self.columns[key]} is empty")
        if "end" in row:
            row["duration"] = round(row.pop("end") - row.setdefault("offset", 0.0), 6)
        if "id" not in row:
            stem = os.path.splitext(values["audio"])[0]
            row["id"] = f"{stem}-{row['offset']:.3f}" if "offset" in row else stem
        row["audio"] = text_lines.absolute(self.pattern.replace("{}", values["audio"]), root)
        return row


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How a line becomes cells."""

    delimiter: str
    quoting: Literal["none", "csv"]

    def split(self, line: str) -> list[str]:
        """The cells of a row; raises `_Bad`."""
        if self.quoting == "none":
            return line.split(self.delimiter)
        try:
            return next(csv.reader([line], delimiter=self.delimiter, strict=True))
        except csv.Error as error:
            if "new-line character" in str(error):
                raise _Bad("bad line", "a carriage return stands within it; lines end with LF or CR LF") from error
            if "unexpected end of data" in str(error):
                raise _Bad(_UNCLOSED, "a field begins with a quote that does not end on its line") from error
            raise _Bad(_MISPLACED, "within a quoted field, a quote is written twice") from error


_UNCLOSED, _MISPLACED = "unclosed quote", "misplaced quote"


class _Bad(Exception):
    """A row that cannot be used."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def _cells(dialect: Dialect, line: bytes, width: int) -> list[str] | _Bad:
    try:
        cells = dialect.split(text_lines.decode(line))
    except _Bad as bad:
        return bad
    except ValueError as error:
        return _Bad("bad UTF-8", str(error))
    return cells if len(cells) == width else _Bad("wrong number of columns", f"{len(cells)} instead of {width}")


def _dialect(args: argparse.Namespace, file: str) -> Dialect:
    ending = os.path.splitext(file.removesuffix(".gz"))[1].lower()
    delimiter = _ENDINGS.get(ending) if args.delimiter is None else _DELIMITERS.get(args.delimiter, args.delimiter)
    if delimiter is None or len(delimiter) != 1 or delimiter in '"\r\n':
        raise UserError(f"{file}: --delimiter is {args.delimiter!r}; give {', '.join(_DELIMITERS)} or one character")
    return Dialect(delimiter, args.quoting or ("none" if delimiter == "\t" else "csv"))


def _number(cell: str, column: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _Bad("bad number", f"column {column} is {cell[:60]!r}; it must be seconds")
    return number
