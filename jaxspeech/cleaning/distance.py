"""How far a caption is from a pseudo-label: the normalised Levenshtein distance (Moonshine paper §3.2)."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def distance(caption: str, pseudo: str, clean: Callable[[str], str]) -> float:
    """Edits of characters that turn one text into the other, divided by the length of the longer: 0 same, 1 nothing.

    Args:
        clean: a normaliser: case and punctuation are no difference between captions.
    """
    return Levenshtein.normalized_distance(clean(caption), clean(pseudo))


@dataclasses.dataclass(frozen=True)
class Effect:
    """What a threshold would keep."""

    threshold: float
    kept: int
    hours: float


def effects(
    distances: np.ndarray, seconds: np.ndarray, thresholds: Sequence[float] = THRESHOLDS, chosen: float | None = None
) -> list[Effect]:
    """What each threshold would keep of the utterances with a distance (NaN: without one, not counted)."""
    known = np.isfinite(distances)
    distances, seconds = distances[known], seconds[known]
    found = []
    for threshold in sorted({*thresholds, *([] if chosen is None else [chosen])}):
        kept = distances <= threshold
        found.append(Effect(threshold, int(kept.sum()), float(seconds[kept].sum()) / 3600))
    return found


def table(found: Sequence[Effect], chosen: float | None) -> str:
    """The effects for people; the threshold that is chosen is marked."""
    total = max(found[-1].kept, 1)
    lines = ["distance ≤      kept    share       hours"]
    for effect in found:
        mark = "  ← --max-distance" if effect.threshold == chosen else ""
        share = effect.kept / total
        lines.append(f"{effect.threshold:>10g}{effect.kept:>10,}{100 * share:>8.1f}%{effect.hours:>12,.2f}{mark}")
    return "\n".join(lines)


def swapped(
    places: Sequence[int], captions: Sequence[str], pseudo: Sequence[str], limit: float, reach: int = 25
) -> dict[int, int]:
    """Among utterances whose caption is far from their pseudo-label: whose caption did each one get?

    Files of captions slip by a line, or two lines change places: then the words of an utterance are the caption of one
    nearby that is just as wrong.

    Args:
        places: where they stand in the manifest, ascending.
        captions, pseudo: normalised, of the same length.
        limit: the largest distance at which two texts are the same words.
        reach: how many of the others to look at before and after.

    Returns:
        place → place of the caption that fits, of those for which there is one.
    """
    found = {}
    for i, heard in enumerate(pseudo):
        best, at = limit, -1
        for j in range(max(0, i - reach), min(len(places), i + reach + 1)):
            if j != i and captions[j]:
                far = Levenshtein.normalized_distance(heard, captions[j], score_cutoff=best)
                if far < best or (far == best and at < 0):
                    best, at = far, j
        if at >= 0:
            found[places[i]] = places[at]
    return found
