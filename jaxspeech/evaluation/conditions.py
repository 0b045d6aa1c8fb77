"""Evaluation under conditions: the same set once more, heard with noise, too loud, through a telephone or a codec.

Training draws how bad it gets; a comparison must not, so a condition has fixed values: `noise=10` is white noise 10 dB
below the speech of each utterance. It takes the place of a task's `augmentation`, which every family applies to the
samples that it reads: so no family knows of conditions, and all of them have them. What chance is left (which noise,
and which stretch of it) is keyed by the id of the utterance: two evaluations, and two models, hear the same. Conditions
change no length, so the batches and what is compiled for them are those of the clean set.
"""

import dataclasses
import difflib
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from jaxspeech.data.audio import AudioError
from jaxspeech.data.augment import Draws
from jaxspeech.data.channel import CODECS, amplify, clip, encode_decode, narrow
from jaxspeech.data.manifest import Collection
from jaxspeech.data.noise import babble, background, mix, power
from jaxspeech.data.room import reverberate
from jaxspeech.data.sounds import Sounds
from jaxspeech.errors import UserError
from jaxspeech.task import Task

SEED = 0  # of what chance is left
TALKERS = 3  # who babble, at most
_TRIES = 20  # stretches of noises drawn until one is not silent

# In the order in which sound travels, as in data/augment.py; and what each is set to.
_PARTS = {
    "room": "",
    "babble": "dB",
    "background": "dB",
    "noise": "dB",
    "gain": "dB",
    "clipping": "share",
    "narrowband": "",
    "codec": "name",
}
_SOUNDS = {"room": "--rooms", "babble": "--manifest", "background": "--noises"}  # whence they are drawn

Samples = Float[np.ndarray, " samples"]


@dataclasses.dataclass(frozen=True)
class Condition:
    """What all utterances of a set go through; called as an `Augmentation` is.

    Attributes:
        name: as it was asked for.
        parts: each with its value, in the order in which they apply: dB for `babble`, `background`, `noise` (SNR) and
            `gain`, a share of the samples for `clipping`, a codec's name for `codec`, and True for the others.
        manifests: by part, what `room`, `babble` and `background` are drawn from.
        sample_rate: of the audio.
    """

    name: str
    parts: Mapping[str, Any]
    manifests: Mapping[str, str]
    sample_rate: int = 16000
    active: ClassVar[bool] = True

    @functools.cached_property
    def _sounds(self) -> dict[str, Sounds]:
        return {part: Sounds(path, _SOUNDS[part], self.sample_rate) for part, path in self.manifests.items()}

    def __call__(self, audio: Samples, rng: np.random.Generator) -> Samples:
        """The audio as it is heard. Raises `UserError` for a noise or an impulse response that cannot be read."""
        draws = rng if isinstance(rng, Draws) else Draws(rng.bit_generator)
        for part, value in self.parts.items():
            try:
                audio = self._through(part, value, audio, draws)
            except AudioError as error:  # of a sound: not this utterance is at fault, and none would be comparable
                raise UserError(f"--condition {self.name}: {error}; mend {_SOUNDS[part]}") from error
        return audio

    def _through(self, part: str, value: Any, audio: Samples, draws: Draws) -> Samples:
        match part:
            case "room":
                sounds = self._sounds[part]
                found = sounds.draw(draws)
                assert found is not None
                return reverberate(audio, sounds.whole(found, draws))
            case "babble" | "background":
                return mix(audio, self._beside(part, len(audio), draws), value)
            case "noise":
                # Not `add_noise`, whose noise has its power on average: in short utterances it is some 0.1 dB off.
                return mix(audio, draws.standard_normal(len(audio), np.float32), value)
            case "gain":
                return amplify(audio, value)
            case "clipping":
                return clip(audio, value)
            case "narrowband":
                return narrow(audio, self.sample_rate)
            case _:
                return encode_decode(audio, self.sample_rate, value)

    def _beside(self, part: str, samples: int, draws: Draws) -> Samples:
        """What sounds beside the speech: drawn again while it is silent, since silence has no SNR."""
        sounds = self._sounds[part]
        for _ in range(_TRIES):
            if part == "babble":
                noise, _ids = babble(sounds, samples, draws, talkers=TALKERS, other_than=draws.id)
            else:
                noise, _ids = background(sounds, samples, draws)
            if power(noise) > 0.0:
                return noise
        raise UserError(f"--condition {self.name}: {_SOUNDS[part]}: {_TRIES} sounds drawn from it were silent")


def parse(text: str, *, manifest: str, noises: str | None = None, rooms: str | None = None) -> Condition:
    """A condition from words such as `noise=10`, `codec=gsm`, or several between commas: `background=5,narrowband`.

    Args:
        text: the words.
        manifest: the set that is evaluated, whose other utterances babble.
        noises: manifest of noises, for `background`.
        rooms: manifest of impulse responses, for `room`.

    Raises:
        UserError: there is no such part or value, or a manifest is missing or cannot be opened.
    """
    found: dict[str, Any] = {}
    for word in text.split(","):
        part, equals, value = (piece.strip() for piece in word.partition("="))
        if part not in _PARTS:
            near = difflib.get_close_matches(part, _PARTS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_PARTS)}"
            raise UserError(f"--condition {text}: no condition {part!r}; {hint}")
        if part in found:
            raise UserError(f"--condition {text}: {part} is there twice; give --condition twice for two results")
        found[part] = _value(text, part, value if equals else None)
    given = {"room": rooms, "babble": manifest, "background": noises}
    manifests = {}
    for part in found.keys() & given.keys():
        path = given[part]
        if not path:
            raise UserError(f"--condition {text}: {part} is drawn from a manifest; give {_SOUNDS[part]} FILE.jsonl")
        if len(Collection.open(path, _SOUNDS[part])) < (2 if part == "babble" else 1):
            raise UserError(f"--condition {text}: {path} has too few utterances to draw {part} from")
        manifests[part] = path
    return Condition(text, {part: found[part] for part in _PARTS if part in found}, manifests)


def under(task: Task, condition: Condition) -> Task:
    """The task whose `load`, given random numbers, hears everything under the condition.

    Raises:
        UserError: the family has no field `augmentation`.
    """
    family: Any = task
    if not dataclasses.is_dataclass(task) or "augmentation" not in {field.name for field in dataclasses.fields(family)}:
        raise UserError(f"--condition {condition.name}: {type(task).__name__} does not augment its audio")
    heard = dataclasses.replace(condition, sample_rate=task.sample_rate)
    changed: Task = dataclasses.replace(family, augmentation=heard)
    return changed


def _value(text: str, part: str, value: str | None) -> Any:
    """The value of a part; `None` is none given."""
    kind = _PARTS[part]
    if not kind:
        if value is not None:
            raise UserError(f"--condition {text}: {part} takes no value; write {part} alone")
        return True
    if kind == "name":
        if value not in CODECS:
            raise UserError(f"--condition {text}: {part} is one of {', '.join(CODECS)}, such as {part}=gsm")
        return value
    try:
        number = float(value or "")
    except ValueError:
        number = math.nan
    low, high, example = (0.0, 1.0, "0.1") if kind == "share" else (-100.0, 100.0, "10")
    if not low <= number <= high:
        unit = "a share of the samples from 0 to 1" if kind == "share" else "a number of dB from -100 to 100"
        raise UserError(f"--condition {text}: {part} is {unit}, such as {part}={example}")
    return number
