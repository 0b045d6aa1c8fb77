"""Attention of one query a row to a cache of keys and values: plain, and by the kernel in C++ (`ops.native`)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxspeech.ops import attention_native
from jaxspeech.ops import native as kernels


def recall(
    query: Float[Array, "rows heads head_dim"],
    keys: Float[Array, "rows heads head_dim keys"],
    values: Float[Array, "rows heads keys head_dim"],
    mask: Int[Array, "rows keys"],
    *,
    scale: float,
    implementation: str | None = None,
) -> Float[Array, "rows heads head_dim"]:
    """softmax(scale · query · keys) · values over the keys where `mask` is not 0; zeros where there is none.

    Args:
        keys: head_dim first, because sums run over the last but one axis: with one query a row there is nothing to
            reuse, and on a CPU a matrix product takes half as long again as the sum.
        implementation: as in `attention`; the kernel is used for None and "native", where it can be.
    """
    if implementation in (None, "native") and _on_cpu() and attention_native.fits(query) and _floats(keys, values):
        mask = jnp.broadcast_to((mask != 0).astype(jnp.int32), (keys.shape[0], keys.shape[3]))
        return native(query, keys, values, mask, scale)
    return plain(query, keys, values, mask, scale)


def plain(query, keys, values, mask, scale):
    """The definition, in fp32."""
    scores = jnp.sum(query[..., None].astype(jnp.float32) * keys, axis=2) * scale
    seen = (mask != 0)[:, None]
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e30), axis=-1)
    weights = jnp.where(seen, weights, 0)[..., None]
    return jnp.sum(weights * values, axis=2).astype(values.dtype)


def native(query, keys, values, mask, scale):
    """The kernel: it reads of the cache only what lies between the first and the last key that a row sees."""
    result = jax.ShapeDtypeStruct(query.shape, jnp.float32)
    call = jax.ffi.ffi_call(kernels.RECALL, result, vmap_method="sequential")
    return call(query, keys, values, mask, scale=np.float32(scale))


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _floats(*arrays: jax.Array) -> bool:
    return all(array.dtype == jnp.float32 for array in arrays)
