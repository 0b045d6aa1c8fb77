"""A JSON file that is one long list: its elements one by one, with the lines that they begin on."""

import json
import re
from collections.abc import Iterator
from typing import Any

from jaxspeech.corpora.source import Rejected
from jaxspeech.errors import UserError

_BLOCK = 1 << 20  # characters
_LONGEST = 1 << 26  # characters of one element
_SPACE = re.compile(r"[ \t\r\n]*")
_HALF = re.compile("[\ud800-\udfff]")
_decode = json.JSONDecoder().raw_decode


def objects(path: str, name: str) -> Iterator[tuple[str, dict[str, Any] | Rejected]]:
    """(where, object) of each element, and a `Rejected` in place of one that is no object or has bad UTF-8.

    Memory holds one element and a block of the file. `name` stands for the file in `where`.

    Raises:
        UserError: the file cannot be read, or is no JSON list from some line on: what follows cannot be told apart.
    """
    for line, element, damaged in _elements(path):
        where = f"{name}:{line}"
        if not isinstance(element, dict):
            yield where, Rejected(where, "bad JSON", f"a {type(element).__name__}, not an object")
        elif damaged and _HALF.search(json.dumps(element, ensure_ascii=False)):
            yield where, Rejected(where, "bad UTF-8", "save the file as UTF-8")
        else:
            yield where, element


def refuse_what_is_no_list(path: str, instead: str) -> None:
    """Raises `UserError` unless a file begins as a JSON list; `instead` says what to give."""
    first = _Text(path).peek()
    if first != "[":
        what = f"begins with {first!r}" if first else "is empty"
        raise UserError(f"{path} {what}, it is no JSON list; give {instead}")


def _elements(path: str) -> Iterator[tuple[int, Any, bool]]:
    """Line and value of each, and whether bad UTF-8 may be in it."""
    text = _Text(path)
    if text.take() != "[":
        raise UserError(f"{path} is no JSON list; it should begin with '['")
    mark = text.peek()
    while mark != "]":
        text.peek()
        line, element = text.line, text.value()
        yield line, element, text.damaged
        mark = text.peek()
        if mark not in (",", "]"):
            found = f"{mark!r} stands" if mark else "the file ends"
            raise UserError(f"{path}:{text.line}: {found} where ',' or ']' should be; is the file complete?")
        text.take()


class _Text:
    """The part of a file that has been read and not yet used.

    Attributes:
        line: number of the line at which it begins.
        damaged: whether there was bad UTF-8 so far.
    """

    def __init__(self, path: str):
        self._path = path
        self._buffer, self._place = "", 0
        self._ended = False
        self.line = 1
        self.damaged = False
        try:
            # Bytes that are no UTF-8 become halves of surrogate pairs, which `objects` finds.
            self._file = open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}; correct the path") from error

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            self._skip(_SPACE.match(self._buffer, self._place).end())  # type: ignore[union-attr]
            if self._place < len(self._buffer) or not self._more(_BLOCK):
                return self._buffer[self._place : self._place + 1]

    def take(self) -> str:
        """`peek`, and goes on behind it."""
        found = self.peek()
        self._skip(self._place + len(found))
        return found

    def value(self) -> Any:
        """The JSON value that comes next."""
        self.peek()
        size = _BLOCK
        while True:
            try:
                found, end = _decode(self._buffer, self._place)
                if end == len(self._buffer) and self._more(size):
                    continue  # a number may go on behind the block
                self._skip(end)
                return found
            except json.JSONDecodeError as error:
                if len(self._buffer) - self._place < _LONGEST and self._more(size):
                    size *= 2  # so that a long element is not parsed again for each of its blocks
                    continue
                raise UserError(f"{self._path}:{self.line}: not valid JSON ({error.msg}); correct it") from error
            except ValueError as error:  # a number of thousands of digits
                raise UserError(f"{self._path}:{self.line}: not valid JSON ({error}); correct it") from error
            except RecursionError as error:
                raise UserError(f"{self._path}:{self.line}: not valid JSON (nested too deeply)") from error

    def _skip(self, place: int) -> None:
        self.line += self._buffer.count("\n", self._place, place)
        self._place = place

    def _more(self, size: int) -> bool:
        """Reads on; False at the end of the file."""
        if self._ended:
            return False
        try:
            block = self._file.read(size)
        except OSError as error:
            raise UserError(f"{self._path} cannot be read: {error.strerror}") from error
        if not block:
            self._ended = True
            self._file.close()
            return False
        self.damaged = self.damaged or _HALF.search(block) is not None
        self._buffer, self._place = self._buffer[self._place :] + block, 0
        return True
