"""SpecAugment (Park et al. 2019, arXiv 1904.08779) in the step: bands of frequency and stretches of time are masked.

Without time warping, which the paper found to matter least. The masks of an utterance depend on its own key and length
alone: not on its padding, its row, or how the batch is split over devices and micro-batches.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32


def spec_augment(
    features: Float[Array, "rows frames bins"],
    length: Int[Array, " rows"],
    seed: UInt32[Array, " rows"],
    *,
    freq_masks: int = 2,
    freq_width: int = 20,
    time_masks: int = 10,
    time_share: float = 0.03,
    time_width: int = 0,
    fill: float = 0.0,
) -> Float[Array, "rows frames bins"]:
    """The features with masks in each utterance; widths and places are drawn evenly.

    Args:
        features: normalised, so that their mean is `fill`.
        length: valid frames of each row; masks lie within them.
        seed: random bits of each utterance, from its own key on the host.
        freq_masks, freq_width: bands, and bins that each has at most.
        time_masks: stretches.
        time_share: share of the frames that each stretch has at most (adaptive masks, arXiv 1912.05533).
        time_width: frames that each stretch has at most; 0: only `time_share` limits it.
        fill: what is written.
    """
    frames, bins = features.shape[1:]
    masked = jax.vmap(
        lambda count, bits: _masks(
            count, bits, frames, bins, freq_masks, freq_width, time_masks, time_share, time_width
        )
    )(length, seed)
    return jnp.where(masked, jnp.asarray(fill, features.dtype), features)


def _masks(
    length: Int[Array, ""],
    seed: UInt32[Array, ""],
    frames: int,
    bins: int,
    freq_masks: int,
    freq_width: int,
    time_masks: int,
    time_share: float,
    time_width: int,
) -> Bool[Array, "frames bins"]:
    """What is masked of one utterance."""
    in_frequency, in_time = jax.random.split(jax.random.key(seed))
    longest = jnp.floor(time_share * length).astype(jnp.int32)
    if time_width:
        longest = jnp.minimum(longest, time_width)
    bands = _stretches(in_frequency, freq_masks, jnp.int32(min(freq_width, bins)), jnp.int32(bins), bins)
    return bands[None, :] | _stretches(in_time, time_masks, longest, length, frames)[:, None]


def _stretches(
    key: Array, count: int, longest: Int[Array, ""], length: Int[Array, ""], size: int
) -> Bool[Array, " size"]:
    """Places that at least one of `count` stretches of 0 to `longest` within `length` covers."""
    if not count:
        return jnp.zeros(size, bool)
    of_width, of_place = jax.random.split(key)
    width = jax.random.randint(of_width, (count, 1), 0, longest + 1)
    begin = jax.random.randint(of_place, (count, 1), 0, length - width + 1)
    place = jnp.arange(size)[None, :]
    return jnp.any((place >= begin) & (place < begin + width), axis=0)
