"""The plots of an inspection: distributions, and hours by name. In the look of `plots.py`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxspeech.data.duration_law import PAPER
from jaxspeech.observe import plots
from jaxspeech.observe.plots import SERIES, number

_MOST_BARS = 20


def durations(seconds: np.ndarray) -> str:
    """Durations in bins of a second, beside the paper's. What is longer than 31 s stands in the last bin."""
    edges = np.arange(0.5, 32.5)
    counts, _ = np.histogram(np.clip(seconds, 0.5, 31.4), edges)

    def draw(axes: Any) -> None:
        axes.stairs(100 * counts / max(len(seconds), 1), edges, fill=True, color=SERIES[0], alpha=0.75, label="here")
        axes.stairs(np.append(PAPER, 0), edges, color=SERIES[1], linewidth=1.5, label="Moonshine paper")
        axes.set_xlim(0, 32)
        axes.set_xticks([1, 5, 10, 15, 20, 25, 30])
        axes.set_xlabel("duration (s)")
        axes.set_ylabel("utterances (%)")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handlelength=1.4)

    return _drawn(draw, "durations of the utterances, beside those of the Moonshine paper")


def distribution(values: np.ndarray, unit: str, colour: int = 0, limits: tuple[float, float] | None = None) -> str:
    """How often which value occurs.

    Args:
        limits: of the axis; None: from the 0.1st to the 99.9th percentile. Values beyond stand at the ends.
    """
    low, high = limits or (float(np.quantile(values, 0.001)), float(np.quantile(values, 0.999)))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(values, low, high), bins=48, range=(low, high))

    def draw(axes: Any) -> None:
        axes.stairs(100 * counts / max(len(values), 1), edges, fill=True, color=SERIES[colour], alpha=0.75)
        middle = float(np.median(values))
        axes.axvline(middle, color="#010203", linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlim(low, high)
        axes.set_xlabel(unit)
        axes.set_ylabel("utterances (%)")
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.grid(axis="x", visible=False)

    return _drawn(draw, f"distribution of {unit}")


def hours(named: Mapping[str, float], colour: int = 0) -> str:
    """Hours of each name as bars, most first; beyond twenty names the rest is one bar."""
    pairs = list(named.items())
    if len(pairs) > _MOST_BARS:
        rest = pairs[_MOST_BARS - 1 :]
        pairs = [*pairs[: _MOST_BARS - 1], (f"{len(rest):,} others", sum(value for _, value in rest))]
    values = np.array([value for _, value in pairs])

    def draw(axes: Any) -> None:
        places = np.arange(len(pairs))[::-1]
        axes.barh(places, values, color=SERIES[colour], alpha=0.75, height=0.7)
        for place, value in zip(places, values):
            axes.annotate(f"{value:,.3g} h", (value, place), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(places, [_short(name) for name, _ in pairs])
        axes.set_ylim(-0.6, len(pairs) - 0.4)
        axes.set_xlim(0, 1.2 * max(float(values.max(initial=0)), 1e-9))
        axes.set_xlabel("hours")
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.grid(axis="y", visible=False)

    return _drawn(draw, "hours by name", max(1.2, 0.24 * len(pairs) + 0.7))


def _drawn(draw: Any, description: str, height: float = 2.7) -> str:
    return plots._svg(draw, height, description)


def _short(name: str) -> str:
    name = name.replace("$", r"\$")  # a name is no formula
    return name if len(name) <= 28 else name[:27] + "…"
