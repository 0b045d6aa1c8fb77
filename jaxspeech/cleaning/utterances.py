"""The lines of a manifest that a model can hear. No jax here: processes that read lines start fast without it."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Iterator

import numpy as np

from jaxspeech.cleaning import duplicates
from jaxspeech.data import record, rows
from jaxspeech.data.audio import AudioError
from jaxspeech.data.record import Record
from jaxspeech.data.rows import Row, Rows
from jaxspeech.evaluation.long_audio import SHORTEST


class Utterances:
    """The lines of a manifest that can be heard, as records without texts, by number.

    Attributes:
        places: int64[n], their places among the lines.
        seconds: float64[n], their durations.
        durations: float64[n], the same with the silence that is put before what is too short for a model.
        rejected: place → (kind, reason, detail, seconds) of all other lines.
    """

    def __init__(self, manifest: Rows, longest: float, processes: int = 0):
        self._manifest = manifest
        self.rejected: dict[int, tuple[str, str, str, float]] = {}
        seconds, ids = np.empty(len(manifest)), np.zeros(len(manifest), np.int64)
        for place, one in enumerate(rows.each(_measure, manifest, processes=processes, what=manifest.name)):
            seconds[place], ids[place], problem = one
            if problem is not None:
                self.rejected[place] = ("failed", *problem, 0.0)
            elif seconds[place] > longest:
                detail = f"{seconds[place]:.2f} s, of at most {longest:g} s"
                self.rejected[place] = ("filtered", "too long for the model", detail, seconds[place])
        fit = np.setdiff1d(np.arange(len(manifest)), list(self.rejected))
        firsts = duplicates.clusters(ids[fit])
        again = firsts != np.arange(len(fit))
        for place, first in zip(fit[again].tolist(), fit[firsts[again]].tolist()):
            self.rejected[place] = ("filtered", "duplicate id", f"as {manifest.where(first)}", seconds[place])
        self.places = fit[~again]
        self.seconds = seconds[self.places]
        self.durations = np.maximum(self.seconds, SHORTEST)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> Record:
        row = self._manifest[int(self.places[number])].row
        whole = record.build(row, float(self.seconds[number]), "")
        first, *others = whole.segments
        first = dataclasses.replace(first, gap=first.gap + float(self.durations[number] - self.seconds[number]))
        length = float(self.durations[number])
        return dataclasses.replace(whole, id=str(number), text="", duration=length, segments=(first, *others))

    def ids(self, numbers: Iterable[int]) -> list[str]:
        return list(map(str, numbers))

    def texts(self) -> Iterator[str]:
        return iter([""] * len(self))

    def fingerprint(self) -> str:
        """Of the manifest's bytes, and of which of its lines are heard."""
        with open(self._manifest.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(self.places.tobytes() + self.durations.tobytes())
        return digest.hexdigest()


def _measure(row: Row) -> tuple[float, int, tuple[str, str] | None]:
    """Seconds of a line, 64 bits of its id, and what is wrong with it."""
    if row.problem is not None:
        return math.nan, 0, row.problem
    try:
        found = row.record()
    except AudioError as error:
        return math.nan, duplicates.key(row.row["id"]), (error.reason, error.detail)
    return found.duration, duplicates.key(found.id), None
