"""Manifests: JSON lines that name what a run hears (`record.py` has the format), and several of them taken as one.

Every line is validated when a manifest is opened. Rows are not kept as objects: a manifest holds line offsets and
durations (16 bytes a record), and a record is parsed when it is asked for.
"""

import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import logging
import math
import os
import pathlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxspeech.data import audio, record, remote, sidecar
from jaxspeech.data.lines import line_number, refuse_pipe, scan, write_manifest
from jaxspeech.data.record import Record, Segment
from jaxspeech.errors import UserError

__all__ = ["Collection", "Manifest", "Record", "Segment", "write_manifest"]

_INDEX_VERSION = 1
_INDEX_MIN_BYTES = 4 << 20  # smaller manifests are validated in well under a second: no file is left beside them
_OPENING = threading.Lock()


class Manifest:
    """A validated manifest. Reading records is safe from many threads; it pickles without its content.

    Attributes:
        path: absolute path; where it was opened by a URL, that of a copy.
        durations: float64[n], seconds.
        fingerprint: sha256 (hex) of the content; durations that had to be read from audio headers are hashed too.
    """

    path: str
    durations: np.ndarray
    fingerprint: str

    def __init__(
        self,
        path: str,
        offsets: np.ndarray,
        durations: np.ndarray,
        digest: str,
        stamp: tuple[int, int],
        folder: str,
    ):
        """Use `Manifest.open`. `offsets` is int64[n+1]: where lines begin, and the end of the file."""
        self.path = path
        self.durations = durations
        self.fingerprint = digest
        self._folder = folder  # path or URL that audio is named from
        self._offsets = offsets
        self._stamp = stamp  # (size, mtime_ns) of the content that was validated
        self._descriptor: int | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Manifest":
        """Opens and validates every line. Raises `UserError` that names the file and the first bad line.

        A manifest at a URL (`remote`) is copied to this machine first; its audio is looked for beside the URL.
        """
        name = os.fspath(path)
        if not remote.is_url(name):
            refuse_pipe(name)
            name = os.path.abspath(name)
            return cls._open(name, os.path.dirname(name))
        try:
            copy = remote.copy(name)
        except FileNotFoundError:
            raise UserError(f"manifest {name} does not exist; give the URL of a .jsonl file") from None
        except ConnectionError as error:
            raise UserError(f"manifest {error}; check the address and your credentials") from error
        try:
            return cls._open(copy, name.rpartition("/")[0])
        except UserError as error:
            raise UserError(str(error).replace(copy, name)) from error

    @classmethod
    def _open(cls, name: str, folder: str) -> "Manifest":
        began = time.time_ns()
        try:
            with open(name, "rb", buffering=1 << 20) as file:
                status = os.fstat(file.fileno())
                stamp = (status.st_size, status.st_mtime_ns)
                key = f"{_INDEX_VERSION}:{stamp[0]}:{stamp[1]}"
                index = sidecar.load(name, "index", key) if stamp[0] >= _INDEX_MIN_BYTES else None
                if index is not None and len(index["offsets"]) == len(index["durations"]) + 1:
                    return cls(name, index["offsets"], index["durations"], str(index["fingerprint"]), stamp, folder)
                offsets, durations, digest = scan(file, name)
        except FileNotFoundError:
            raise UserError(f"manifest {name} does not exist; give the path of a .jsonl file") from None
        except OSError as error:
            raise UserError(f"manifest {name} cannot be read: {error.strerror}") from error
        manifest = cls(name, offsets, durations, digest.hexdigest(), stamp, folder)
        probed = np.flatnonzero(np.isnan(durations))
        if len(probed):
            manifest._probe(probed)
            digest.update(durations[probed].tobytes())
            manifest.fingerprint = digest.hexdigest()
        # A file written this very moment could change again within the clock's resolution: not cached yet.
        if stamp[0] >= _INDEX_MIN_BYTES and began - stamp[1] > 2 * 10**9:
            arrays = {"offsets": offsets, "durations": durations, "fingerprint": np.array(manifest.fingerprint)}
            sidecar.save(name, "index", key, arrays)
        return manifest

    def __len__(self) -> int:
        return len(self.durations)

    def __getitem__(self, index: int) -> Record:
        """The record at a place in the file, 0 for the first."""
        row, place = self.row(index)
        return record.build(row, float(self.durations[place]), self._folder)

    def row(self, index: int) -> tuple[dict[str, Any], int]:
        """The JSON object of a record as it stands in the file, and its place counted from the start."""
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.path}")
        begin, end = int(self._offsets[place]), int(self._offsets[place + 1])
        # What follows the line, up to the next record, are blank lines.
        return record.decode(os.pread(self._file(), end - begin, begin).partition(b"\n")[0]), place

    def ids(self, indices: Iterable[int]) -> list[str]:
        """Ids of the records at these places."""
        return [self.row(int(index))[0]["id"] for index in indices]

    def texts(self) -> Iterator[str]:
        """The texts of all records, in order, in one pass over the file."""
        for first in range(0, len(self), 4096):
            offsets = self._offsets[first : first + 4097].tolist()
            block = os.pread(self._file(), offsets[-1] - offsets[0], offsets[0])
            for begin, end in itertools.pairwise(offsets):
                yield record.decode(block[begin - offsets[0] : end - offsets[0]].partition(b"\n")[0])["text"]

    def _file(self) -> int:
        """A descriptor of the content that was validated; each process opens its own."""
        if self._descriptor is None:
            with _OPENING:
                if self._descriptor is None:
                    try:
                        self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                    except OSError as error:
                        raise UserError(f"manifest {self.path} cannot be read any more: {error.strerror}") from error
        status = os.fstat(self._descriptor)
        if (status.st_size, status.st_mtime_ns) != self._stamp:
            self._accept_only_a_touch(status)
        return self._descriptor

    def _accept_only_a_touch(self, status: os.stat_result) -> None:
        """Goes on if the time of change is new but the lines are the same; else raises `UserError`."""
        try:
            again = Manifest._open(self.path, self._folder) if status.st_size == self._stamp[0] else None
            same = again is not None and again.fingerprint == self.fingerprint
        except UserError:
            same = False
        if not same:
            raise UserError(f"manifest {self.path} has changed while it is in use; start again to read the new one")
        self._stamp = (status.st_size, status.st_mtime_ns)

    def _probe(self, places: np.ndarray) -> None:
        """Fills in durations from audio headers. Raises `UserError` on the first line whose audio cannot be read."""
        logging.info("%s: reading %d durations from audio headers", self.path, len(places))

        def measure(place: int) -> float | audio.AudioError:
            try:
                return audio.played(record.build(self.row(place)[0], math.nan, self._folder))
            except audio.AudioError as error:
                return error

        # Header reads wait for the disk or the network, not for the processor.
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            bar = tqdm(pool.map(measure, places), total=len(places), desc="audio headers", disable=None)
            for place, result in zip(places, bar):
                if isinstance(result, audio.AudioError):
                    pool.shutdown(wait=False, cancel_futures=True)
                    line = line_number(self.path, int(self._offsets[place]))
                    raise UserError(
                        f"{self.path}:{line}: no 'duration', and the audio does not tell it: {result}; "
                        "write the duration in seconds or correct the path"
                    )
                self.durations[place] = result

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptor": None}

    def __del__(self, close=os.close) -> None:  # bound here: at the interpreter's exit `os` may be gone
        if getattr(self, "_descriptor", None) is not None:
            close(self._descriptor)


