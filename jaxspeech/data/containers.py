"""Audio inside containers: members of tar files, records of ArrayRecord files, and either behind URLs.

    shards/000.tar#clips/a.flac    shards/shard-00003.array_record#17    s3://bucket/a.flac    gs://bucket/000.tar#a.flac

What stands behind the last '#' is looked up in what stands before it, where that ends in `.tar` or `.array_record`.
A process keeps its most recently used containers open; reading is safe from many threads.
"""

import functools
import io
import os
import posixpath
from typing import Any

import soundfile

from jaxspeech.data import remote, tars
from jaxspeech.data.pcm16 import Pcm16

_KINDS = (".tar", ".array_record")
_OPEN = 256  # ArrayRecord files that a process keeps open: far below what a system allows


def split(name: str) -> tuple[str, str | None]:
    """(container, what is looked up in it), or (name, None) where a name stands for a whole file."""
    outer, mark, inner = name.rpartition("#")
    return (outer, inner) if mark and outer.endswith(_KINDS) else (name, None)


def is_file(name: str) -> bool:
    """Whether a name is the path of a plain file: neither inside a container nor behind a URL."""
    return not ("#" in name and split(name)[1] is not None) and not remote.is_url(name)


def join(folder: str, name: str) -> str:
    """A name as seen from a folder. Paths are joined and normalised; URLs and what stands behind '#' stay as is."""
    outer, inner = split(name) if "#" in name else (name, None)
    return _join(folder, outer) if inner is None else f"{_join_container(folder, outer)}#{inner}"


def _join(folder: str, path: str) -> str:
    if remote.is_url(path):
        return path
    if remote.is_url(folder) and not os.path.isabs(path):
        scheme, _, place = folder.partition("://")
        return f"{scheme}://{posixpath.normpath(posixpath.join(place, path))}"
    return os.path.normpath(os.path.join(folder, path))


_join_container = functools.lru_cache(_OPEN)(_join)  # few, and each is named by many records


def read_bytes(name: str) -> bytes:
    """The bytes that any name stands for.

    Raises:
        FileNotFoundError: no such file, member or record.
        OSError, RuntimeError: it, or its container, cannot be read or is damaged.
    """
    return _bytes(name, *split(name))


def _bytes(name: str, outer: str, inner: str | None) -> bytes:
    if inner is None:
        if remote.is_url(name):
            return remote.read(name)
        with open(name, "rb") as file:
            return file.read()
    if outer.endswith(".array_record"):
        return _record(outer, inner)
    tar = tars.open_tar(outer)
    first, size = tar.find(inner)
    found = tar.read(first, size)
    if len(found) < size:
        raise OSError(f"{outer} is cut off: {inner} should have {size} bytes, {len(found)} are there")
    return found


def open_audio(name: str) -> Any:
    """Audio inside a container or behind a URL, as a `soundfile.SoundFile` or a `Pcm16`, which reads like one.

    Raises:
        EOFError: there are no bytes.
        soundfile.SoundFileError: no audio that libsndfile knows.
        FileNotFoundError, OSError, RuntimeError: as `read_bytes`.
    """
    outer, inner = split(name)
    if inner is not None and outer.endswith(".tar") and not remote.is_url(outer):
        tar = tars.open_tar(outer)
        stream: Any = tars.Member(tar, *tar.find(inner))  # only what is asked for is read: headers, stretches
        if not stream.size:
            raise EOFError(f"{name} has 0 bytes")
        return _sound(stream, name)
    content = _bytes(name, outer, inner)
    if not content:
        raise EOFError(f"{name} has 0 bytes")
    return Pcm16.of(content) or _sound(io.BytesIO(content), name)


def _sound(stream: Any, name: str) -> soundfile.SoundFile:
    """A stream as audio. What is wrong with it is told with its name, not with that of an object in memory."""
    try:
        return soundfile.SoundFile(stream)
    except soundfile.LibsndfileError as error:
        raise soundfile.LibsndfileError(error.code, f"Error opening {name!r}: ") from error


def _record(path: str, number: str) -> bytes:
    """The bytes of a record of an ArrayRecord file; Riegeli's hash of them is checked on the way."""
    # A file that is replaced is opened anew. Not so one behind a URL, which is asked for once in a process.
    status = None if remote.is_url(path) else os.stat(path)
    stamp = None if status is None else (status.st_size, status.st_mtime_ns)
    reader, count = _reader(path, stamp, os.getpid())
    if not (number.isascii() and number.isdigit()) or int(number) >= count:
        raise FileNotFoundError(f"{path} has the records 0 to {count - 1}, no {number!r}")
    (found,) = reader.read([int(number)])
    return bytes(found)


@functools.lru_cache(_OPEN)
def _reader(path: str, stamp: tuple[int, int] | None, process: int) -> tuple[Any, int]:
    """A reader of an ArrayRecord file, and how many records it has; a forked process opens its own."""
    from array_record.python.array_record_module import ArrayRecordReader

    local = remote.copy(path) if stamp is None else path
    with open(local, "rb"):  # the reader itself would take a missing file for an empty one
        pass
    # Without threads of its own and without reading ahead: for access at random.
    reader = ArrayRecordReader(local, "readahead_buffer_size:0,max_parallelism:0", file_reader_buffer_size=1 << 16)
    count = reader.num_records()
    if not count:
        raise OSError(f"{path} is no ArrayRecord file, or one without records")
    return reader, count
