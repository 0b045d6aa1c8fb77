"""The few largest of many."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_BLOCK = 256  # numbers


def top_k(x: Float[Array, "*batch n"], k: int) -> tuple[Float[Array, "*batch k"], Int[Array, "*batch k"]]:
    """`jax.lax.top_k`: the k largest of the last axis and where they are, the first of equal ones first.

    Compilers may sort all of a long axis for it (that of a beam search over 4 x 32,768 tokens: 0.3 s a step on a CPU).
    The k largest lie in the k blocks with the largest maxima, and only those are looked into.
    """
    *batch, n = x.shape
    if n < 4 * k * _BLOCK:
        return jax.lax.top_k(x, k)
    rest = [(0, 0)] * len(batch) + [(0, -n % _BLOCK)]
    blocks = jnp.pad(x, rest, constant_values=-jnp.inf).reshape(*batch, -1, _BLOCK)
    _, chosen = jax.lax.top_k(jnp.max(blocks, axis=-1), k)
    chosen = jnp.sort(chosen, axis=-1)  # in their order, so that of equal numbers the first stays the first
    candidates = jnp.take_along_axis(blocks, chosen[..., None], axis=-2).reshape(*batch, -1)
    values, places = jax.lax.top_k(candidates, k)
    return values, jnp.take_along_axis(chosen, places // _BLOCK, axis=-1) * _BLOCK + places % _BLOCK
