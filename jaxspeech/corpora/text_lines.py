"""Lines of text files that other tools wrote: byte order marks, line ends of Windows, bad UTF-8, gzip."""

import gzip
import os
import zlib
from collections.abc import Iterator

from jaxspeech.corpora.source import Notes
from jaxspeech.errors import UserError

BOM_SKIPPED = "byte order mark skipped"
CRLF_SKIPPED = "line ends of Windows (CRLF)"
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read(path: str, notes: Notes | None = None) -> Iterator[tuple[int, bytes]]:
    """Numbers (from 1) and bytes of all lines, without their ends; `.gz` is unpacked. Blank lines are left out.

    What is skipped is told to `notes`. Raises `UserError` if the file cannot be read, or is in UTF-16.
    """
    try:
        with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb", buffering=1 << 20) as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    if line.startswith(_UTF16):
                        raise UserError(f"{path} is in UTF-16; save it as UTF-8")
                    if notes is not None and line.startswith(_BOM):
                        notes.add(BOM_SKIPPED, path, number)
                    line = line.removeprefix(_BOM)
                if notes is not None and line.endswith(b"\r\n"):
                    notes.add(CRLF_SKIPPED, path, number)
                line = line.rstrip(b"\r\n")
                if line and not line.isspace():
                    yield number, line
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; correct the path") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def decode(line: bytes) -> str:
    """The text of a line; raises `ValueError` with what is wrong in words."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} of the line is no UTF-8") from error


def absolute(path: str, root: str) -> str:
    """A path as a manifest row needs it: relative ones are taken from `root`, URLs stay as they are."""
    return path if "://" in path else os.path.normpath(os.path.join(os.path.abspath(root), path))
