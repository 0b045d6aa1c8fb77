"""Moonshine as a task: what it reads from the config and from the disk, how rows are laid out, what is summed."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxspeech.config import base
from jaxspeech.data import audio as audio_files
from jaxspeech.data.augment import Augmentation
from jaxspeech.data.manifest import Collection, Manifest, Record
from jaxspeech.data.measure import token_counts
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.data.text import Tokenizer, load_tokenizer
from jaxspeech.errors import UserError
from jaxspeech.evaluation import decoding
from jaxspeech.interop import moonshine_hf
from jaxspeech.models import moonshine as model
from jaxspeech.ops.cross_entropy import cross_entropy
from jaxspeech.task import Batch, Example, Hypotheses, LossOut, Params, Rules

# Projections split over heads or over the inner width on `tensor`; the other dimension over `fsdp`.
_RULES: Rules = (
    (r"attention/(query|key|value)/kernel$", ("fsdp", "tensor", None)),
    (r"attention/output/kernel$", ("tensor", None, "fsdp")),
    (r"mlp/fc1/kernel$", ("fsdp", "tensor")),
    (r"mlp/fc2/kernel$", ("tensor", "fsdp")),
    (r"embedding$", ("tensor", "fsdp")),
)


@dataclasses.dataclass(frozen=True)
class Moonshine:
    """Encoder-decoder recognition from raw audio (arXiv 2410.15608).

    Attributes:
        config: the model's sizes and the way of computing.
        tokenizer: text to tokens; BOS and EOS are added here.
        augmentation: what training does to the audio.
        audio_dtype: of the samples in a batch: float32 or int16.
        loss_chunk: targets whose logits are in memory at once.
        tokens_per_second: cap of a hypothesis, by language; "" is for all others (paper §3.4: 6; 6.5 in the released
            generation config; 13 is recommended for non-Latin scripts).
        min_tokens: floor of that cap, for short clips.
    """

    config: model.MoonshineConfig
    tokenizer: Tokenizer
    augmentation: Augmentation
    audio_dtype: str
    loss_chunk: int
    tokens_per_second: Mapping[str, float]
    min_tokens: int

    sample_rate = 16000
    stride = model.STRIDE
    sharding_rules = _RULES

    @classmethod
    def defaults(cls) -> ConfigDict:
        section = ConfigDict(convert_dict=False)
        section.dim = 288
        section.heads = 8
        section.encoder_layers = 6
        section.decoder_layers = 6
        section.ff_mult = 4
        section.vocab_size = 32768  # 0: the tokenizer's
        section.rotary_dims = 32
        section.dtype = "float32"  # of the computation: bfloat16 on accelerators; parameters are always float32
        section.attention = ""  # an implementation of ops.attention; "": what fits the platform and the batching
        section.remat = "none"  # what the backward pass computes again: none, dots, full
        section.scan_layers = False
        section.initial_stem = "random"  # or "filterbank": learns from little speech
        section.loss_chunk = 4096
        section.tokens_per_second = 6.5
        section.language_tokens_per_second = {"ar": 13.0, "ja": 13.0, "ko": 13.0, "uk": 13.0, "vi": 13.0, "zh": 13.0}
        section.min_tokens = 8
        return section

    @classmethod
    def config_for(cls, folder: str) -> ConfigDict:
        config = base("jaxspeech.tasks.moonshine.Moonshine")
        for key, value in moonshine_hf.read_config(folder).items():
            config.model[key] = value
        config.data.tokenizer = moonshine_hf.tokenizer_of(folder) or os.path.join(folder, "tokenizer.json")
        return config

    @classmethod
    def from_config(cls, config: ConfigDict) -> "Moonshine":
        section = config.model
        tokenizer = load_tokenizer(config.data.tokenizer)
        for name, token in (("BOS", tokenizer.bos), ("EOS", tokenizer.eos)):
            if token is None:
                raise UserError(f"tokenizer {config.data.tokenizer!r} has no {name} token, which Moonshine needs")
        vocab_size = section.vocab_size or tokenizer.vocab_size
        if tokenizer.vocab_size > vocab_size:
            raise UserError(
                f"tokenizer {config.data.tokenizer!r} has {tokenizer.vocab_size} tokens and config.model.vocab_size = "
                f"{vocab_size}: tokens would lie outside the vocabulary; set config.model.vocab_size=0 to "
                "follow the tokenizer"
            )
        if section.dtype not in ("float32", "bfloat16"):
            raise UserError(f"config.model.dtype = {section.dtype!r}: it must be float32 or bfloat16")
        if section.loss_chunk < 1:
            raise UserError(f"config.model.loss_chunk = {section.loss_chunk}: it must be 1 or more")
        rates = {"tokens_per_second": section.tokens_per_second, **section.language_tokens_per_second}
        for name, rate in rates.items():
            if not (isinstance(rate, int | float) and rate > 0):
                raise UserError(f"config.model: tokens a second of {name!r} are {rate!r}; give a number above 0")
        fields = {field.name for field in dataclasses.fields(model.MoonshineConfig)}
        values = {key: value for key, value in section.items() if key in fields}
        values |= {
            "vocab_size": vocab_size,
            "bos": tokenizer.bos,
            "eos": tokenizer.eos,
            "attention": section.attention or None,
        }
        if section.attention == "cudnn" and config.data.batching == "packed":
            raise UserError(
                "config.model.attention = 'cudnn' takes one utterance a row; leave it empty, or set "
                "config.data.batching=buckets"
            )
        try:
            sizes = model.MoonshineConfig(**values)
        except ValueError as error:
            raise UserError(f"config.model: {error}") from error
        return cls(
            config=sizes,
            tokenizer=tokenizer,
            augmentation=Augmentation.from_config(config.data, cls.sample_rate),
            audio_dtype=config.data.audio_dtype,
            loss_chunk=section.loss_chunk,
            tokens_per_second={"": section.tokens_per_second, **section.language_tokens_per_second},
            min_tokens=section.min_tokens,
        )

    # The host side.

    def measure(self, manifest: Manifest | Collection) -> Lengths:
        samples = audio_files.samples(manifest.durations, self.sample_rate)
        return Lengths(
            audio=self.augmentation.longest(samples),
            text=(token_counts(manifest, self.tokenizer) + 2).astype(np.int32),  # BOS and EOS
        )

    def load(self, record: Record, rng: np.random.Generator | None) -> Example:
        if rng is not None and self.augmentation.active:
            audio = self.augmentation(audio_files.read(record, self.sample_rate), rng)
        else:
            audio = audio_files.read(record, self.sample_rate, integers=True)
        rate = self.tokens_per_second.get(record.language or "", self.tokens_per_second[""])
        tokens = [self.tokenizer.bos, *self.tokenizer.encode(record.text), self.tokenizer.eos]
        return {
            "audio": audio,
            "tokens": np.asarray(tokens, np.int32),
            "token_limit": np.int32(self._limit(len(audio), rate)),
        }

    def collate(self, rows: Sequence[Sequence[Example]], shape: Shape) -> Batch:
        # The audio not of zeros: clearing what is written a moment later costs a third of reading PCM.
        batch: Any = {
            name: (np.empty if name == "audio" else np.zeros)(spec.shape, spec.dtype)
            for name, spec in self.batch_spec(shape).items()
        }
        audio = batch["audio"]
        for row, examples in enumerate(rows):
            sample = token = 0
            for place, example in enumerate(examples):
                tokens, length = example["tokens"], len(example["audio"])
                audio_files.put(example["audio"], audio[row, sample : sample + length])
                batch["audio_start"][row, place], batch["audio_length"][row, place] = sample, length
                batch["tokens"][row, token : token + len(tokens)] = tokens
                batch["token_start"][row, place], batch["token_length"][row, place] = token, len(tokens)
                batch["token_limit"][row, place] = example["token_limit"]
                following = -(-(sample + length) // model.STRIDE) * model.STRIDE
                audio[row, sample + length : following] = 0
                sample, token = following, token + len(tokens)
            audio[row, sample:] = 0
        return batch

    def batch_spec(self, shape: Shape) -> dict[str, jax.ShapeDtypeStruct]:
        places = (shape.rows, shape.segments)
        return {
            "audio": jax.ShapeDtypeStruct((shape.rows, shape.samples), self.audio_dtype),
            "audio_start": jax.ShapeDtypeStruct(places, np.int32),
            "audio_length": jax.ShapeDtypeStruct(places, np.int32),
            "tokens": jax.ShapeDtypeStruct((shape.rows, shape.tokens), np.int32),
            "token_start": jax.ShapeDtypeStruct(places, np.int32),
            "token_length": jax.ShapeDtypeStruct(places, np.int32),
            "token_limit": jax.ShapeDtypeStruct(places, np.int32),
        }

    def audit(self, batch: Batch, records: Sequence[Record]) -> list[str]:
        view = model.targets(batch["tokens"], batch["token_start"], batch["token_length"])
        inputs, targets, counts = (np.asarray(x) for x in (view.inputs, view.targets, view.weights))
        faults = []
        over_cap: Any = 0
        for row, record in enumerate(records):
            seen = targets[row][counts[row] > 0].tolist()
            text = self.tokenizer.encode(record.text)
            if max(seen, default=0) >= self.config.vocab_size or min(seen, default=0) < 0:
                faults.append(f"{record.id} has token {max(seen)}, the vocabulary ends at {self.config.vocab_size - 1}")
            elif seen == [*text, self.tokenizer.eos][1:] and len(text) > 0:
                faults.append(f"the labels of {record.id} are shifted twice: its first token is never a target")
            elif self.tokenizer.eos not in seen:
                faults.append(f"EOS of {record.id} is masked away: the model would never learn to stop")
            elif seen != [*text, self.tokenizer.eos]:
                faults.append(
                    f"the targets of {record.id} read {self.tokenizer.decode(seen)!r}, its text is {record.text!r}"
                )
            elif inputs[row, 0] != self.tokenizer.bos:
                faults.append(f"{record.id} does not begin with BOS")
            over_cap += len(seen) > batch["token_limit"][row, 0]
        if over_cap > len(records) // 2:
            faults.append(
                f"{over_cap} of {len(records)} texts are longer than decoding may write; raise "
                "config.model.tokens_per_second"
            )
        return faults[:3]

    # Parameters.

    def init(self, rng: jax.Array) -> Params:
        spec = self.batch_spec(Shape(rows=1, samples=2 * model.RECEPTIVE_FIELD, tokens=4))
        batch: Any = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in spec.items() if name != "token_limit"}
        return model.Moonshine(self.config).init(rng, **batch)["params"]

    def load_weights(self, folder: str) -> Params:
        return moonshine_hf.read_params(folder, self.config)

    def frozen(self, path: str) -> bool:
        return False

    # The device side.

    def loss(self, params: Params, batch: Batch, rng: jax.Array, *, train: bool) -> LossOut:
        net = model.Moonshine(self.config)
        audio = (batch["audio"], batch["audio_start"], batch["audio_length"])
        encoded: Any = net.apply({"params": params}, *audio, method="encode")
        view = model.targets(batch["tokens"], batch["token_start"], batch["token_length"])
        hidden: Any = net.apply(
            {"params": params}, view.inputs, view.segment_ids, view.positions, encoded, method="hidden"
        )
        out = cross_entropy(
            hidden.reshape(-1, hidden.shape[-1]),
            params["decoder"]["embedding"]["embedding"],
            view.targets.reshape(-1),
            view.weights.reshape(-1),
            chunk=self.loss_chunk,
        )
        loss, right = (x.reshape(view.weights.shape) for x in out)
        # Segment s of a row collects the tokens that carry its id, s + 1.
        of_segment = view.segment_ids[:, None, :] == jnp.arange(1, batch["token_length"].shape[1] + 1)[None, :, None]
        weight = jnp.sum(view.weights)
        return LossOut(
            loss=jnp.sum(loss),
            weight=weight,
            metrics={"token_accuracy": (jnp.sum(right), weight)},
            utterance_loss=jnp.sum(jnp.where(of_segment, loss[:, None, :], 0.0), axis=-1),
            utterance_weight=jnp.sum(jnp.where(of_segment, view.weights[:, None, :], 0.0), axis=-1),
        )

    def decode(self, params: Params, batch: Batch, *, beams: int = 1) -> Hypotheses:
        net, params = model.for_decoding(self.config, params)
        audio = (batch["audio"], batch["audio_start"], batch["audio_length"])
        encoded: Any = net.apply({"params": params}, *audio, method="encode")
        limit = self._limit(batch["audio"].shape[1], max(self.tokens_per_second.values()))
        cache: Any = net.apply({"params": params}, encoded, limit + 1, method="start")

        def step(cache: Any, token: jax.Array, index: jax.Array) -> tuple[jax.Array, Any]:
            out: Any = net.apply({"params": params}, cache, token, index, method="step")
            return out

        search = decoding.greedy if beams == 1 else _beam(beams)
        limits = jnp.where(batch["audio_length"][:, 0] > 0, batch["token_limit"][:, 0], 0)
        return search(step, cache, bos=self.config.bos, eos=self.config.eos, limits=limits, max_length=limit)

    def _limit(self, samples: int, tokens_per_second: float) -> int:
        return decoding.token_limit(samples, minimum=self.min_tokens, tokens_per_second=tokens_per_second)

    def flops(self, lengths: Lengths) -> float:
        pairs = zip(lengths.audio.tolist(), lengths.text.tolist())
        return sum(model.flops(self.config, samples, tokens) for samples, tokens in pairs)


def _beam(beams: int) -> Any:
    def search(*args: Any, **kwargs: Any) -> Hypotheses:
        return decoding.beam(*args, beams=beams, **kwargs)

    return search
