"""Moonshine: an encoder-decoder recogniser on raw 16 kHz audio (Jeffries et al. 2024, arXiv 2410.15608).

A stem of three strided convolutions makes 41.67 frames a second, a bidirectional encoder reads them, a causal decoder
with cross-attention writes tokens; the output head is the embedding. Rows may hold one utterance each, padded, or
several, packed: both give exactly what the utterance gives alone.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from jaxspeech.models.moonshine_decoder import Cache, Decoder
from jaxspeech.models.moonshine_encoder import INITIAL_STEM, RECEPTIVE_FIELD, STRIDE, Encoded, Encoder, frames
from jaxspeech.nn.stack import POLICIES, unstack_layers
from jaxspeech.ops import waveform
from jaxspeech.ops.attention import IMPLEMENTATIONS
from jaxspeech.ops.segments import locate

__all__ = [
    "RECEPTIVE_FIELD",
    "STRIDE",
    "Cache",
    "Encoded",
    "Moonshine",
    "MoonshineConfig",
    "Targets",
    "flops",
    "for_decoding",
    "frames",
    "targets",
]


@dataclasses.dataclass(frozen=True)
class MoonshineConfig:
    """Sizes and the way of computing. The defaults are Moonshine tiny; `MoonshineConfig.BASE` is base.

    Attributes:
        rotary_dims: dimensions of a head that rotate, even; at most `head_dim`.
        dtype: of activations and matrix products; parameters, softmax, statistics and losses stay fp32.
        attention: an implementation of `ops.attention`, or None for what fits the platform.
        remat: what the backward pass computes again: "none", "full" (all but layer inputs), "dots" (all but the
            outputs of projections).
        scan_layers: one stacked `layers` subtree run by a scan, in place of `layer_0`, `layer_1`, …
        initial_stem: what its first two convolutions are before training: "random", or "filterbank" (`nn.filterbank`),
            which learns from little speech.
    """

    dim: int = 288
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 6
    ff_mult: int = 4
    vocab_size: int = 32768
    bos: int = 1
    eos: int = 2
    rotary_dims: int = 32
    dtype: str = "float32"
    attention: str | None = None
    remat: str = "none"
    scan_layers: bool = False
    initial_stem: str = "random"

    TINY: ClassVar["MoonshineConfig"]
    BASE: ClassVar["MoonshineConfig"]

    def __post_init__(self) -> None:
        for name in ("dim", "heads", "encoder_layers", "decoder_layers", "ff_mult", "vocab_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be 1 or more")
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is no multiple of heads {self.heads}")
        if self.head_dim % 2:
            raise ValueError(f"dim {self.dim} over heads {self.heads} is odd; rotary positions need pairs")
        if self.rotary_dims % 2 or not 0 < self.rotary_dims <= self.head_dim:
            raise ValueError(f"rotary_dims {self.rotary_dims} must be even and at most the head's {self.head_dim}")
        if self.attention is not None and self.attention not in IMPLEMENTATIONS:
            raise ValueError(f"attention {self.attention!r} is none of {', '.join(IMPLEMENTATIONS)}")
        if self.initial_stem not in INITIAL_STEM:
            raise ValueError(f"initial_stem {self.initial_stem!r} is none of {', '.join(INITIAL_STEM)}")
        if self.remat not in POLICIES:
            raise ValueError(f"remat {self.remat!r} is none of {', '.join(POLICIES)}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def inner(self) -> int:
        return self.ff_mult * self.dim


MoonshineConfig.TINY = MoonshineConfig()
MoonshineConfig.BASE = MoonshineConfig(dim=416, encoder_layers=8, decoder_layers=8)


class Moonshine(nn.Module):
    """The whole model. Call its methods through `model.apply({"params": params}, …, method="encode")` and the like."""

    config: MoonshineConfig

    def setup(self) -> None:
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def __call__(
        self,
        audio: Num[Array, "rows samples"],
        audio_start: Int[Array, "rows segments"],
        audio_length: Int[Array, "rows segments"],
        tokens: Int[Array, "rows tokens"],
        token_start: Int[Array, "rows segments"],
        token_length: Int[Array, "rows segments"],
    ) -> Float[Array, "rows inputs vocabulary"]:
        """fp32 logits of the next token at every input position, whole: for short work and for `init`."""
        view = targets(tokens, token_start, token_length)
        encoded = self.encode(audio, audio_start, audio_length)
        hidden = self.hidden(view.inputs, view.segment_ids, view.positions, encoded)
        return self.decoder.logits(hidden)

    def encode(
        self,
        audio: Num[Array, "rows samples"],
        audio_start: Int[Array, "rows segments"],
        audio_length: Int[Array, "rows segments"],
    ) -> Encoded:
        """Audio to frames. What lies outside the segments does not matter, whatever it is.

        Args:
            audio: 16 kHz samples, about -1 to 1, or int16.
            audio_start: first sample of each segment; multiples of 384 where a row holds several.
            audio_length: its samples; 0 for an empty place.
        """
        return self.encoder(waveform.floats(audio), audio_start, audio_length)

    def hidden(
        self,
        tokens: Int[Array, "rows tokens"],
        token_segments: Int[Array, "rows tokens"],
        token_positions: Int[Array, "rows tokens"],
        encoded: Encoded,
    ) -> Float[Array, "rows tokens dim"]:
        """What the head multiplies with the embedding, at every input token; see `targets` for the arguments."""
        return self.decoder(tokens, token_segments, token_positions, encoded)

    def start(self, encoded: Encoded, limit: int) -> Cache:
        """A cache for decoding at most `limit` tokens (BOS counts), one utterance a row."""
        return self.decoder.start(encoded, limit)

    def step(
        self, cache: Cache, token: Int[Array, " rows"], index: Int[Array, ""]
    ) -> tuple[Float[Array, "rows vocabulary"], Cache]:
        """fp32 logits of the token after `token`, which stands at position `index` (the same in all rows).

        After EOS a row has ended: its logits mean nothing any more. At position 0 any token is a beginning.
        """
        return self.decoder.step(cache, token, index)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Targets:
    """Teacher forcing: what goes into the decoder and what should come out, each [rows, tokens - 1].

    Attributes:
        inputs: all of an utterance's tokens but the last; 0 elsewhere.
        targets: all of its tokens but the first, so that `targets[i]` follows `inputs[i]`; 0 elsewhere.
        weights: 1.0 where a target counts.
        segment_ids: s + 1 for segment s, 0 for nobody.
        positions: 0 at BOS of every segment.
    """

    inputs: jax.Array
    targets: jax.Array
    weights: jax.Array
    segment_ids: jax.Array
    positions: jax.Array


def targets(
    tokens: Int[Array, "rows tokens"],
    token_start: Int[Array, "rows segments"],
    token_length: Int[Array, "rows segments"],
) -> Targets:
    """Inputs and targets of rows of utterances, each BOS + text + EOS of `token_length` tokens.

    Which targets count follows from the lengths, never from token values: in Moonshine the padding id is EOS.
    """
    segments = locate(token_start, token_length - 1, tokens.shape[1] - 1)
    counts = segments.ids > 0
    return Targets(
        inputs=jnp.where(counts, tokens[:, :-1], 0),
        targets=jnp.where(counts, tokens[:, 1:], 0),
        weights=counts.astype(jnp.float32),
        segment_ids=segments.ids,
        positions=segments.positions,
    )


def for_decoding(config: MoonshineConfig, params: Any) -> tuple[Moonshine, Any]:
    """The model and parameters in unrolled form, which `start` and `step` need."""
    if not config.scan_layers:
        return Moonshine(config), params
    return Moonshine(dataclasses.replace(config, scan_layers=False)), unstack_layers(params)


def flops(config: MoonshineConfig, samples: int, tokens: int) -> float:
    """Floating-point operations of one utterance's forward pass, 2 a multiply-add, without padding.

    Matrix products and convolutions only: norms, activations and softmax are about 2 % more.

    Args:
        samples: audio samples at 16 kHz.
        tokens: tokens with BOS and EOS; the decoder reads all but the last.
    """
    first, second, third = frames(samples)
    inputs = max(tokens - 1, 0)
    d, inner = config.dim, config.inner
    stem = first * 127 * d + second * 7 * d * 2 * d + third * 3 * 2 * d * d
    encoder = config.encoder_layers * third * (4 * d * d + 2 * d * inner + 2 * third * d)
    causal = inputs * (inputs + 1)  # half of the square, twice: scores and values
    decoder = config.decoder_layers * (
        inputs * (4 * d * d + 2 * d * d + 3 * d * inner + 2 * third * d) + third * 2 * d * d + causal * d
    )
    return 2.0 * (stem + encoder + decoder + inputs * d * config.vocab_size)
