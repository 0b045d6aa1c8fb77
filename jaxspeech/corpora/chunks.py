"""Chunks of utterances: packed for another process, checked there, and sent back as the bytes that are written."""

import collections
import dataclasses
import hashlib
import io
import json
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxspeech.corpora.checks import Kept, Limits, examine
from jaxspeech.corpora.journal import FACTS, Checked
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data import containers, remote

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_CLOCK = 0.1  # seconds that the clock of a file system may be behind
_VERSION = 1  # of the checks: an interrupted preparation of other checks is not taken up


@dataclasses.dataclass(frozen=True)
class Settings:
    """How utterances are checked and written.

    Attributes:
        out: absolute path of the folder of the manifests.
        relative: write all audio paths relative to it, not only those under it.
    """

    limits: Limits
    decode: bool
    out: str
    relative: bool

    def fingerprint(self) -> bytes:
        state = json.dumps([_VERSION, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(state.encode()).digest()


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Utterances that are checked together (`pool.Task`).

    Attributes:
        number: its place among the chunks of its split.
        items: pickled: (where, row) of those found, (where, kind, reason, detail) of those that the source rejects.
    """

    number: int
    items: bytes
    settings: Settings

    def key(self) -> str:
        """Changes with what goes in."""
        return hashlib.blake2b(self.settings.fingerprint() + self.items, digest_size=16).hexdigest()

    def changed_since(self, when: float) -> bool:
        """Whether the file of an utterance is another than at a time (seconds since 1970), for all that is known."""
        for item in pickle.loads(self.items):
            row = item[1] if len(item) == 2 else {}
            for piece in row.get("segments") or (row,):
                path = piece.get("audio") if isinstance(piece, dict) else None
                if isinstance(path, str) and _changed_since(path, when):
                    return True
        return False

    def run(self) -> Checked:
        lines, facts = [], []
        failed: collections.Counter[str] = collections.Counter()
        again = 0
        items = pickle.loads(self.items)
        for item in items:
            if len(item) == 2:
                where, row = item
                verdict: Kept | Rejected = examine(where, row, self.settings.limits, self.settings.decode)
            else:
                where, kind, reason, detail = item
                verdict = Rejected(where, reason, detail, kind)
            if isinstance(verdict, Kept):
                try:
                    lines.append(self._line(where, verdict))
                    facts.append(_facts(verdict))
                    continue
                except (TypeError, ValueError) as error:  # something in it is no JSON, or half a character
                    verdict = Rejected(where, "not a record", str(error))
            lines.append(b"-" + rejected_line(verdict))
            if verdict.kind == "failed":
                failed[verdict.reason] += 1
                again += len(item) == 2
        return Checked(len(items), b"".join(lines), np.array(facts, FACTS), dict(failed), again)

    def pieces(self) -> "list[Chunk]":
        return [dataclasses.replace(self, items=_pack([item])) for item in pickle.loads(self.items)]

    def join(self, results: Sequence[Checked]) -> Checked:
        failed: collections.Counter[str] = collections.Counter()
        for result in results:
            failed.update(result.failed)
        return Checked(
            sum(result.read for result in results),
            b"".join(result.lines for result in results),
            np.concatenate([result.facts for result in results]),
            dict(failed),
            sum(result.again for result in results),
        )

    def lost(self) -> Checked:
        (item,) = pickle.loads(self.items)
        reason = "kills the process that reads it"
        verdict = Rejected(item[0], reason, str(item[1].get("audio", "")) if len(item) == 2 else "")
        return Checked(1, b"-" + rejected_line(verdict), np.zeros(0, FACTS), {reason: 1}, 1)

    def _line(self, where: str, kept: Kept) -> bytes:
        return f"+{_encode(where)}\t{_encode(_paths(kept.row, self.settings))}\n".encode()


def _changed_since(path: str, when: float) -> bool:
    outer = containers.split(path)[0]
    try:
        # Not when it was modified: a file that is copied or moved here may bring that time along.
        return not remote.is_url(outer) and os.stat(outer).st_ctime > when - _CLOCK
    except (OSError, ValueError):
        return True


def cut(items: Iterable[Found | Rejected], size: int, settings: Settings) -> Iterator[Chunk]:
    """The items in chunks of so many."""
    packed: list[tuple] = []
    number = 0
    for item in items:
        if isinstance(item, Found):
            packed.append((item.where, item.row))
        else:
            packed.append((item.where, item.kind, item.reason, item.detail))
        if len(packed) == size:
            yield Chunk(number, _pack(packed), settings)
            packed, number = [], number + 1
    if packed:
        yield Chunk(number, _pack(packed), settings)


def rejected_line(rejected: Rejected) -> bytes:
    """A line of OUT/<split>.rejected.jsonl."""
    row = {key: getattr(rejected, key) for key in ("where", "kind", "reason", "detail")}
    return json.dumps(row, ensure_ascii=False).encode("utf-8", errors="backslashreplace") + b"\n"


def _pack(items: Sequence[tuple]) -> bytes:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 5)
    pickler.fast = True  # the bytes are a function of the values, not of which objects are shared: they are hashed
    pickler.dump(items)
    return buffer.getvalue()


def _facts(kept: Kept) -> tuple:
    row = kept.row
    if row.get("segments") is not None:
        stretch = json.dumps(row["segments"])
    else:
        stretch = f"{row['audio']}\0{row.get('offset')}\0{row['duration'] if row.get('offset') is not None else ''}"
    stretch += f"\0{row.get('channel')}"
    return (_hash(row["id"]), _hash(stretch), kept.sound, row["duration"], kept.characters, kept.rate, kept.clipped)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _paths(row: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The row with audio paths relative to the folder of the manifest, where they are to be."""
    if row.get("segments") is not None:
        return row | {"segments": [_paths(piece, settings) for piece in row["segments"]]}
    path = row["audio"]
    if path.startswith(os.path.join(settings.out, "")) or (settings.relative and os.path.isabs(path)):
        return row | {"audio": os.path.relpath(path, settings.out)}
    return row
