"""Folders of weights on the disk: written whole or not at all, and safetensors read, in one file or in shards."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy its bfloat16, which safetensors then reads)
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxspeech.errors import UserError

PathLike = str | os.PathLike[str]
WEIGHTS = "model.safetensors"


@dataclasses.dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        parameters: numbers in all tensors.
        tensors: how many there are.
        bytes: size of the files that hold them.
        max_abs: the largest absolute value.
        notes: one line for each thing that a reader of the folder may miss.
    """

    parameters: int
    tensors: int
    bytes: int
    max_abs: float
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], size: int, notes: tuple[str, ...] = ()) -> "Written":
        largest = max(float(np.max(np.abs(array), initial=0.0)) for array in arrays.values())
        return cls(sum(array.size for array in arrays.values()), len(arrays), size, largest, notes)


@contextlib.contextmanager
def new_folder(path: PathLike, *, force: bool = False) -> Iterator[pathlib.Path]:
    """A temporary folder beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Raises:
        UserError: `path` is a file, or a folder that is not empty and `force` is not given, or one that holds folders
            (no folder of weights does: `force` is no way to lose a home directory), or the disk does not take it.
    """
    target = pathlib.Path(path).absolute()
    occupied = False
    if target.exists():
        if not target.is_dir():
            raise UserError(f"{target} is a file; the weights go into a folder: give another name")
        inside = list(target.iterdir())
        occupied = bool(inside)
        if occupied and not force:
            raise UserError(f"{target} is not empty; give another folder, or --force to replace it")
        if any(entry.is_dir() and not entry.is_symlink() for entry in inside):
            raise UserError(
                f"{target} holds other folders, so it is not replaced, even with --force; give another folder"
            )
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if occupied:
            target.rename(old)
        temporary.rename(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.rename(target)
        culprit, why = error.filename, error.strerror or error
        elsewhere = f"{culprit}: " if culprit and not os.fspath(culprit).startswith(str(temporary)) else ""
        raise UserError(f"{target} could not be written: {elsewhere}{why}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Indented, UTF-8, with a newline at the end."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a file that must be there.

    Raises:
        UserError: it is not there, or holds something else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object")
    return content


def read_safetensors(folder: PathLike) -> dict[str, np.ndarray]:
    """All tensors of `model.safetensors`, or of the shards that `model.safetensors.index.json` lists, as stored.

    Raises:
        UserError: there are no such files, one is damaged, or the shards are not what the index says.
    """
    folder = pathlib.Path(folder)
    if (folder / WEIGHTS).is_file():
        return _read(folder / WEIGHTS)
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        raise UserError(
            f"{folder} holds neither {WEIGHTS} nor {index.name}; older .bin files are not read: save the model again "
            "as safetensors"
        )
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise UserError(f"{index} has no weight_map from tensors to files")
    tensors: dict[str, np.ndarray] = {}
    for shard in sorted(set(places.values())):
        if pathlib.PurePath(shard).name != shard:
            raise UserError(f"{index} names {shard!r}, which lies outside the folder")
        for name, array in _read(folder / shard).items():
            if places.get(name) != shard:
                raise UserError(f"{folder / shard} holds {name}, which {index.name} places in {places.get(name)}")
            tensors[name] = array
    missing = sorted(places.keys() - tensors.keys())
    if missing:
        raise UserError(f"{index} lists {len(missing)} tensors that the shards lack, first {missing[0]}")
    return tensors


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the file is no mapping)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except (SafetensorError, OSError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); download or save it again") from error
