"""Where nobody speaks, by energy: the level of every 10 ms, a threshold from the recording itself, and its pauses.

The threshold lies 35 dB below the loud frames of the recording (their 99th percentile), or 6 dB above its noise (the
5th percentile) where that is higher; but always 6 dB below the loud frames, so that steady noise or music has no pause.
It is a measure of level, not of voice: what is loud and no speech counts as sound.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxspeech.cleaning import pieces
from jaxspeech.data import audio
from jaxspeech.data.record import Segment

FRAME = 0.01  # seconds
_BLOCK = 6000  # frames in memory
_LAST = 100  # frames; a last block shorter than these goes with the one before: files may end a little early
_LEAST_DB = -120.0
_SILENT_DB = -80.0  # below it nothing is sound, whatever the rest is
_BELOW_LOUD, _ABOVE_NOISE, _RANGE = 35.0, 6.0, 6.0  # dB
_RATE = 16000  # Hz, for rates of which 10 ms are no whole number of samples

Interval = tuple[float, float]


def levels(segments: Sequence[Segment], seconds: float) -> Float[np.ndarray, " frames"]:
    """Root mean square of each frame and its two neighbours, in dB of full scale; gaps of silence are -120 dB.

    Args:
        segments: each with its duration, played one after the other.
        seconds: how long they are together.

    Raises:
        AudioError: as `audio.read_segment`.
    """
    rates = {audio.probe(segment.audio)[1] for segment in segments}
    rate = rates.pop()
    if rates or rate % round(1 / FRAME):
        rate = _RATE
    hop = round(rate * FRAME)
    count = max(math.ceil(seconds / FRAME - 1e-6), 1)
    begins = list(range(0, max(count - _LAST, 1), _BLOCK))
    power = np.zeros(count)
    for first, last in zip(begins, [*begins[1:], count]):
        sound = np.zeros((last - first) * hop, np.float32)
        clock = 0
        for segment in pieces.stretch(segments, first * FRAME, min(last * FRAME, seconds)):
            clock += audio.samples(segment.gap, rate)
            heard = audio.read_segment(dataclasses.replace(segment, gap=0.0), rate)[: max(len(sound) - clock, 0)]
            sound[clock : clock + len(heard)] = heard
            clock += len(heard)
        power[first:last] = np.square(sound.reshape(-1, hop), dtype=np.float64).mean(1)
    around = np.pad(power, 1, mode="edge")
    smooth = (around[:-2] + power + around[2:]) / 3
    return 10 * np.log10(np.maximum(smooth, 10 ** (_LEAST_DB / 10)))


def threshold(level: Float[np.ndarray, " frames"]) -> float:
    """The level in dB below which a frame of this recording is silent."""
    noise, loud = np.percentile(level, [5, 99])
    return float(max(min(max(loud - _BELOW_LOUD, noise + _ABOVE_NOISE), loud - _RANGE), _SILENT_DB))


def pauses(level: Float[np.ndarray, " frames"], limit: float, shortest: float, seconds: float) -> list[Interval]:
    """Stretches of at least `shortest` seconds in which every frame is below `limit` dB, in seconds."""
    silent = np.concatenate([[False], level < limit, [False]])
    edges = np.flatnonzero(silent[1:] != silent[:-1]).reshape(-1, 2)
    found = ((float(start) * FRAME, min(float(stop) * FRAME, seconds)) for start, stop in edges)
    return [(start, stop) for start, stop in found if stop - start >= shortest - FRAME / 2]


def within(intervals: Sequence[Interval], others: Sequence[Interval]) -> list[Interval]:
    """What lies in one of the intervals and in one of the others; both ascend and do not overlap."""
    found, i, j = [], 0, 0
    while i < len(intervals) and j < len(others):
        start, stop = max(intervals[i][0], others[j][0]), min(intervals[i][1], others[j][1])
        if start <= stop:
            found.append((start, stop))
        if intervals[i][1] < others[j][1]:
            i += 1
        else:
            j += 1
    return found


def quietest(level: Float[np.ndarray, " frames"], among: Sequence[Interval]) -> float:
    """The middle of the quietest tenth of a second of these intervals, in seconds; of short ones their middle."""
    kernel = np.full(10, 0.1)
    best, place = math.inf, math.nan
    for start, stop in among:
        first, last = math.ceil(start / FRAME - 0.5), math.floor(stop / FRAME - 0.5)  # frames whose middle is inside
        if last - first < len(kernel):
            first = last = min(max(int((start + stop) / 2 / FRAME), 0), len(level) - 1)
            value, at = float(level[first]), (start + stop) / 2
        else:
            power = np.convolve(10 ** (level[first : last + 1] / 10), kernel, "valid")
            low = int(np.argmin(power))
            value, at = 10 * math.log10(power[low]), (first + low + len(kernel) / 2) * FRAME
        if value < best:
            best, place = value, at
    return place
