"""Normalisation with fp32 statistics: a layer norm without bias, and a group norm that sees each segment alone."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxspeech.ops.layer_norm import layer_norm
from jaxspeech.ops.segment_norm import segment_norm


class LayerNorm(nn.Module):
    """Over the last axis, with a scale and no bias."""

    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        return layer_norm(x, scale, self.epsilon).astype(self.dtype)


class SegmentNorm(nn.Module):
    """Group norm of one group: over all frames and channels of a segment, and over nothing else.

    Moonshine's stem normalises a whole clip (`GroupNorm(1, dim)` in the published models), so that padding or a
    neighbour in the row would change every frame. Frames of nobody come out as zeros.
    """

    segments: int
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows time dim"], segment_ids: Int[Array, "rows time"]
    ) -> Float[Array, "rows time dim"]:
        dim = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (dim,))
        bias = self.param("bias", nn.initializers.zeros, (dim,))
        return segment_norm(x, scale, bias, segment_ids, self.segments, self.epsilon).astype(self.dtype)
