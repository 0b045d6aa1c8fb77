"""Augmentation of raw audio on the host: what is done to an utterance, in which order, and by which chance.

The order is the way that sound takes: speech (speed, room), what sounds beside it (babble, background, white noise),
the microphone and the line (gain, clipping, narrowband, codec), and silenced stretches. What happens to an utterance is
a function of (seed, epoch, id) alone, and of the step where a schedule is set: not of the host, the worker or its
neighbours in the batch. Driven by the config section `data.augment`; a value of 0 switches a part off.
"""

import dataclasses
import hashlib
import types
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import soxr
from jaxtyping import Float

from jaxspeech.data.channel import CODECS, clip, encode_decode, narrow
from jaxspeech.data.noise import add_noise, babble, background, mix
from jaxspeech.data.ramps import Ramp, between
from jaxspeech.data.room import reverberate
from jaxspeech.data.sounds import Sounds
from jaxspeech.errors import UserError

_NOISE_RANGE = 30.0  # dB; the SNR of white noise lies between `noise_db` and this much better
_STRETCHES = 3  # silenced stretches at most

Samples = Float[np.ndarray, " samples"]


class Draws(np.random.Generator):
    """The random numbers of one utterance in one epoch.

    Attributes:
        id: the utterance.
        step: number of the batch that it is drawn for, which schedules ask for; None: the end of all schedules.
    """

    id: str = ""
    step: int | None = None


def generator(seed: int, epoch: int, id: str, *, turn: int = 0, step: int | None = None) -> Draws:
    """The random numbers of an utterance: Philox, keyed by a hash, the same on every machine.

    Args:
        turn: which of its turns in the epoch, where a weight above 1 gives it several.
        step: carried along; the numbers do not depend on it.
    """
    text = f"{seed}/{epoch}/{id}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=16, salt=turn.to_bytes(8, "little")).digest()
    draws = Draws(np.random.Philox(key=int.from_bytes(digest, "little")))
    draws.id, draws.step = id, step
    return draws


