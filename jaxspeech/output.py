"""Files and folders that are written: where, whole or not at all, and one line where they cannot be."""

import os
import pathlib

from jaxspeech.errors import UserError


def folder(path: str | os.PathLike[str], option: str) -> pathlib.Path:
    """A folder to write into, made where it is missing. Raises `UserError`, which names `option`, if that cannot be."""
    if not os.fspath(path):
        raise UserError(f"{option} is empty; give a folder")
    out = pathlib.Path(os.path.abspath(path))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option}={path} cannot be made: {error.strerror}; choose another folder") from error
    if not os.access(out, os.W_OK):
        raise UserError(f"{option}={path} cannot be written; choose another folder")
    return out


def cache_folder() -> pathlib.Path:
    """Where what can be made again is kept for the user: `$XDG_CACHE_HOME/jaxspeech`."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "jaxspeech"


def write(path: pathlib.Path, content: bytes) -> None:
    """Writes a file, whole or not at all; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
