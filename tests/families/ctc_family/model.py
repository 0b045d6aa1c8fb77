"""Log-mel frames, then residual blocks that each see a few frames around; characters and a blank come out.

A frame of 20 ms depends on no padding: windows lie wholly inside the utterance, the statistics of the normalisation are
those of its own frames, and what lies beyond its end is zero before every block looks aside.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from jaxspeech.ops import waveform
from jaxspeech.ops.spec_augment import spec_augment

HOP = 160  # 10 ms
WINDOW = 3 * HOP
FFT = 512
STRIDE = 2 * HOP  # samples between the frames that come out
_SMALL = nn.initializers.variance_scaling(0.1, "fan_in", "normal")  # a block begins as little more than the identity


@dataclasses.dataclass(frozen=True)
class CtcConfig:
    """Sizes. `dilations`: one block each, which looks 2·dilation frames to both sides. The last four: SpecAugment."""

    vocab_size: int  # the blank not counted; its id is this
    mels: int
    dim: int
    dilations: tuple[int, ...]
    dropout: float
    freq_masks: int = 0
    freq_width: int = 8
    time_masks: int = 0
    time_share: float = 0.05


def frames(samples: Int[Array, " rows"]) -> Int[Array, " rows"]:
    """Frames of 20 ms that utterances of so many samples have."""
    return jnp.maximum((samples - WINDOW) // HOP + 1, 0) // 2


class Ctc(nn.Module):
    """Logits of characters and blank."""

    config: CtcConfig

    @nn.compact
    def __call__(
        self,
        audio: Num[Array, "rows samples"],
        length: Int[Array, " rows"],
        *,
        train: bool = False,
        mask_seed: Array | None = None,
    ) -> Float[Array, "rows frames classes"]:
        config = self.config
        mel = log_mel(waveform.floats(audio), config.mels)
        pairs = mel[:, : mel.shape[1] // 2 * 2].reshape(mel.shape[0], -1, 2 * config.mels)
        valid = jnp.arange(pairs.shape[1])[None, :] < frames(length)[:, None]
        features = normalize(pairs, valid)
        if train and mask_seed is not None and (config.freq_masks or config.time_masks):
            features = masked(config, features, frames(length), mask_seed)
        x = nn.Dense(config.dim, name="input")(features)
        for number, dilation in enumerate(config.dilations):
            x = x + Block(config, dilation, name=f"block_{number}")(x, valid, train)
        return nn.Dense(config.vocab_size + 1, name="output")(nn.LayerNorm(name="norm")(x))


class Block(nn.Module):
    """Norm, five frames beside one another, a hidden layer, back to the model's width."""

    config: CtcConfig
    dilation: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows frames dim"], valid: Bool[Array, "rows frames"], train: bool
    ) -> Float[Array, "rows frames dim"]:
        x = jnp.where(valid[..., None], nn.LayerNorm(name="norm")(x), 0.0)
        reach = 2 * self.dilation
        padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
        around = [padded[:, i : i + x.shape[1]] for i in range(0, 2 * reach + 1, self.dilation)]
        x = nn.Dense(self.config.dim, name="mix")(jnp.concatenate(around, axis=-1))
        x = nn.Dropout(self.config.dropout, deterministic=not train)(nn.gelu(x))
        return nn.Dense(
            self.config.dim, name="out", kernel_init=nn.initializers.variance_scaling(0.1, "fan_in", "normal")
        )(x)


def normalize(x: Float[Array, "rows frames dim"], valid: Bool[Array, "rows frames"]) -> Float[Array, "rows frames dim"]:
    """Mean 0 and variance 1 of each dimension over the valid frames of a row."""
    weight = valid[..., None].astype(x.dtype)
    count = jnp.maximum(weight.sum(1, keepdims=True), 1.0)
    mean = (x * weight).sum(1, keepdims=True) / count
    variance = (jnp.square(x - mean) * weight).sum(1, keepdims=True) / count
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * weight


def masked(
    config: CtcConfig, pairs: Float[Array, "rows frames dim"], length: Int[Array, " rows"], seed: Array
) -> Float[Array, "rows frames dim"]:
    """SpecAugment on the frames of 10 ms of which these are pairs."""
    mel = pairs.reshape(pairs.shape[0], -1, config.mels)
    masks = dict(freq_masks=config.freq_masks, freq_width=config.freq_width, time_masks=config.time_masks)
    return spec_augment(mel, 2 * length, seed, time_share=config.time_share, **masks).reshape(pairs.shape)


def log_mel(audio: Float[Array, "rows samples"], mels: int) -> Float[Array, "rows frames mels"]:
    """Natural log of mel energies; 30 ms windows every 10 ms, none of which reaches beyond the audio."""
    hops = audio[:, : audio.shape[1] // HOP * HOP].reshape(audio.shape[0], -1, HOP)
    windows = jnp.concatenate([hops[:, i : hops.shape[1] - 2 + i] for i in range(3)], axis=-1)
    spectrum = jnp.fft.rfft(windows * np.hanning(WINDOW).astype(np.float32), n=FFT)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return jnp.log(power @ mel_matrix(mels) + 1e-4)


@functools.cache
def mel_matrix(mels: int) -> np.ndarray:
    """float32[FFT // 2 + 1, mels]: triangles that are equally wide on the mel scale (HTK's formula), 60 to 7600 Hz."""
    edges = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([60, 7600]) / 700)), mels + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(FFT, 1 / 16000)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)
