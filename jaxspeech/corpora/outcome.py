"""What becomes of a split when all of it is known: duplicates and outliers are taken out, manifest and rejects written.

    {"where": "train.jsonl:17", "kind": "failed", "reason": "missing file", "detail": "/data/a1.wav"}

is a line of OUT/<split>.rejected.jsonl; there is one for each utterance that is not in OUT/<split>.jsonl.
"""

import collections
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from jaxspeech.corpora.chunks import Settings, rejected_line
from jaxspeech.corpora.journal import Checked
from jaxspeech.corpora.rates import Outlier, outliers
from jaxspeech.corpora.source import Rejected
from jaxspeech.errors import UserError

_SOME_CLIPPED = 0.001  # share of samples at full scale that is worth a word


def paths(folder: pathlib.Path, split: str) -> tuple[pathlib.Path, pathlib.Path]:
    """The manifest of a split and the list of what is not in it."""
    return folder / f"{split}.jsonl", folder / f"{split}.rejected.jsonl"


def write(
    folder: pathlib.Path, split: str, chunks: Iterable[Checked], facts: np.ndarray, settings: Settings
) -> dict[str, Any]:
    """Writes both files of a split, whole or not at all, and counts.

    Args:
        chunks: all of the split, in order.
        facts: FACTS[n] of what passed in them.
    """
    odd: dict[int, Outlier] = {}
    if settings.decode and settings.limits.speaking_rate:
        odd = outliers(facts["characters"], facts["seconds"], facts["rate"])
    duplicates = _Duplicates(facts, odd, settings.limits.repeated_audio)
    counts = {kind: collections.Counter[str]() for kind in ("filtered", "failed")}
    examples: dict[str, str] = {}
    kept = np.zeros(len(facts), bool)
    read = place = 0
    targets = paths(folder, split)
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in targets]
    try:
        with open(temporary[0], "wb") as manifest, open(temporary[1], "wb") as rejects:
            for chunk in chunks:
                for line in chunk.lines.splitlines(keepends=True):
                    read += 1
                    if line[:1] == b"+":
                        where, row = line[1:].split(b"\t", 1)
                        rejected = duplicates.look(place, where, row) if duplicates.suspects[place] else None
                        place += 1
                        if rejected is None:
                            kept[place - 1] = True
                            manifest.write(row)
                            continue
                        line = b"-" + rejected_line(rejected)
                    rejects.write(line[1:])
                    why = json.loads(line[1:])
                    counts[why["kind"]][why["reason"]] += 1
                    examples.setdefault(why["reason"], f"{why['where']}: {why['detail']}".removesuffix(": "))
            _to_disk(manifest, rejects)
        found = {
            "read": read,
            "kept": int(kept.sum()),
            "filtered": dict(sorted(counts["filtered"].items())),
            "failed": dict(sorted(counts["failed"].items())),
            "hours": float(facts["seconds"][kept].sum()) / 3600,
            "clipped": int((facts["clipped"][kept] > _SOME_CLIPPED).sum()),
            "examples": examples,
        }
        known = int(kept.sum()) + counts["filtered"].total() + counts["failed"].total()
        assert place == len(facts), f"{place} lines and {len(facts)} facts"
        assert read == known, f"the ledger does not add up: {read} read, {known} known"
        os.replace(temporary[1], targets[1])
        if found["kept"]:
            os.replace(temporary[0], targets[0])
        else:  # a manifest without records is none
            targets[0].unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{targets[0]} cannot be written: {error.strerror}; is there space and permission?") from error
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
    return found | {"manifest": str(targets[0]), "rejected": str(targets[1])}


def rejects(chunk: Checked) -> Iterator[dict[str, Any]]:
    """The rejected lines of a chunk."""
    for line in chunk.lines.splitlines():
        if line[:1] == b"-":
            yield json.loads(line[1:])


class _Duplicates:
    """Utterances that have the id or the audio of an earlier one, and those that stand out; the first one is kept."""

    def __init__(self, facts: np.ndarray, odd: dict[int, Outlier], repeated_audio: bool):
        self._odd, self._facts = odd, facts
        self._ids: dict[str, str] = {}
        self._audio: dict[tuple[str, int], str] = {}
        candidates = np.ones(len(facts), bool)
        candidates[list(odd)] = False
        keys = ["id"] if repeated_audio else ["id", "stretch", "sound"]
        self._repeated = {key: _repeated(facts[key], candidates & (facts[key] != 0)) for key in keys}
        self.suspects = ~candidates
        for mask in self._repeated.values():
            self.suspects |= mask

    def look(self, place: int, where: bytes, row: bytes) -> Rejected | None:
        """Why a suspect is left out; None: it is kept."""
        here = json.loads(where)
        if place in self._odd:
            return Rejected(here, self._odd[place].reason, self._odd[place].detail, kind="filtered")
        name = json.loads(row)["id"]
        if name in self._ids:
            return Rejected(here, "duplicate id", f"{name} is also at {self._ids[name]}", kind="filtered")
        sounds = [
            (key, int(self._facts[key][place]))
            for key in ("stretch", "sound")
            if key in self._repeated and self._repeated[key][place]
        ]
        for value in sounds:
            if value in self._audio:
                return Rejected(here, "duplicate audio", f"{name} sounds as {self._audio[value]}", kind="filtered")
        self._audio |= dict.fromkeys(sounds, f"{name} at {here}")
        if self._repeated["id"][place]:
            self._ids[name] = here
        return None


def _repeated(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """bool[n]: which of the values, among those asked for, occur more than once."""
    places = np.flatnonzero(among)
    order = places[np.argsort(values[places], kind="stable")]
    same = values[order[1:]] == values[order[:-1]]
    found = np.zeros(len(values), bool)
    found[order[1:][same]] = True
    found[order[:-1][same]] = True
    return found


def _to_disk(*files: BinaryIO) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())
