"""One long list in a JSON file that is larger than memory: its elements, one by one."""

import json
import re
from collections.abc import Iterator
from typing import IO, Any

_BLOCK = 1 << 22  # characters
_LONGEST = 1 << 20  # of a string, in characters
_NUMBER = re.compile(r"[-+.eE0-9]*")
_SPACE = re.compile(r"[ \t\r\n]*")
_decode = json.JSONDecoder().raw_decode


def elements(file: IO[str], key: str) -> Iterator[Any]:
    """The elements of the list under a key of the object that a file holds; what else is in it is skipped.

    Memory holds one element and a block of the file. Raises `ValueError` with what is wrong in words: no object, no
    such list, cut off, not JSON.
    """
    text = _Text(file)
    text.expect("{", "no JSON object")
    if text.peek() == "}":
        raise ValueError(f"no list {key!r}")
    while True:
        name = text.value()
        text.expect(":", "not valid JSON")
        if name == key:
            yield from _list(text, key)
            return
        text.value()
        if text.take() != ",":
            raise ValueError(f"no list {key!r}")


def _list(text: "_Text", key: str) -> Iterator[Any]:
    text.expect("[", f"{key!r} is no list")
    if text.peek() == "]":
        return
    while True:
        yield text.value()
        mark = text.take()
        if mark == "]":
            return
        if mark != ",":
            raise ValueError(f"not valid JSON in {key!r}: {mark!r} where ',' or ']' should be")


class _Text:
    """The part of a file that has been read and not yet used."""

    def __init__(self, file: IO[str]):
        self._file = file
        self._buffer = ""
        self._place = 0
        self._ended = False

    def value(self) -> Any:
        """The JSON value that comes next."""
        self.peek()
        while True:
            try:
                found, end = _decode(self._buffer, self._place)
            except json.JSONDecodeError as error:
                # Too little has been read, or it is no JSON: the buffer doubles, so all tries together cost two.
                # What is wrong far from the end of what was read does not get right by reading on.
                if error.pos < len(self._buffer) - _LONGEST or not self._read():
                    raise ValueError(f"not valid JSON, or cut off ({error.msg})") from error
                continue
            if type(found) in (int, float) and _NUMBER.fullmatch(self._buffer, end) and self._read():
                continue  # the number may go on
            self._place = end
            return found

    def peek(self) -> str:
        """The character that comes next after white space; stays where it is."""
        while True:
            space = _SPACE.match(self._buffer, self._place)
            self._place = space.end() if space else self._place
            if self._place < len(self._buffer):
                return self._buffer[self._place]
            if not self._read():
                raise ValueError("not valid JSON, or cut off (the file ends)")

    def take(self) -> str:
        """The character that comes next after white space."""
        found = self.peek()
        self._place += 1
        return found

    def expect(self, mark: str, otherwise: str) -> None:
        if self.take() != mark:
            raise ValueError(otherwise)

    def _read(self) -> bool:
        if self._ended:
            return False
        left = self._buffer[self._place :]
        block = self._file.read(max(_BLOCK, len(left)))
        self._ended = not block
        self._buffer, self._place = left + block, 0
        return not self._ended
