"""Scaled dot-product attention within segments: one function, several implementations side by side.

All of them give the same numbers. A query sees the keys of its own segment (and, if causal, none that lie later in the
row); a query without any key gives zeros and passes no gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxspeech.ops.attention_chunked import chunked
from jaxspeech.ops.attention_kernels import cudnn, pallas
from jaxspeech.ops.attention_native import fits, native
from jaxspeech.ops.segments import visible

# Below any score; finite, so that no row of the softmax is a difference of infinities.
_MASKED = -1e30

# Scores of a row and head above which the written-out form costs more memory than recomputation costs time.
_WRITTEN_OUT = 1024 * 1024


def attention(
    query: Float[Array, "rows queries heads dim"],
    key: Float[Array, "rows keys heads dim"],
    value: Float[Array, "rows keys heads dim"],
    *,
    query_segments: Int[Array, "rows queries"],
    key_segments: Int[Array, "rows keys"] | None = None,
    causal: bool = False,
    packed: bool = True,
    implementation: str | None = None,
    scale: float | None = None,
) -> Float[Array, "rows queries heads dim"]:
    """softmax(scale · query · keyᵀ) · value within segments, softmax in fp32.

    Args:
        query_segments: s + 1 for a query of segment s, 0 for one that sees nothing.
        key_segments: likewise for keys; 0 is never seen. None: self-attention, the queries' segments.
        causal: keys that lie later in the row than the query are not seen.
        packed: rows may hold several segments, anywhere. False is the promise that each holds one at most, number 1,
            from place 0 on, which is what cuDNN needs.
        implementation: a name in `IMPLEMENTATIONS`; None takes what fits the platform and the shapes.
        scale: dim ** -0.5 unless given.
    """
    if implementation is None:
        implementation = choose(jax.default_backend(), query, key, packed=packed, cross=key_segments is not None)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"attention implementation {implementation!r} is none of {', '.join(IMPLEMENTATIONS)}")
    if implementation == "cudnn" and packed:
        raise ValueError("attention 'cudnn' takes one segment a row; use 'pallas', 'chunked' or 'xla' for packed rows")
    if implementation == "pallas" and key_segments is not None:
        implementation = "xla"  # the kernel has one set of segment ids; cross-attention to few queries is small
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    key_segments = query_segments if key_segments is None else key_segments
    return IMPLEMENTATIONS[implementation](query, key, value, query_segments, key_segments, causal, scale)


def choose(platform: str, query: jax.Array, key: jax.Array, *, packed: bool, cross: bool) -> str:
    """The implementation that fits a platform ("cpu", "gpu", "tpu") and these arguments."""
    if platform == "cpu":
        return "native" if fits(query) else "chunked"
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    if platform == "gpu" and half and not packed:
        return "cudnn"
    if query.shape[1] * key.shape[1] <= _WRITTEN_OUT:
        return "xla"
    return "pallas" if platform == "gpu" and half and not cross else "chunked"


def reference(query, key, value, query_segments, key_segments, causal, scale):
    """The definition, written out, in the precision of its inputs but fp32 at least."""
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    mask = visible(query_segments, key_segments, causal)[:, None]
    scores = jnp.einsum("bthd,bshd->bhts", query.astype(dtype), key.astype(dtype), precision="highest") * scale
    top = jax.lax.stop_gradient(jnp.max(jnp.where(mask, scores, _MASKED), axis=-1, keepdims=True))
    weights = jnp.exp(jnp.where(mask, scores - top, -jnp.inf))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights / jnp.where(total == 0, 1, total)
    return jnp.einsum("bhts,bshd->bthd", weights, value.astype(dtype), precision="highest").astype(query.dtype)


def xla(query, key, value, query_segments, key_segments, causal, scale):
    """Written out for the compiler: matrix products in the inputs' precision, softmax in fp32."""
    mask = visible(query_segments, key_segments, causal)[:, None]
    scores = jnp.einsum("bthd,bshd->bhts", query, key, preferred_element_type=jnp.float32) * scale
    weights = jax.nn.softmax(jnp.where(mask, scores, _MASKED), axis=-1)
    weights = jnp.where(mask, weights, 0).astype(value.dtype)  # zeros where a query has no key at all
    return jnp.einsum("bhts,bshd->bthd", weights, value)


IMPLEMENTATIONS: dict[str, Callable[..., jax.Array]] = {
    "reference": reference,
    "xla": xla,
    "chunked": chunked,
    "native": native,
    "cudnn": cudnn,
    "pallas": pallas,
}
