"""Tar files whose members are read at random: indexed once, the index kept beside the tar (`sidecar`)."""

import functools
import hashlib
import io
import os
import tarfile
import threading
import time
from typing import Any

import numpy as np

from jaxspeech.data import remote, sidecar

_OPEN = 256  # tars that a process keeps open: far below what a system allows
_INDEX_VERSION = 1
_INDEX_MIN_MEMBERS = 256  # fewer are found in milliseconds: no file is left beside the tar
_INDEXING = threading.Lock()


def open_tar(path: str) -> "Tar":
    """The tar at a path or URL; a process keeps those that it used last. Raises `OSError`, `UserError` (`remote`)."""
    if remote.is_url(path):
        return _open(path, None, os.getpid())
    status = os.stat(path)
    return _open(path, (status.st_size, status.st_mtime_ns), os.getpid())


class Tar:
    """A tar file whose members are found by name. 24 bytes a member are kept in memory."""

    def __init__(self, path: str, version: str, fresh: bool):
        self.path = path
        self.descriptor = None if remote.is_url(path) else os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        beside = remote.beside(path) if self.descriptor is None else path
        key = f"{_INDEX_VERSION}:{version}"
        with _INDEXING:  # of several threads that ask for the same tar, one does the work
            index = sidecar.load(beside, "tar", key)
            if index is None:
                index = _index(path)
                # A file written this very moment could change again within the clock's resolution.
                slow = self.descriptor is None or len(index["hashes"]) >= _INDEX_MIN_MEMBERS
                if slow and not fresh:
                    sidecar.save(beside, "tar", key, index)
        self._index = index

    def find(self, member: str) -> tuple[int, int]:
        """Where a member's content begins, and how many bytes it has."""
        hashes = self._index["hashes"]
        for name in (member, f"./{member}", member.removeprefix("./")):
            wanted = _hash(name)
            place = int(np.searchsorted(hashes, wanted, side="right")) - 1  # of two members of a name the later counts
            if place >= 0 and hashes[place] == wanted:
                return int(self._index["offsets"][place]), int(self._index["sizes"][place])
        raise FileNotFoundError(f"{self.path} has no member {member!r}")

    def read(self, first: int, size: int) -> bytes:
        """So many bytes of the tar; fewer where it is cut off."""
        if self.descriptor is None:
            return remote.read(self.path, first, first + size)
        return os.pread(self.descriptor, size, first)

    def __del__(self) -> None:
        if getattr(self, "descriptor", None) is not None:
            os.close(self.descriptor)  # type: ignore[arg-type]


class Member(io.RawIOBase):
    """A member of a local tar as a stream; positions are its own, so that threads share a descriptor."""

    def __init__(self, tar: Tar, first: int, size: int):
        self._tar = tar  # keeps the descriptor open
        self._first = first
        self.size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, min(len(view), self.size - self._position))]
        assert self._tar.descriptor is not None
        count = os.preadv(self._tar.descriptor, [view], self._first + self._position) if len(view) else 0
        self._position += count
        return count


@functools.lru_cache(_OPEN)
def _open(path: str, stamp: tuple[int, int] | None, process: int) -> Tar:
    if stamp is None:
        return Tar(path, remote.version(path), fresh=False)
    return Tar(path, f"{stamp[0]}:{stamp[1]}", fresh=time.time_ns() - stamp[1] < 2 * 10**9)


def _hash(member: str) -> np.uint64:
    digest = hashlib.blake2b(member.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _index(path: str) -> dict[str, np.ndarray]:
    """Hashes of the names of all files in a tar, sorted, and where each begins and how long it is."""
    found = []
    try:
        with (
            remote.open_stream(path) if remote.is_url(path) else open(path, "rb") as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            for member in tar:
                if member.isreg() and not member.issparse():
                    found.append((_hash(member.name), member.offset_data, member.size))
                tar.members = []  # type: ignore[attr-defined]  # tarfile keeps all that it has seen
    except tarfile.ReadError as error:
        if not found:
            raise OSError(f"{path} is no tar file that can be read: {error}") from error
        # A tar that is cut off: what lies before the cut can be used, and the rest is missed when it is asked for.
    hashes = np.array([item[0] for item in found], np.uint64)
    order = np.argsort(hashes, kind="stable")
    offsets, sizes = (np.array([item[k] for item in found], np.int64)[order] for k in (1, 2))
    return {"hashes": hashes[order], "offsets": offsets, "sizes": sizes}
