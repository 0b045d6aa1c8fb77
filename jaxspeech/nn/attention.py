"""Multi-head attention without biases, with or without rotary positions, and its one-token form over a cache."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxspeech.nn.rope import rotate
from jaxspeech.ops.attention import attention
from jaxspeech.ops.dense import flat_dot_general
from jaxspeech.ops.recall import recall
from jaxspeech.ops.segments import Segments

Rotations = tuple[Float[Array, "rows time head_dim"], Float[Array, "rows time head_dim"]]


class Attention(nn.Module):
    """Projections `query`, `key`, `value` (dim, heads, head_dim) and `output` (heads, head_dim, dim)."""

    heads: int
    head_dim: int
    dim: int
    causal: bool = False
    implementation: str | None = None
    dtype: jnp.dtype = jnp.float32
    output_scale: float = 1.0  # of the initial output kernel: smaller in deep stacks

    def setup(self) -> None:
        def into() -> nn.DenseGeneral:
            return nn.DenseGeneral(
                (self.heads, self.head_dim), use_bias=False, dtype=self.dtype, dot_general=flat_dot_general
            )

        self.query, self.key, self.value = into(), into(), into()
        init = nn.initializers.variance_scaling(self.output_scale**2, "fan_in", "truncated_normal")
        self.output = nn.DenseGeneral(
            self.dim, axis=(-2, -1), use_bias=False, dtype=self.dtype, kernel_init=init, dot_general=flat_dot_general
        )

    def __call__(
        self, x: Float[Array, "rows time dim"], segments: Segments, rotations: Rotations | None = None
    ) -> Float[Array, "rows time dim"]:
        """Self-attention within segments."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        if rotations is not None:
            query, key = rotate(query, *rotations), rotate(key, *rotations)
        return self._mix(query, key, value, segments, None)

    def cross(
        self,
        x: Float[Array, "rows time dim"],
        segments: Segments,
        memory: Float[Array, "rows keys dim"],
        memory_segments: Segments,
    ) -> Float[Array, "rows time dim"]:
        """Attention from `x` to `memory`, each segment to its own."""
        return self._mix(self.query(x), self.key(memory), self.value(memory), segments, memory_segments)

    def _mix(self, query, key, value, segments: Segments, memory_segments: Segments | None) -> jax.Array:
        mixed = attention(
            query,
            key,
            value,
            query_segments=segments.ids,
            key_segments=None if memory_segments is None else memory_segments.ids,
            causal=self.causal,
            packed=segments.packed,
            implementation=self.implementation,
        )
        return self.output(mixed)

    def remember(
        self, memory: Float[Array, "rows keys dim"], rotations: Rotations | None = None
    ) -> tuple[Float[Array, "rows heads head_dim keys"], Float[Array, "rows heads keys head_dim"]]:
        """Keys and values for a cache, in the order in which `recall` reads them."""
        key, value = self.key(memory), self.value(memory)
        key = key if rotations is None else rotate(key, *rotations)
        return key.transpose(0, 2, 3, 1), value.swapaxes(1, 2)

    def recall(
        self,
        x: Float[Array, "rows 1 dim"],
        keys: Float[Array, "rows heads head_dim keys"],
        values: Float[Array, "rows heads keys head_dim"],
        mask: Int[Array, "rows keys"],
        rotations: Rotations | None = None,
    ) -> Float[Array, "rows 1 dim"]:
        """Attention of one query a row to the cached keys that `mask` (not 0) lets it see; zeros if there is none."""
        query = self.query(x)
        query = query if rotations is None else rotate(query, *rotations)
        scale, how = self.head_dim**-0.5, self.implementation
        mixed = recall(query[:, 0], keys, values, mask, scale=scale, implementation=how)
        return self.output(mixed[:, None])
