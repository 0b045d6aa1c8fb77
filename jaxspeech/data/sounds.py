"""Sounds that augmentation draws from: noises, other utterances, impulse responses, each a line of a manifest.

A manifest is opened at the first draw in a process and then kept; it travels to worker processes opened.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxspeech.data import audio
from jaxspeech.data.audio import AudioError
from jaxspeech.data.manifest import Collection
from jaxspeech.data.record import Record

_FADE = 0.2  # seconds in which a sound that is too short goes over into its own beginning


@dataclasses.dataclass(frozen=True)
class Sounds:
    """What one config key names.

    Attributes:
        spec: a manifest, or a mapping of name or weight to manifests; a sound is drawn in proportion to its weight.
        key: the config key, which errors name.
        sample_rate: of what is returned.
    """

    spec: Any
    key: str
    sample_rate: int

    @functools.cached_property
    def collection(self) -> Collection:
        """The manifests, opened now if they were not; raises `UserError` if they cannot be."""
        return Collection.open(self.spec, self.key)

    @functools.cached_property
    def _cumulative(self) -> np.ndarray:
        return np.cumsum(self.collection.weights)

    def draw(self, rng: np.random.Generator, *, other_than: str = "") -> Record | None:
        """One record at random. None if the only one is that with the id `other_than`."""
        ends = self._cumulative
        number = min(int(np.searchsorted(ends, rng.random() * ends[-1], side="right")), len(ends) - 1)
        for found in (self.collection[number], self.collection[number - 1]):
            if found.id != other_than:
                return found
        return None

    def whole(self, record: Record, rng: np.random.Generator) -> Float[np.ndarray, " samples"]:
        """All of a sound; of several channels one at random, unless the manifest says which. Raises `AudioError`."""
        with _blamed(self.key):
            first = record.segments[0]
            channels = audio.probe(first.audio)[2] if first.channel is None else 1
            if channels > 1:
                channel = int(rng.integers(channels))
                segments = tuple(dataclasses.replace(segment, channel=channel) for segment in record.segments)
                record = dataclasses.replace(record, segments=segments)
            return audio.read(record, self.sample_rate)

    def stretch(self, record: Record, samples: int, rng: np.random.Generator) -> Float[np.ndarray, " samples"]:
        """`samples` samples from a random place; a sound that is too short goes over into itself. Raises `AudioError`.

        Of a long recording only that stretch is read.
        """
        with _blamed(self.key):
            total = audio.samples(record.duration, self.sample_rate)
            begin = int(rng.integers(total - samples + 1 if total > samples else total))
            first, *more = record.segments
            if total > samples and not more and not first.gap:
                piece = dataclasses.replace(
                    first,
                    offset=first.offset + begin / self.sample_rate,
                    duration=samples / self.sample_rate,
                )
                sound = audio.read_segment(piece, self.sample_rate)
                return lengthen(sound, samples, self.sample_rate)
            sound = audio.read(record, self.sample_rate)
            return lengthen(sound, begin + samples, self.sample_rate)[begin:]


@contextlib.contextmanager
def _blamed(key: str) -> Iterator[None]:
    """Trouble with a sound says whose it is: the utterance that it was drawn for is sound itself."""
    try:
        yield
    except AudioError as error:
        raise AudioError(f"augmentation: {error.reason}", f"{key}: {error.detail}") from error


def lengthen(sound: Float[np.ndarray, " short"], samples: int, sample_rate: int) -> Float[np.ndarray, " samples"]:
    """The sound repeated until it has so many samples, or cut to them.

    Repetitions overlap by 0.2 s (less if it is shorter than 0.4 s), in which one fades out as the next fades in. Their
    powers add up to one, so that noise does not dip.
    """
    if len(sound) >= samples:
        return sound[:samples]
    fade = min(int(_FADE * sample_rate), len(sound) // 2)
    hop = len(sound) - fade
    rising = np.sin(0.5 * np.pi * (np.arange(fade, dtype=np.float32) + 0.5) / max(fade, 1))
    copies = -(-(samples - fade) // hop)
    long = np.zeros(copies * hop + fade, np.float32)
    for number in range(copies):
        piece = sound.copy()
        if number:
            piece[:fade] *= rising
        if number < copies - 1:
            piece[hop:] *= rising[::-1]
        long[number * hop : number * hop + len(sound)] += piece
    return long[:samples]
