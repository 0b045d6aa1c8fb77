"""How long the utterances of a training set are: the law of Moonshine's, to compare with and to draw from."""

import numpy as np

# Per cent of the instances in the bins [k - 0.5, k + 0.5) s, k = 1 … 30, read off figure 4 of the Moonshine paper
# (arXiv 2410.15608). Mean 14.2 s; one in eight is shorter than 3.5 s.
PAPER = np.array([
    1.20, 4.65, 6.67, 6.16, 5.69, 4.88, 4.31, 3.71, 3.14, 3.06, 3.07, 2.94, 2.77, 3.10, 4.87, 2.36, 2.19, 2.08, 2.02,
    1.68, 1.44, 1.53, 1.60, 1.88, 2.38, 3.12, 4.00, 4.85, 5.71, 2.96,
])  # fmt: skip

LAWS = ("paper", "uniform", "longest")


def draw(rng: np.random.Generator, law: str, shortest: float, longest: float) -> float:
    """A target length in seconds: by the paper's histogram within the limits, evenly between them, or the longest."""
    if law == "uniform":
        return float(rng.uniform(shortest, longest))
    if law == "longest":
        return longest
    bins = np.arange(1, len(PAPER) + 1)
    inside = np.where((bins >= shortest) & (bins <= longest), PAPER, 0.0)
    if not inside.any():
        return float(rng.uniform(shortest, longest))
    seconds = rng.choice(bins, p=inside / inside.sum()) + rng.uniform(-0.5, 0.5)
    return float(np.clip(seconds, shortest, longest))


def compare(seconds: np.ndarray) -> str:
    """A table of durations beside the paper's, with bars."""
    edges = np.array([0.5, 3.5, 6.5, 9.5, 12.5, 15.5, 18.5, 21.5, 24.5, 27.5, 30.5])
    here = 100 * np.histogram(np.clip(seconds, 0.5, None), edges)[0] / max(len(seconds), 1)
    paper = PAPER.reshape(-1, 3).sum(axis=1)
    lines = [f"{'duration (s)':<14}{'here':>8}{'paper':>8}"]
    for low, high, ours, theirs in zip(edges, edges[1:], here, paper):
        bar = "█" * round(ours / 2) + "·" * max(0, round(theirs / 2) - round(ours / 2))
        low = 0.0 if low == 0.5 else low
        lines.append(f"{low:>5.1f} – {high:<6.1f}{ours:>7.1f}%{theirs:>7.1f}%  {bar}")
    beyond = 100 * float(np.mean(seconds >= edges[-1])) if len(seconds) else 0.0
    mean = float(np.mean(seconds)) if len(seconds) else 0.0
    return "\n".join([*lines, f"longer{beyond:>15.1f}%", f"mean{mean:>16.1f} s{14.2:>6.1f} s   (·: the paper's)"])
