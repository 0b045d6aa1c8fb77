"""CTC over characters as a task: all that the loop asks of a family, and nothing of the loop."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from ctc_family import model
from jaxspeech.data import audio as audio_files
from jaxspeech.data.augment import Augmentation
from jaxspeech.data.manifest import Collection, Manifest, Record
from jaxspeech.data.measure import token_counts
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.data.text import Tokenizer, load_tokenizer
from jaxspeech.errors import UserError
from jaxspeech.task import Batch, Example, Hypotheses, LossOut, Params, Rules


@dataclasses.dataclass(frozen=True)
class Ctc:
    """Connectionist temporal classification (Graves et al. 2006) on log-mel frames that the step computes.

    Attributes:
        config: the model's sizes.
        tokenizer: text to tokens; the blank is one more class behind them.
        augmentation: what training does to the audio.
        audio_dtype: of the samples in a batch: float32 or int16.
    """

    config: model.CtcConfig
    tokenizer: Tokenizer
    augmentation: Augmentation
    audio_dtype: str

    sample_rate = 16000
    stride = model.STRIDE
    sharding_rules: Rules = ((r"mix/kernel$", ("fsdp", "tensor")), (r"out/kernel$", ("tensor", "fsdp")))

    @classmethod
    def defaults(cls) -> ConfigDict:
        section = ConfigDict()
        section.mels = 48
        section.dim = 96
        section.dilations = (1, 2, 4, 1, 2, 4)
        section.dropout = 0.05
        section.freq_masks = 0  # SpecAugment: bands of mel bins, and the most bins of one
        section.freq_width = 8
        section.time_masks = 0  # and stretches of time, and the most of the utterance that one takes
        section.time_share = 0.05
        return section

    @classmethod
    def config_for(cls, folder: str) -> ConfigDict:
        raise UserError(f"{folder}: there are no published weights of this family; give a workdir")

    @classmethod
    def from_config(cls, config: ConfigDict) -> "Ctc":
        if config.data.batching != "buckets":
            raise UserError(f"config.data.batching = {config.data.batching!r}: this family has buckets only")
        if config.eval.beams != 1:
            raise UserError(f"config.eval.beams = {config.eval.beams}: this family decodes greedily only; set it to 1")
        tokenizer = load_tokenizer(config.data.tokenizer)
        sizes = config.model.to_dict() | {"dilations": tuple(config.model.dilations)}
        return cls(
            config=model.CtcConfig(vocab_size=tokenizer.vocab_size, **sizes),
            tokenizer=tokenizer,
            augmentation=Augmentation.from_config(config.data, cls.sample_rate),
            audio_dtype=config.data.audio_dtype,
        )

    # The host side.

    def measure(self, manifest: Manifest | Collection) -> Lengths:
        samples = audio_files.samples(manifest.durations, self.sample_rate)
        return Lengths(self.augmentation.longest(samples), token_counts(manifest, self.tokenizer))

    def load(self, record: Record, rng: np.random.Generator | None) -> Example:
        audio = audio_files.read(record, self.sample_rate)
        if rng is not None:
            audio = self.augmentation(audio, rng)
        # After the audio's own draws, so that these do not depend on it.
        seed = np.uint32(0 if rng is None else rng.integers(1 << 32))
        tokens = np.asarray(self.tokenizer.encode(record.text), np.int32)
        return {"audio": audio, "tokens": tokens, "mask_seed": seed}

    def collate(self, rows: Sequence[Sequence[Example]], shape: Shape) -> Batch:
        batch = {name: np.zeros(spec.shape, spec.dtype) for name, spec in self.batch_spec(shape).items()}
        for row, examples in enumerate(rows):
            for example in examples:
                audio_files.put(example["audio"], batch["audio"][row, : len(example["audio"])])
                batch["tokens"][row, : len(example["tokens"])] = example["tokens"]
                for name in ("audio", "tokens"):
                    batch[f"{name}_length"][row] = len(example[name])
                batch["mask_seed"][row] = example["mask_seed"]
        return batch

    def batch_spec(self, shape: Shape) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "audio": jax.ShapeDtypeStruct((shape.rows, shape.samples), self.audio_dtype),
            "audio_length": jax.ShapeDtypeStruct((shape.rows,), np.int32),
            "tokens": jax.ShapeDtypeStruct((shape.rows, shape.tokens), np.int32),
            "tokens_length": jax.ShapeDtypeStruct((shape.rows,), np.int32),
            "mask_seed": jax.ShapeDtypeStruct((shape.rows,), np.uint32),
        }

    def audit(self, batch: Batch, records: Sequence[Record]) -> list[str]:
        frames = np.asarray(model.frames(batch["audio_length"]))
        faults = []
        for row, record in enumerate(records):
            tokens = batch["tokens"][row, : batch["tokens_length"][row]]
            repeats = int(np.sum(tokens[1:] == tokens[:-1]))  # a blank must stand between two of a kind
            if tokens.tolist() != self.tokenizer.encode(record.text):
                faults.append(f"the labels of {record.id} are not its text")
            elif len(tokens) + repeats > frames[row]:
                faults.append(f"{record.id} has {frames[row]} frames, its text needs {len(tokens) + repeats}")
        return faults[:3]

    # Parameters.

    def init(self, rng: jax.Array) -> Params:
        audio = jnp.zeros((1, 4 * model.WINDOW))
        return model.Ctc(self.config).init(rng, audio, jnp.array([audio.shape[1]]))["params"]

    def load_weights(self, folder: str) -> Params:
        raise UserError(f"{folder}: there are no published weights of this family; give a workdir")

    def frozen(self, path: str) -> bool:
        return False

    # The device side.

    def loss(self, params: Params, batch: Batch, rng: jax.Array, *, train: bool) -> LossOut:
        logits = model.Ctc(self.config).apply(
            {"params": params},
            batch["audio"],
            batch["audio_length"],
            train=train,
            mask_seed=batch["mask_seed"],
            rngs={"dropout": rng},
        )
        beyond = jnp.arange(logits.shape[1])[None, :] >= model.frames(batch["audio_length"])[:, None]
        outside = jnp.arange(batch["tokens"].shape[1])[None, :] >= batch["tokens_length"][:, None]
        loss = optax.ctc_loss(
            logits,
            beyond.astype(jnp.float32),
            batch["tokens"],
            outside.astype(jnp.float32),
            blank_id=self.config.vocab_size,
        )
        filled = batch["audio_length"] > 0
        loss = jnp.where(filled, loss, 0.0)
        weight = jnp.where(filled, jnp.maximum(batch["tokens_length"], 1), 0).astype(jnp.float32)
        blank = (jnp.argmax(logits, axis=-1) == self.config.vocab_size) & ~beyond
        return LossOut(
            loss=jnp.sum(loss),
            weight=jnp.sum(weight),
            metrics={"blank_share": (jnp.sum(blank, dtype=jnp.float32), jnp.sum(~beyond, dtype=jnp.float32))},
            utterance_loss=loss[:, None],
            utterance_weight=weight[:, None],
        )

    def decode(self, params: Params, batch: Batch, *, beams: int = 1) -> Hypotheses:
        if beams != 1:
            raise UserError(f"{beams} beams: this family decodes greedily only")
        logits = model.Ctc(self.config).apply({"params": params}, batch["audio"], batch["audio_length"])
        valid = jnp.arange(logits.shape[1])[None, :] < model.frames(batch["audio_length"])[:, None]
        best = jnp.where(valid, jnp.argmax(logits, axis=-1), self.config.vocab_size)
        log_prob = jnp.max(jax.nn.log_softmax(logits), axis=-1)
        before = jnp.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=self.config.vocab_size)
        kept = (best != before) & (best != self.config.vocab_size)
        # What is kept moves to the front; all else is written to a place behind the end, which is cut off.
        place = jnp.where(kept, jnp.cumsum(kept, axis=1) - 1, best.shape[1])
        rows = jnp.arange(best.shape[0])[:, None]
        tokens = jnp.zeros((best.shape[0], best.shape[1] + 1), jnp.int32).at[rows, place].set(best)[:, :-1]
        return Hypotheses(
            tokens=tokens,
            length=jnp.sum(kept, axis=1),
            score=jnp.sum(jnp.where(valid, log_prob, 0.0), axis=1),
            choices=jnp.sum(valid, axis=1),  # one a frame
        )

    def flops(self, lengths: Lengths) -> float:
        c = self.config
        block = 2 * (5 * c.dim * c.dim + c.dim * c.dim)
        frame = len(c.dilations) * block + 2 * c.dim * (2 * c.mels + c.vocab_size + 1)
        frame += 2 * 2 * c.mels * (model.FFT // 2 + 1)  # the mel matrix, for two windows; not the transform
        return float(frame * np.sum(lengths.audio / self.stride))
