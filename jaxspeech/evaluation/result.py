"""What an evaluation found: rates, counts, and every utterance with what was heard."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxspeech.errors import UserError
from jaxspeech.evaluation.scoring import Scores


@dataclasses.dataclass(frozen=True)
class Result:
    """What an evaluation found. Rates are fractions (0.083), in files and in JSON too; people are shown per cent.

    Attributes:
        set: name of the set.
        loss: sum of the loss over all utterances by sum of weights; NaN if nothing could be read.
        scores: errors, rates, and what counted them; None where only the loss was asked for.
        audio_seconds: audio that was read.
        decode_seconds: time that decoding took, by the wall clock, without compiling and loading.
        failed: utterances that could not be read. They have no loss, and all their words count as missed.
        sums: further metrics of the task.
        records: an object an utterance, in the manifest's order: `id`, `reference`, `hypothesis` (None where nothing
            was decoded), `loss` and `wer` (None where there is none), `duration` in seconds, `audio` (absolute path),
            and where it could not be read `error`.
        condition: what the set was heard under (`conditions.py`); "" for the set as it is.
    """

    set: str
    loss: float
    scores: Scores | None
    audio_seconds: float
    decode_seconds: float
    failed: int
    sums: dict[str, float]
    records: list[dict[str, Any]]
    condition: str = ""

    @property
    def wer(self) -> float | None:
        return None if self.scores is None else self.scores.wer

    @property
    def cer(self) -> float | None:
        return None if self.scores is None else self.scores.cer

    @property
    def utterances(self) -> int:
        return len(self.records)

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio decoded in a second."""
        return self.audio_seconds / self.decode_seconds if self.decode_seconds else None

    def metrics(self) -> dict[str, Any]:
        """The numbers, for a line of metrics.jsonl and for `--json`."""
        return {
            "set": self.set,
            **({"condition": self.condition} if self.condition else {}),
            "utterances": self.utterances,
            "wer": self.wer,
            "cer": self.cer,
            "loss": _finite(self.loss),
            "audio_seconds": self.audio_seconds,
            "rtfx": self.rtfx,
            "failed": self.failed,
            **{name: _finite(value) for name, value in self.sums.items()},
        }

    def summary(self) -> dict[str, Any]:
        """`metrics`, the counts behind the rates, and who counted."""
        names = ("words", "substitutions", "insertions", "deletions", "missing", "scorer", "normalizer")
        return self.metrics() | ({name: getattr(self.scores, name) for name in names} if self.scores else {})

    def samples(self, count: int) -> list[str]:
        """Transcripts to look at, the same utterances at every evaluation, spread over the set."""
        chosen = np.unique(np.linspace(0, self.utterances - 1, min(count, self.utterances)).round().astype(int))
        shown = [self.records[i] for i in chosen] if self.scores else []
        return [f"  {row['id']}\n    said:  {row['reference']}\n    heard: {row['hypothesis']}" for row in shown]

    def worst(self, count: int) -> list[dict[str, Any]]:
        """The utterances with most word errors; of equals, those with the higher rate."""
        if self.scores is None:
            return []
        words = self.scores.utterance_words
        order = sorted(range(len(words)), key=lambda i: (-words[i].errors, -words[i].rate))
        return [self.records[i] for i in order[:count] if words[i].errors]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes `records` as JSON lines, whole or not at all."""
        write_lines(path, self.records)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN


def write_lines(path: str | os.PathLike[str], rows: Sequence[dict[str, Any]]) -> None:
    """Writes JSON lines, whole or not at all. Raises `UserError` if the place cannot be written."""
    target = pathlib.Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error.strerror or error}; make room or choose another"
        ) from error
