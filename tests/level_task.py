"""A task whose answers are known: speech is a staircase, 20 ms at the height of each character's number, 0 for silence.

`shift` in its parameters makes every character heard that many too high; the loss of a character is its number times
`scale`.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import soundfile
from ml_collections import ConfigDict

from jaxspeech.data import audio
from jaxspeech.data.shapes import Lengths
from jaxspeech.data.text import load_tokenizer
from jaxspeech.evaluation import decoding
from jaxspeech.task import LossOut

STEP, RATE = 320, 16_000
CHARACTERS = "characters:abcdefghijklmnopqrstuvwxyz "
SPACE = load_tokenizer(CHARACTERS).encode(" ")[0]


@dataclasses.dataclass(frozen=True)
class Levels:
    tokenizer: object = dataclasses.field(default_factory=lambda: load_tokenizer(CHARACTERS))
    augmentation: object = None

    sample_rate = RATE
    sharding_rules = ()

    @classmethod
    def defaults(cls):
        return ConfigDict()

    def measure(self, manifest):
        tokens = [max(1, len(self.tokenizer.encode(text))) for text in manifest.texts()]
        return Lengths(audio.samples(manifest.durations, RATE), np.array(tokens, np.int32))

    def load(self, record, rng):
        samples = audio.read(record, RATE)
        if rng is not None:
            assert self.augmentation is not None, "evaluation does not augment"
            samples = self.augmentation(samples, rng)
        return {"audio": samples, "tokens": np.array(self.tokenizer.encode(record.text), np.int32)}

    def batch_spec(self, shape):
        return {
            "audio": jax.ShapeDtypeStruct((shape.rows, -(-shape.samples // STEP) * STEP), np.float32),
            "audio_length": jax.ShapeDtypeStruct((shape.rows,), np.int32),
            "tokens": jax.ShapeDtypeStruct((shape.rows, shape.tokens), np.int32),
        }

    def collate(self, rows, shape):
        batch = {name: np.zeros(spec.shape, spec.dtype) for name, spec in self.batch_spec(shape).items()}
        for row, examples in enumerate(rows):
            for example in examples:
                batch["audio"][row, : len(example["audio"])] = example["audio"]
                batch["audio_length"][row] = len(example["audio"])
                batch["tokens"][row, : len(example["tokens"])] = example["tokens"]
        return batch

    def loss(self, params, batch, rng, *, train):
        assert not train
        loss = params["scale"] * jnp.sum(batch["tokens"], axis=1, keepdims=True)
        weight = jnp.sum(batch["tokens"] > 0, axis=1, keepdims=True).astype(jnp.float32)
        metrics = {"evenness": (jnp.sum(batch["tokens"] % 2 * (batch["tokens"] > 0)), jnp.sum(weight))}
        return LossOut(jnp.sum(loss), jnp.sum(weight), metrics, loss, weight)

    def decode(self, params, batch, *, beams=1):
        rows, samples = batch["audio"].shape
        levels = jnp.round(batch["audio"].reshape(rows, -1, STEP).mean(-1) * 64).astype(jnp.int32)
        order = jnp.argsort(levels == 0, axis=1, stable=True)
        said = jnp.take_along_axis(levels, order, axis=1)
        said = jnp.where(said > 0, said + params["shift"], self.tokenizer.eos)
        said = jnp.pad(said, ((0, 0), (0, 1)), constant_values=self.tokenizer.eos)

        def step(said, token, index):
            return 9.0 * jax.nn.one_hot(said[:, index], self.tokenizer.vocab_size), said

        limit = samples // STEP + 1
        limits = jnp.where(batch["audio_length"] > 0, limit, 0)
        options = {"bos": 1, "eos": 2, "limits": limits, "max_length": limit}
        if beams == 1:
            return decoding.greedy(step, said, **options)
        return decoding.beam(step, said, beams=beams, **options)


def params(shift=0, scale=1.0):
    return {"shift": jnp.int32(shift), "scale": jnp.float32(scale)}


def config(**section):
    """The keys that evaluation and use read."""
    result = ConfigDict()
    result.eval = {"decode": True, "beams": 1, "batch_seconds": 4.0, "normalizer": "none"} | section
    result.data = {"max_seconds": 30.0, "threads": 2}
    result.train = {"matmul_precision": "default"}
    return result.lock()


def sound(text, pause=0):
    """The staircase of a text, float32 at 16 kHz; with `pause`, spaces become so many steps of silence."""
    ids = load_tokenizer(CHARACTERS).encode(text)
    levels = [level for id in ids for level in ([0] * pause if pause and id == SPACE else [id])]
    return np.repeat(np.array(levels, np.float32) / 64, STEP)


def write(path, text, **options):
    """A wav file that says a text; its duration in seconds."""
    samples = sound(text, **options)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return len(samples) / RATE


def write_set(folder, texts, name="dev"):
    """A manifest of files that each say a text, as (said in the file, written in the manifest)."""
    rows = []
    for number, (said, written) in enumerate(texts):
        duration = write(folder / f"u{number}.wav", said)
        rows.append({"id": f"u{number}", "audio": f"u{number}.wav", "text": written, "duration": duration})
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
