"""The law of a corpus' own speaking rate, and the utterances far outside it: a wrong header, or another's text.

What it can tell: characters a second differ by a fifth or so between utterances of like length, so a header whose rate
is off by a factor of two stands out only where the corpus itself says that its files have another rate, and a factor of
three or more stands out alone. It cannot see a slow talker marked as such by nobody, nor two swapped texts of like
length. Below 50 utterances of like length nothing is said.
"""

import dataclasses

import numpy as np

_LEAST = 50  # utterances of like length that make a law
_FAR = 5.0  # robust deviations that are far outside
_FACTOR = 2.2  # and at least so many times faster or slower
_ODD, _USUAL = 2.5, 1.5  # deviations under the rate of the header, and under that of the corpus, for a wrong header
_LEAST_SPREAD = 0.08  # of the logarithm: a synthetic corpus has next to none


@dataclasses.dataclass(frozen=True)
class Outlier:
    """Why an utterance stands out."""

    reason: str
    detail: str


def outliers(characters: np.ndarray, seconds: np.ndarray, rates: np.ndarray) -> dict[int, Outlier]:
    """Utterances far outside the law.

    Args:
        characters: int[n], of their texts; those without text have no rate of speech.
        seconds: float64[n].
        rates: int[n], Hz that the headers state.

    Returns:
        Their numbers, each with what speaks against it.
    """
    found: dict[int, Outlier] = {}
    spoken = np.flatnonzero(characters > 0)
    if len(spoken) < _LEAST:
        return found
    speed = np.log(characters[spoken] / seconds[spoken])
    values, counts = np.unique(rates[spoken], return_counts=True)
    usual = int(values[np.argmax(counts)])
    if counts.max() <= len(spoken) / 2:
        usual = 0  # a mixture of rates: no header is odd among these
    # Short texts are spoken with more silence around them: utterances are compared with those of like length.
    classes = np.floor(np.log2(characters[spoken])).astype(int)
    for group in np.unique(classes):
        members = np.flatnonzero(classes == group)
        if len(members) < _LEAST:
            continue
        middle = float(np.median(speed[members]))
        spread = max(1.4826 * float(np.median(np.abs(speed[members] - middle))), _LEAST_SPREAD)
        low, high = np.exp(np.quantile(speed[members], (0.05, 0.95)))
        law = f"where 90 % of texts of like length have {low:.1f} to {high:.1f}"
        for member in members[np.abs(speed[members] - middle) > _ODD * spread]:
            place, distance = int(spoken[member]), float(speed[member] - middle)
            rate = int(rates[place])
            said = f"{np.exp(speed[member]):.1f} characters a second {law}"
            # Were the rate that of the corpus, the duration would be rate / usual times as long.
            if usual and rate != usual and abs(distance + np.log(usual / rate)) < _USUAL * spread:
                detail = f"{said}; with {usual} Hz, as in most headers, instead of {rate} it would fit"
                found[place] = Outlier("wrong rate in the header", detail)
            elif abs(distance) > max(_FAR * spread, np.log(_FACTOR)):
                detail = f"{said}; a wrong rate in the header, a text that is not its own, or much silence"
                found[place] = Outlier("speaking rate far outside the corpus", detail)
    return found