class Collection:
    """Several manifests as one: record numbers run through them in the order given.

    A weight says how many times an epoch its utterances are seen: 2 is twice each, 0.5 is half of them in each epoch
    (the plan picks which). Where there are several manifests, ids are `name/id`, so that they are unique.

    Attributes:
        parts: (name, manifest, weight) of each.
        durations: float64[n], seconds.
        weights: float64[n], times an epoch of each record.
        fingerprint: changes when any content, order or weight does.
    """

    parts: tuple[tuple[str, Manifest, float], ...]

    def __init__(self, parts: Sequence[tuple[str, Manifest, float]]):
        self.parts = tuple(parts)
        lengths = [len(manifest) for _, manifest, _ in self.parts]
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self.durations = np.concatenate([manifest.durations for _, manifest, _ in self.parts])
        self.weights = np.repeat([weight for *_, weight in self.parts], lengths)
        if len(self.parts) == 1 and self.parts[0][2] == 1.0:
            self.fingerprint = self.parts[0][1].fingerprint
        else:
            state = [(name, manifest.fingerprint, weight) for name, manifest, weight in self.parts]
            self.fingerprint = hashlib.sha256(json.dumps(state).encode()).hexdigest()

    @classmethod
    def open(cls, spec: Any, key: str = "config.data.train") -> "Collection":
        """Opens a manifest, a mapping {name: path}, or a mapping {weight: path or list of paths}.

        A key that reads as a number is a weight; its manifests are named after their files. `key` is the config key
        that `UserError`s name.
        """
        parts = []
        taken: set[str] = set()
        for name, path, weight in _entries(spec, key):
            if not remote.is_url(path) and not os.path.exists(path):
                raise UserError(
                    f"{key}: manifest {os.path.abspath(path)} does not exist; give the path of a .jsonl file"
                )
            # Two folders may both have a train.jsonl.
            again = (f"{name}-{number}" for number in itertools.count(2))
            unique = next(candidate for candidate in itertools.chain([name], again) if candidate not in taken)
            taken.add(unique)
            parts.append((unique, Manifest.open(path), weight))
        return cls(parts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Record:
        part, place = self._locate(index)
        name, manifest, _ = self.parts[part]
        found = manifest[place]
        return found if len(self.parts) == 1 else dataclasses.replace(found, id=f"{name}/{found.id}")

    def part_of(self, index: Any) -> Any:
        """Which part a record number (or an array of them) belongs to."""
        return np.searchsorted(self._ends, index, side="right")

    def ids(self, indices: Iterable[int]) -> list[str]:
        """Ids of the records with these numbers."""
        ids = []
        for index in indices:
            part, place = self._locate(int(index))
            name, manifest, _ = self.parts[part]
            plain = manifest.ids([place])[0]
            ids.append(plain if len(self.parts) == 1 else f"{name}/{plain}")
        return ids

    def texts(self) -> Iterator[str]:
        """The texts of all records, in order."""
        for _, manifest, _ in self.parts:
            yield from manifest.texts()

    def _locate(self, index: int) -> tuple[int, int]:
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        part = int(self.part_of(place))
        return part, place - (int(self._ends[part - 1]) if part else 0)


def _entries(spec: Any, key: str) -> Iterator[tuple[str, str, float]]:
    """(name, path, weight) of each manifest that a spec names."""
    if isinstance(spec, str | os.PathLike) and os.fspath(spec):
        yield pathlib.Path(spec).stem, os.fspath(spec), 1.0
        return
    if not hasattr(spec, "items") or not spec:
        raise UserError(f"{key} is {spec!r}; give a manifest, or a mapping of name or weight to manifests")
    for name, value in spec.items():
        try:
            weight = float(name)
        except (TypeError, ValueError):
            weight = math.nan
        if math.isnan(weight):
            if not isinstance(value, str | os.PathLike) or not name or "/" in str(name):
                raise UserError(f"{key}: {name!r} → {value!r}; a name (without '/') stands for one manifest")
            yield str(name), os.fspath(value), 1.0
            continue
        paths = [value] if isinstance(value, str | os.PathLike) else value
        if not 0 < weight < math.inf or not isinstance(paths, list | tuple) or not paths:
            raise UserError(f"{key}: {name!r} → {value!r}; a weight above 0 stands for a manifest or a list of them")
        for path in paths:
            yield pathlib.Path(path).stem, os.fspath(path), weight
