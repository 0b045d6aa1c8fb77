"""Noise at a given distance below the speech: white, from recordings, or the babble of other people."""

import math

import numpy as np
from jaxtyping import Float

from jaxspeech.data.sounds import Sounds

Samples = Float[np.ndarray, " samples"]


def power(audio: Samples) -> float:
    """The mean square."""
    return float(np.mean(np.square(audio, dtype=np.float64))) if len(audio) else 0.0


def add_noise(audio: Samples, snr: float, rng: np.random.Generator) -> Samples:
    """Adds white Gaussian noise at this ratio (dB) of mean powers over the whole utterance; silence stays silent."""
    speech = power(audio)
    if speech == 0.0:
        return audio
    noise = rng.standard_normal(len(audio), np.float32)
    return audio + noise * np.float32(math.sqrt(speech / 10 ** (snr / 10)))


def mix(audio: Samples, noise: Samples, snr: float) -> Samples:
    """Adds a noise of the same length so that mean powers over the whole utterance have this ratio (dB).

    The speech keeps its level. Where either is silent nothing is added.
    """
    speech, other = power(audio), power(noise)
    if speech == 0.0 or other == 0.0:
        return audio
    return audio + noise * np.float32(math.sqrt(speech / other / 10 ** (snr / 10)))


def background(sounds: Sounds, samples: int, rng: np.random.Generator) -> tuple[Samples, list[str]]:
    """A stretch of one recording, and its id. Raises `AudioError`."""
    found = sounds.draw(rng)
    assert found is not None
    return sounds.stretch(found, samples, rng), [found.id]


def babble(
    sounds: Sounds, samples: int, rng: np.random.Generator, *, talkers: int, other_than: str = ""
) -> tuple[Samples, list[str]]:
    """One to `talkers` utterances at once, equally loud, none of them `other_than`; and their ids. Raises `AudioError`.

    Silence where there is no other utterance.
    """
    total = np.zeros(samples, np.float32)
    ids = []
    for _ in range(int(rng.integers(1, talkers + 1))):
        found = sounds.draw(rng, other_than=other_than)
        if found is None:
            continue
        voice = sounds.stretch(found, samples, rng)
        loudness = power(voice)
        if loudness > 0.0:
            total += voice * np.float32(1 / math.sqrt(loudness))
        ids.append(found.id)
    return total, ids
