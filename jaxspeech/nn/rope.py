"""Rotary positions over interleaved pairs of the first dimensions of a head (GPT-J's form, as in Moonshine)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

THETA = 10000.0


def rotations(
    positions: Int[Array, "rows time"], limit: int, dims: int, head_dim: int
) -> tuple[Float[Array, "rows time head_dim"], Float[Array, "rows time head_dim"]]:
    """cos and signed sin of every dimension's angle, fp32: pairs (0, 1), (2, 3), … of the first `dims` rotate.

    The other dimensions have cos 1 and sin 0, so that `rotate` needs neither slices nor concatenation, which cost more
    than the arithmetic, backward above all. Positions are below `limit`; `dims` and `head_dim` are even.
    """
    # Angles in fp32, as in the published models. A table of constants: left to the compiler, cos and sin would be
    # computed again wherever they are used, for every head of every layer.
    frequency = (1 / THETA ** (np.arange(0, dims, 2) / dims)).astype(np.float32)
    angle = np.arange(limit, dtype=np.float32)[:, None] * np.repeat(frequency, 2)
    rest = ((0, 0), (0, head_dim - dims))
    cos = np.pad(np.cos(angle), rest, constant_values=1)
    sin = np.pad(np.sin(angle) * np.tile(np.array([-1, 1], np.float32), dims // 2), rest)
    return jnp.take(cos, positions, axis=0, mode="clip"), jnp.take(sin, positions, axis=0, mode="clip")


def rotate(
    x: Float[Array, "rows time heads head_dim"],
    cos: Float[Array, "rows time head_dim"],
    sin: Float[Array, "rows time head_dim"],
) -> Float[Array, "rows time heads head_dim"]:
    """(even, odd) → (even · cos - odd · sin, odd · cos + even · sin) of every pair, in fp32."""
    wide = x.astype(jnp.float32)
    swapped = jax.lax.rev(wide.reshape(*x.shape[:-1], -1, 2), (x.ndim,)).reshape(x.shape)
    return (wide * cos[:, :, None] + swapped * sin[:, :, None]).astype(x.dtype)
