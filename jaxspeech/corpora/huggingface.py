"""Hugging Face datasets: folders of `save_to_disk`, and parquet files; read through pyarrow, a batch at a time.

Rows that name audio files are taken as they are. Where the files hold the audio itself, --extract writes it, byte by
byte, to files under OUT/audio: training reads plain files, tars and ArrayRecord at random, and a column not.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from jaxspeech import output
from jaxspeech.corpora import exports, text_lines
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.errors import UserError

_KEYS = ("audio", "text", "id", "duration", "speaker", "language", "translation")
_TEXTS = ("text", "transcription", "transcript", "sentence", "normalized_text")
_SHARD = re.compile(r"^(?P<split>.+?)-\d{5,}-of-\d{5,}(-[0-9a-f]+)?$")
_BATCH = 64  # rows of a parquet file in memory
_FOLDER = 10_000  # extracted files in one folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files, and what their columns are called."""
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="folder of save_to_disk, folder with .parquet files, or such files"
    )
    parser.add_argument(
        "--audio", metavar="COLUMN", help="column with the audio or its path (the only one of that type)"
    )
    parser.add_argument("--text", metavar="COLUMN", help=f"column with the transcript ({', '.join(_TEXTS)})")
    parser.add_argument("--id", metavar="COLUMN", help="column with the id (<split>-<number of the row>)")
    for key in _KEYS[3:]:
        parser.add_argument(f"--{key}", metavar="COLUMN", help=f"column with the {key}")
    parser.add_argument("--extract", action="store_true", help="write audio that is in the files to OUT/audio")
    parser.add_argument("--root", metavar="DIR", help="where relative audio paths begin (the folder of the file)")


def source(args: argparse.Namespace) -> "HuggingFace":
    """The datasets as a source. Raises `UserError` without pyarrow, and where nothing is found."""
    files: dict[str, list[str]] = {}
    for path in args.paths:
        for split, found in _find(path).items():
            if split in files and os.path.isdir(path):
                raise UserError(
                    f"{path} and {files[split][0]} would both be split {split!r}; prepare them one at a time"
                )
            files.setdefault(split, []).extend(found)
    columns = {key: name for key in _KEYS if (name := getattr(args, key)) is not None}
    into = os.path.join(os.path.abspath(args.out), "audio") if args.extract else None
    return HuggingFace(files, columns, into, args.root)


@dataclasses.dataclass(frozen=True)
class HuggingFace:
    """Arrow and parquet files by split.

    Attributes:
        files: paths of each split.
        columns: our key → name of the column, those that were given.
        into: folder for extracted audio; None: nothing is extracted.
        root: where relative paths begin; None: the folder of the file.
    """

    files: dict[str, list[str]]
    columns: dict[str, str]
    into: str | None = None
    root: str | None = None
    name: str = "huggingface"

    def splits(self) -> list[str]:
        """Raises `UserError` for a column that is not there, and for audio that would have to be extracted."""
        for files in self.files.values():
            columns = self._columns(files[0])
            for _, row in _rows(files[0], list(columns.values())):
                content, _ = _audio(row[columns["audio"]])
                if content is not None and self.into is None:
                    name = columns["audio"]
                    raise UserError(
                        f"{files[0]} holds the audio itself (column {name!r}); --extract writes it to OUT/audio"
                    )
                break
        return list(self.files)

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """In the order of the files and of their rows; audio is extracted on the way."""
        count = 0
        for path in self.files[split]:
            file = os.path.basename(path)
            root = self.root or os.path.dirname(os.path.abspath(path))
            number = 0
            try:
                columns = self._columns(path)
                for number, row in _rows(path, list(columns.values())):
                    where = f"{file}:row {number}"
                    yield self._item(where, {key: row[name] for key, name in columns.items()}, split, count, root)
                    count += 1
            except _errors() as error:
                yield Rejected(f"{file}:row {number + 1}", "broken file", f"{path}: {error}")

    def official(self, split: str) -> Official | None:
        """Nobody publishes what files of yours hold."""
        return None

    def _columns(self, path: str) -> dict[str, str]:
        """Our key → name of the column of a file. Raises `UserError`."""
        kinds = _schema(path)
        names = ", ".join(kinds)
        columns = dict(self.columns)
        for key, name in columns.items():
            if name not in kinds:
                raise UserError(f"--{key}: {path} has no column {name!r}, but {names}")
        if "audio" not in columns:
            fitting = [name for name, kind in kinds.items() if kind.startswith("struct") and "path: " in kind]
            fitting = ["audio"] if "audio" in kinds else fitting
            if len(fitting) != 1:
                raise UserError(f"{path} has the columns {names}; give --audio to say which holds the audio")
            columns["audio"] = fitting[0]
        if "text" not in columns:
            fitting = [name for name in _TEXTS if name in kinds]
            if not fitting:
                raise UserError(f"{path} has the columns {names}; give --text to say which holds the transcript")
            columns["text"] = fitting[0]
        return columns

    def _item(self, where: str, row: dict[str, Any], split: str, count: int, root: str) -> Found | Rejected:
        if not isinstance(row["text"], str):
            return Rejected(where, "no transcript", f"the text is {row['text']!r}"[:200])
        content, path = _audio(row.pop("audio"))
        name = row.pop("id", None)
        made: dict[str, Any] = {"id": f"{split}-{count:08d}" if name is None else str(name)}
        if content is not None:
            if self.into is None:
                return Rejected(where, "no file of its own", "the file holds the audio itself; --extract writes it")
            ending = exports.ending(content)
            if ending is None:
                return Rejected(where, "unknown kind of audio", f"it begins with {content[:12]!r}")
            target = pathlib.Path(self.into, split, f"{count // _FOLDER:05d}", f"{count:08d}.{ending}")
            try:
                if not target.exists() or target.read_bytes() != content:  # one that an earlier start wrote stays
                    output.write(target, content)
            except OSError as error:
                raise UserError(
                    f"{target} cannot be written: {error.strerror}; is there space and permission?"
                ) from error
            made["audio"] = str(target)
        elif path:
            made["audio"] = text_lines.absolute(path, root)
        else:
            return Rejected(where, "no audio", "neither bytes nor a path")
        for key, value in row.items():
            if value is None or (isinstance(value, float) and math.isnan(value)):
                continue
            made[key] = value if key in ("text", "duration") else str(value)
        return Found(where, made)


