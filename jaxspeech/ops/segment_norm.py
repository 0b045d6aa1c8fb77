"""Normalisation over all frames and channels of a segment: plain, and with a backward that keeps its input alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def reference(
    x: Float[Array, "rows time dim"],
    scale: Float[Array, " dim"],
    bias: Float[Array, " dim"],
    segment_ids: Int[Array, "rows time"],
    segments: int,
    epsilon: float,
) -> Float[Array, "rows time dim"]:
    """(x - mean) / sqrt(variance + epsilon) · scale + bias, fp32 statistics of a frame's segment; zeros at nobody."""
    mean, inverse = _statistics(x.astype(jnp.float32), segment_ids, segments, epsilon)
    y = (x.astype(jnp.float32) - mean) * inverse * scale + bias
    return jnp.where(segment_ids[..., None] > 0, y, 0).astype(x.dtype)


def _mean(values: jax.Array, dim: int, segment_ids: jax.Array, segments: int) -> jax.Array:
    """Sums over channels [rows, time] → at every frame the mean over its segment [rows, time, 1], 0 at nobody."""
    member = segment_ids[:, None, :] == jnp.arange(1, segments + 1, dtype=segment_ids.dtype)[None, :, None]
    count = dim * jnp.maximum(jnp.sum(member, axis=-1), 1)
    mean = jnp.sum(jnp.where(member, values[:, None], 0), axis=-1) / count
    return jnp.sum(jnp.where(member, mean[..., None], 0), axis=1)[..., None]


def _statistics(x: jax.Array, segment_ids: jax.Array, segments: int, epsilon: float) -> tuple[jax.Array, jax.Array]:
    mean = _mean(jnp.sum(x, axis=-1), x.shape[-1], segment_ids, segments)
    variance = _mean(jnp.sum(jnp.square(x - mean), axis=-1), x.shape[-1], segment_ids, segments)
    return mean, jax.lax.rsqrt(variance + epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def segment_norm(
    x: Float[Array, "rows time dim"],
    scale: Float[Array, " dim"],
    bias: Float[Array, " dim"],
    segment_ids: Int[Array, "rows time"],
    segments: int,
    epsilon: float,
) -> Float[Array, "rows time dim"]:
    """`reference`."""
    return reference(x, scale, bias, segment_ids, segments, epsilon)


def _forward(x, scale, bias, segment_ids, segments, epsilon):
    wide = x.astype(jnp.float32)
    mean, inverse = _statistics(wide, segment_ids, segments, epsilon)
    y = jnp.where(segment_ids[..., None] > 0, (wide - mean) * inverse * scale + bias, 0)
    return y.astype(x.dtype), (x, scale, segment_ids, mean, inverse)


def _backward(segments, epsilon, residuals, dy):
    x, scale, segment_ids, mean, inverse = residuals
    normal = (x.astype(jnp.float32) - mean) * inverse
    dy = jnp.where(segment_ids[..., None] > 0, dy.astype(jnp.float32), 0)
    scaled = dy * scale

    def over_segment(values: jax.Array) -> jax.Array:
        return _mean(jnp.sum(values, axis=-1), x.shape[-1], segment_ids, segments)

    dx = (scaled - over_segment(scaled) - normal * over_segment(scaled * normal)) * inverse
    dx = jnp.where(segment_ids[..., None] > 0, dx, 0).astype(x.dtype)
    none = np.zeros(segment_ids.shape, jax.dtypes.float0)
    return dx, jnp.sum(dy * normal, axis=(0, 1)), jnp.sum(dy, axis=(0, 1)), none


segment_norm.defvjp(_forward, _backward)
