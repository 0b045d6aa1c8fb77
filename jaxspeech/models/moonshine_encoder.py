"""Moonshine's encoder: the convolutional stem on raw audio and the bidirectional transformer on its frames."""

import dataclasses
from typing import TYPE_CHECKING, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxspeech.nn import filterbank
from jaxspeech.nn.attention import Attention, Rotations
from jaxspeech.nn.conv import StridedConv
from jaxspeech.nn.mlp import GeluMLP
from jaxspeech.nn.norm import LayerNorm, SegmentNorm
from jaxspeech.nn.rope import rotations
from jaxspeech.nn.stack import rematerialised, scan
from jaxspeech.ops.activations import gelu
from jaxspeech.ops.segments import Segments, locate

if TYPE_CHECKING:
    from jaxspeech.models.moonshine import MoonshineConfig

# (taps, stride) of the three convolutions; none pads.
STEM = ((127, 64), (7, 3), (3, 2))
STRIDE = 64 * 3 * 2  # samples between frames: 24 ms
SAMPLE_RATE = 16000
RECEPTIVE_FIELD = 127 + 64 * (6 + 3 * 2)  # samples of a frame: 895

# What the first two convolutions are before training.
INITIAL_STEM = {
    "random": (nn.initializers.lecun_normal(), nn.initializers.lecun_normal()),
    "filterbank": (filterbank.band_pass(SAMPLE_RATE), filterbank.rectifiers()),
}

Samples = TypeVar("Samples", int, np.ndarray, jax.Array)


def frames(samples: Samples) -> tuple[Samples, Samples, Samples]:
    """Frames after each of the three convolutions, of that many samples; 0 where there are too few."""
    counts = []
    for taps, stride in STEM:
        samples = (samples - taps) // stride + 1
        samples = max(samples, 0) if isinstance(samples, int) else samples.clip(0)
        counts.append(samples)
    first, second, third = counts
    return first, second, third


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoded:
    """What the encoder gives.

    Attributes:
        frames: [rows, time, dim].
        segments: whose they are; its `ids` and `positions` are int32[rows, time].
    """

    frames: Float[Array, "rows time dim"]
    segments: Segments

    @property
    def segment_ids(self) -> Int[Array, "rows time"]:
        return self.segments.ids

    @property
    def positions(self) -> Int[Array, "rows time"]:
        return self.segments.positions


class EncoderLayer(nn.Module):
    """Pre-norm self-attention with rotary positions, then a GELU feed-forward."""

    config: "MoonshineConfig"

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows time dim"], segments: Segments, turns: Rotations
    ) -> Float[Array, "rows time dim"]:
        config = self.config
        dtype = jnp.dtype(config.dtype)
        shrink = (2 * config.encoder_layers) ** -0.5
        y = LayerNorm(dtype=dtype, name="attention_norm")(x)
        attend = Attention(
            heads=config.heads,
            head_dim=config.head_dim,
            dim=config.dim,
            implementation=config.attention,
            dtype=dtype,
            output_scale=shrink,
            name="attention",
        )
        x = x + attend(y, segments, turns)
        y = LayerNorm(dtype=dtype, name="mlp_norm")(x)
        return x + GeluMLP(config.dim, config.inner, dtype, shrink, name="mlp")(y)


class Encoder(nn.Module):
    """Audio to frames; see `Moonshine.encode`."""

    config: "MoonshineConfig"

    @nn.compact
    def __call__(
        self,
        audio: Float[Array, "rows samples"],
        audio_start: Int[Array, "rows segments"],
        audio_length: Int[Array, "rows segments"],
    ) -> Encoded:
        config = self.config
        dtype = jnp.dtype(config.dtype)
        if audio.shape[1] < RECEPTIVE_FIELD:  # one frame, of nobody
            audio = jnp.pad(audio, ((0, 0), (0, RECEPTIVE_FIELD - audio.shape[1])))
        # A segment starts on a whole frame, so its frames are those that it has alone, moved. Frames that reach beyond
        # its end are nobody's.
        first, _, third = frames(audio_length)
        inside = locate(audio_start, audio_length, audio.shape[1]).ids > 0
        stem_ids = locate(audio_start // STEM[0][1], first, frames(audio.shape[1])[0]).ids
        segments = locate(audio_start // STRIDE, third, frames(audio.shape[1])[2])

        x = jnp.where(inside, audio, 0)[..., None]
        (taps1, stride1), (taps2, stride2), (taps3, stride3) = STEM
        init1, init2 = INITIAL_STEM[config.initial_stem]
        x = StridedConv(config.dim, taps1, stride1, use_bias=False, dtype=dtype, kernel_init=init1, name="conv1")(x)
        x = jnp.tanh(x)
        x = SegmentNorm(audio_start.shape[1], dtype=dtype, name="group_norm")(x, stem_ids)
        x = StridedConv(2 * config.dim, taps2, stride2, dtype=dtype, kernel_init=init2, name="conv2")(x)
        x = StridedConv(config.dim, taps3, stride3, dtype=dtype, name="conv3")(gelu(x))
        x = gelu(x)

        turns = rotations(segments.positions, x.shape[1], config.rotary_dims, config.head_dim)
        if config.scan_layers:
            layers = rematerialised(EncoderLayer, config.remat, scanned=True)(config, name="layers")
            x = scan(layers, config.encoder_layers, x, segments, turns)
        else:
            layer = rematerialised(EncoderLayer, config.remat)
            for number in range(config.encoder_layers):
                x = layer(config, name=f"layer_{number}")(x, segments, turns)
        return Encoded(LayerNorm(dtype=dtype, name="norm")(x), segments)
