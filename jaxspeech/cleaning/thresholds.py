"""What a threshold on a measure of pseudo-labels would keep: shown before anything is dropped."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Measure:
    """Something that is known of lines, and limited.

    Attributes:
        what: lines have it.
        condition: without its number, for the head of a table.
        flag: that chooses the number.
        thresholds: to show.
        largest: whether the threshold is the largest value that is kept; else it is the least.
    """

    what: str
    condition: str
    flag: str
    thresholds: Sequence[float]
    largest: bool


DISTANCE = Measure(
    what="a pseudo-label",
    condition="distance ≤",
    flag="--max-distance",
    thresholds=(0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
    largest=True,
)
LOGPROB = Measure(
    what="an average log-probability",
    condition="log-prob ≥",
    flag="--min-logprob",
    thresholds=(-0.05, -0.1, -0.15, -0.2, -0.3, -0.4, -0.5, -0.7, -1, -1.5, -2, -3),
    largest=False,
)


@dataclasses.dataclass(frozen=True)
class Effect:
    """What a threshold would keep."""

    threshold: float
    kept: int
    share: float  # of the lines with the measure
    hours: float


def effects(measure: Measure, values: np.ndarray, seconds: np.ndarray, chosen: float | None = None) -> list[Effect]:
    """What each threshold would keep of the lines with the measure (NaN: without); [] if there is none.

    Args:
        values, seconds: float64[n], the measure and the durations.
        chosen: another threshold to show.
    """
    known = np.isfinite(values)
    values, seconds = values[known], seconds[known]
    if not len(values):
        return []
    found = []
    thresholds = {*measure.thresholds, *([] if chosen is None else [chosen])}
    for threshold in sorted(thresholds, reverse=not measure.largest):
        kept = values <= threshold if measure.largest else values >= threshold
        found.append(Effect(threshold, int(kept.sum()), float(kept.mean()), float(seconds[kept].sum()) / 3600))
    return found


def show(
    measure: Measure, values: np.ndarray, seconds: np.ndarray, chosen: float | None = None, note: str = ""
) -> list[dict[str, Any]]:
    """Prints the effects as a table, the chosen threshold marked, and returns them for `--json`; [] if there are none.

    Args:
        note: stands above the table.
    """
    found = effects(measure, values, seconds, chosen)
    if found:
        count = int(np.isfinite(values).sum())
        print(f"{count:,} line{' has' if count == 1 else 's have'} {measure.what}{note and '; '}{note}")
        print(f"{measure.condition}      kept    share       hours")
        for effect in found:
            mark = f"  ← {measure.flag}" if effect.threshold == chosen else ""
            share = f"{100 * effect.share:.1f}%"
            print(f"{effect.threshold:>10g}{effect.kept:>10,}{share:>9}{effect.hours:>12,.2f}{mark}")
        print()
    return [{"threshold": e.threshold, "kept": e.kept, "hours": round(e.hours, 6)} for e in found]