def _find(path: str) -> dict[str, list[str]]:
    """The files of each split that a path stands for. Raises `UserError`."""
    if os.path.isfile(path):
        return {_split_of(path): [path]}
    if os.path.isfile(os.path.join(path, "dataset_dict.json")):
        splits = _json(os.path.join(path, "dataset_dict.json")).get("splits", [])
        return {split: _saved(os.path.join(path, split)) for split in splits}
    if os.path.isfile(os.path.join(path, "state.json")):
        split = _json(os.path.join(path, "state.json")).get("_split")
        return {str(split or os.path.basename(os.path.abspath(path))): _saved(path)}
    found: dict[tuple[str, str], list[str]] = {}
    for place, folders, files in os.walk(path):
        folders.sort()
        for file in sorted(files):
            if file.endswith(".parquet"):
                whole = os.path.join(place, file)
                split = _split_of(whole)
                inside = os.path.relpath(place, path).replace(os.sep, "-").removesuffix(split).strip("-.")
                found.setdefault((split, inside), []).append(whole)
    if not found:
        raise UserError(f"{path} holds neither state.json, nor dataset_dict.json, nor .parquet files; correct the path")
    splits = [split for split, _ in found]
    # Configurations (languages, say) lie in folders of their own, each with its "train".
    return {
        split if splits.count(split) == 1 else f"{folder}-{split}".lstrip("-"): files
        for (split, folder), files in found.items()
    }


def _split_of(path: str) -> str:
    """train-00000-of-00002.parquet → train; train/0000.parquet → train; some.parquet → some."""
    stem = os.path.splitext(os.path.basename(path))[0]
    shard = _SHARD.match(stem)
    if shard:
        return shard["split"]
    return os.path.basename(os.path.dirname(os.path.abspath(path))) if stem.isdigit() else stem


def _saved(folder: str) -> list[str]:
    """The arrow files of a dataset that `save_to_disk` wrote, in order."""
    state = _json(os.path.join(folder, "state.json"))
    if state.get("_indices_data_files"):
        raise UserError(
            f"{folder} was saved with a selection of rows beside it; save dataset.flatten_indices() instead"
        )
    files = [os.path.join(folder, entry["filename"]) for entry in state.get("_data_files", [])]
    missing = next((file for file in files if not os.path.isfile(file)), None)
    if missing or not files:
        raise UserError(f"{folder}: {missing or 'state.json names no file'}; is the folder complete?")
    return files


def _json(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            return dict(json.load(file))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}; is the folder complete?") from error


def _pyarrow() -> Any:
    try:
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise UserError("this format needs pyarrow: pip install 'jaxspeech[huggingface]'") from None
    return pyarrow


def _errors() -> tuple[type[Exception], ...]:
    return (_pyarrow().ArrowException, OSError)


def _schema(path: str) -> dict[str, str]:
    """Name → type of the columns. Raises `UserError`."""
    arrow = _pyarrow()
    try:
        if path.endswith(".parquet"):
            schema = arrow.parquet.read_schema(path)
        else:
            with arrow.memory_map(path) as file:
                schema = arrow.ipc.open_stream(file).schema
    except _errors() as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}; is it complete?") from error
    return {field.name: str(field.type) for field in schema}


def _rows(path: str, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and cells of each row."""
    arrow = _pyarrow()
    number = 0
    with arrow.memory_map(path) as file:
        if path.endswith(".parquet"):
            batches = arrow.parquet.ParquetFile(file).iter_batches(_BATCH, columns=columns)
        else:
            batches = arrow.ipc.open_stream(file)
        for batch in batches:
            cells = [batch.column(name) for name in columns]
            for place in range(batch.num_rows):  # cell by cell: audio of a batch may be large
                number += 1
                yield number, {name: cell[place].as_py() for name, cell in zip(columns, cells)}


def _audio(cell: Any) -> tuple[bytes | None, str | None]:
    """Content and path of what an audio column holds; both None where it is something else."""
    if isinstance(cell, dict):
        content, path = cell.get("bytes"), cell.get("path")
        return (content if isinstance(content, bytes) else None), (path if isinstance(path, str) else None)
    return (cell if isinstance(cell, bytes) else None), (cell if isinstance(cell, str) else None)