class Changes(Protocol):
    """What a task lets happen to an utterance: an `Augmentation`, or a condition of evaluation."""

    @property
    def active(self) -> bool:
        """False is the promise that nothing is ever changed."""
        ...

    def __call__(self, audio: Samples, rng: np.random.Generator) -> Float[np.ndarray, " changed"]:
        """A changed copy; the same for the same `rng`."""
        ...


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The config section `data.augment`, ready to be applied. Picklable; manifests are opened at their first use.

    Attributes:
        section: the keys (docs/configuration.md), subsections as namespaces.
        sample_rate: of the audio.
        sounds: what is drawn from, by subsection: `room`, `babble`, `background`.
    """

    section: Any
    sample_rate: int
    sounds: Mapping[str, Sounds]

    @classmethod
    def from_config(cls, data: Any, sample_rate: int) -> "Augmentation":
        """From the config section `data`. Raises `UserError` for values that cannot work; opens nothing."""
        section = _namespace(data.augment)
        for name, most in (("speed", 0.5), ("time_mask", 1.0)):
            share = getattr(section, name)
            if not 0 <= share <= most:
                raise UserError(f"config.data.augment.{name} = {share}: it is a share from 0 to {most:g}")
        wrong = [name for name in _names(section.codec.kinds) if name not in CODECS]
        if wrong or (section.codec.probability and not _names(section.codec.kinds)):
            raise UserError(
                f"config.data.augment.codec.kinds = {section.codec.kinds!r}: give one or more of {', '.join(CODECS)}"
            )
        sounds = {}
        for name in ("room", "babble", "background"):
            part = getattr(section, name)
            spec = part.manifest or (data.train if name == "babble" else None)
            if part.probability and spec:
                sounds[name] = Sounds(spec, f"config.data.augment.{name}.manifest", sample_rate)
        return cls(section, sample_rate, sounds)

    def __call__(self, audio: Samples, rng: np.random.Generator) -> Float[np.ndarray, " augmented"]:
        """A changed copy of the audio, at most `longest(len(audio))` samples long.

        Raises `AudioError` for a noise or an impulse response that cannot be read.
        """
        return self.explain(audio, rng)[0]

    def explain(
        self, audio: Samples, rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, " augmented"], dict[str, Any]]:
        """The same, with what was drawn, by part, in the order of the parts."""
        drawn: dict[str, Any] = {}
        draws = rng if isinstance(rng, Draws) else Draws(rng.bit_generator)
        for part in (self._speech, self._surroundings, self._line):
            audio = part(audio, draws, drawn)
        return audio, drawn

    @property
    def active(self) -> bool:
        """Whether any part is on, at any step."""
        section = self.section
        parts = (section.room, section.babble, section.background, section.clipping, section.narrowband, section.codec)
        always = (section.speed, section.gain_db, section.noise_db, section.time_mask)
        return any(always) or any(part.probability for part in parts)

    def longest(self, samples: Any) -> Any:
        """The most samples that so many can become: what the plan buckets on. For a number an int, else int64."""
        return longest(samples, self.section.speed)

    def _speech(self, audio: Samples, rng: Draws, drawn: dict) -> Samples:
        limit = self.longest(len(audio))
        speed = self.section.speed * self._strength(rng.step)
        if speed:
            drawn["speed"] = rng.uniform(1 - speed, 1 + speed)
            audio = change_speed(audio, drawn["speed"])[:limit]
        if self._chosen("room", rng):
            found = self._sounds("room").draw(rng)
            assert found is not None
            drawn["room"] = {"id": found.id}
            audio = reverberate(audio, self._sounds("room").whole(found, rng))
        return audio

    def _surroundings(self, audio: Samples, rng: Draws, drawn: dict) -> Samples:
        for name in ("babble", "background"):
            part = getattr(self.section, name)
            if not (part.probability and rng.random() < part.probability):
                continue
            snr = rng.uniform(*between(part.initial_snr_db, part.snr_db, Ramp(part.delay, part.ramp)(rng.step)))
            if name == "babble":
                others = {"talkers": part.talkers, "other_than": rng.id}
                noise, ids = babble(self._sounds(name), len(audio), rng, **others)
            else:
                noise, ids = background(self._sounds(name), len(audio), rng)
            drawn[name] = {"snr_db": snr, "ids": ids}
            audio = mix(audio, noise, snr)
        strength = self._strength(rng.step)
        if self.section.noise_db and strength:
            best = self.section.noise_db + (1 - strength) * _NOISE_RANGE
            drawn["noise_db"] = rng.uniform(best, best + _NOISE_RANGE)
            audio = add_noise(audio, drawn["noise_db"], rng)
        return audio

    def _line(self, audio: Samples, rng: Draws, drawn: dict) -> Samples:
        section, strength = self.section, self._strength(rng.step)
        if gain := section.gain_db * strength:
            drawn["gain_db"] = rng.uniform(-gain, gain)
            audio = audio * np.float32(10 ** (drawn["gain_db"] / 20))
        if self._chosen("clipping", rng):
            drawn["clipping"] = {"share": rng.uniform(0, section.clipping.share)}
            audio = clip(audio, drawn["clipping"]["share"])
        if self._chosen("narrowband", rng):
            drawn["narrowband"] = True
            audio = narrow(audio, self.sample_rate)
        if self._chosen("codec", rng):
            kinds = _names(section.codec.kinds)
            kind, compression = kinds[int(rng.integers(len(kinds)))], rng.random()
            drawn["codec"] = {"kind": kind, "compression": compression}
            audio = encode_decode(audio, self.sample_rate, kind, compression)
        if share := section.time_mask * strength:
            before = audio
            audio = mask_time(audio, share, rng)
            drawn["time_mask"] = float(np.mean((audio == 0) & (before != 0))) if len(audio) else 0.0
        return audio

    def _strength(self, step: int | None) -> float:
        """Of `speed`, `noise_db`, `gain_db` and `time_mask`."""
        return Ramp(self.section.delay, self.section.ramp)(step)

    def _chosen(self, name: str, rng: Draws) -> bool:
        part = getattr(self.section, name)
        return bool(part.probability) and rng.random() < part.probability * Ramp(part.delay, part.ramp)(rng.step)

    def _sounds(self, name: str) -> Sounds:
        if name not in self.sounds:
            raise UserError(f"config.data.augment.{name}.manifest is empty; give one, or set its probability to 0")
        return self.sounds[name]


def longest(samples: Any, speed: float) -> Any:
    """The most samples that so many can become if they are played at down to `1 - speed` times the speed."""
    if not speed:
        return samples
    count = np.ceil(np.asarray(samples, np.float64) / (1 - speed)).astype(np.int64)
    return count if count.ndim else int(count)


def change_speed(audio: Samples, factor: float) -> Float[np.ndarray, " changed"]:
    """Plays the audio `factor` times as fast, pitch included; `len(audio) / factor` samples."""
    return soxr.resample(audio, factor, 1.0, quality="HQ")


def mask_time(audio: Samples, share: float, rng: np.random.Generator) -> Samples:
    """Silences one to three stretches, together at most `share` of the audio. They may overlap."""
    masked = audio.copy()
    stretches = int(rng.integers(1, _STRETCHES + 1))
    for _ in range(stretches):
        width = int(rng.uniform(0, share / stretches) * len(audio))
        begin = int(rng.integers(0, len(audio) - width + 1))
        masked[begin : begin + width] = 0
    return masked


def _names(text: str) -> list[str]:
    """Names between spaces or commas."""
    return text.replace(",", " ").split()


def _namespace(section: Mapping[str, Any]) -> types.SimpleNamespace:
    """A config section that pickles fast, free of the config. Mappings that are values stay mappings."""
    values = {name: _namespace(value) if hasattr(value, "lock") else value for name, value in section.items()}
    return types.SimpleNamespace(**values)
