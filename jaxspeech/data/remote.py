"""Files behind URLs (s3://…, gs://…, memory://…), through fsspec; and copies of them kept on this machine."""

import fcntl
import hashlib
import os
import pathlib
from typing import Any

from jaxspeech.errors import UserError
from jaxspeech.output import cache_folder


def is_url(name: str) -> bool:
    """Whether a name is a URL, and no path."""
    return "://" in name


def exists(url: str) -> bool:
    """Whether there is a file at a URL. Raises `UserError` where fsspec or the backend of its scheme is missing."""
    system, path = _system(url)
    try:
        return bool(system.isfile(path))
    except Exception as error:  # each backend has exceptions of its own
        raise UserError(f"{url} cannot be reached: {_line(error)}; check the address and your credentials") from error


def read(url: str, first: int | None = None, last: int | None = None) -> bytes:
    """The bytes first … last - 1 of the file at a URL, by default all of it.

    Raises `FileNotFoundError`, `ConnectionError` for whatever else went wrong, and `UserError` as `exists`.
    """
    system, path = _system(url)
    try:
        return bytes(system.cat_file(path, start=first, end=last))
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ConnectionError(f"{url} cannot be read: {_line(error)}") from error


def open_stream(url: str) -> Any:
    """The file at a URL as a seekable binary stream. Errors as `read`."""
    system, path = _system(url)
    try:
        return system.open(path, "rb")
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ConnectionError(f"{url} cannot be read: {_line(error)}") from error


def copy(url: str) -> str:
    """Path of a copy of the file at a URL, in `$XDG_CACHE_HOME/jaxspeech/remote`; fetched once for each content.

    Several processes may ask at once: one fetches, the others wait. Copies are never removed. Errors as `read`.
    """
    system, path = _system(url)
    folder = _place(url, version(url))
    target = folder / (os.path.basename(path.rstrip("/")) or "file")
    if target.exists():
        return str(target)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            temporary = target.with_name(f".{target.name}.tmp")
            try:
                system.get_file(path, str(temporary))
                os.replace(temporary, target)
            except Exception as error:
                raise ConnectionError(f"{url} cannot be copied to {folder}: {_line(error)}") from error
            finally:
                temporary.unlink(missing_ok=True)
    return str(target)


def version(url: str) -> str:
    """A text that changes when the content at a URL does (its ETag, or its size and time). Errors as `read`."""
    system, path = _system(url)
    try:
        return str(system.ukey(path))
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ConnectionError(f"{url} cannot be read: {_line(error)}") from error


def beside(url: str) -> str:
    """A path in the cache folder beside which things about a URL are kept (`sidecar`)."""
    return str(_place(url, "about") / "file")


def _place(url: str, content: str) -> pathlib.Path:
    return cache_folder() / "remote" / hashlib.sha256(f"{url}\n{content}".encode()).hexdigest()[:32]


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL (fsspec keeps one for each backend), and the path in it."""
    try:
        import fsspec.core
    except ImportError:
        raise UserError(f"{url} is a URL, which needs fsspec: pip install 'jaxspeech[remote]'") from None
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url} cannot be opened: {_line(error)}") from error
    return system, path


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
