"""Attention by the kernel in C++ (`ops.native`): CPUs, fp32, one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxspeech.errors import UserError
from jaxspeech.ops import native as kernels


def fits(query: jax.Array) -> bool:
    """Whether the kernel has been compiled and takes these queries: fp32, not sharded."""
    one_device = jax.sharding.get_abstract_mesh().size <= 1  # the partitioner cannot divide a foreign function
    return query.dtype == jnp.float32 and one_device and kernels.load()


def native(query, key, value, query_segments, key_segments, causal, scale):
    """See `attention.attention`.

    Raises:
        UserError: the kernel has not been compiled.
    """
    if not kernels.load():
        raise UserError("attention 'native' is not compiled on this machine: run python -m jaxspeech.ops.native")
    if query.dtype != jnp.float32:
        raise UserError(f"attention 'native' computes in float32, not {query.dtype}; use 'chunked'")
    segments = query_segments.astype(jnp.int32), key_segments.astype(jnp.int32)
    return attend((bool(causal), float(scale)), query, key, value, *segments)


def _call(name: str, results: tuple[jax.ShapeDtypeStruct, ...], static: tuple[bool, float], *arguments: jax.Array):
    causal, scale = static
    call = jax.ffi.ffi_call(name, results, vmap_method="sequential")
    return call(*arguments, causal=np.bool_(causal), scale=np.float32(scale))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(static, query, key, value, query_segments, key_segments):
    """The kernel itself; `static` is (causal, scale), segments are int32."""
    return _forward(static, query, key, value, query_segments, key_segments)[0]


def _forward(static, *arguments):
    rows, queries, heads, _ = arguments[0].shape
    # Beside the mixed values, the logarithm of each softmax's denominator.
    shapes = (rows, queries, heads, arguments[2].shape[3]), (rows, heads, queries)
    mixed, normaliser = _call(kernels.FORWARD, _floats(*shapes), static, *arguments)
    return mixed, (*arguments, mixed, normaliser)


def _backward(static, residuals, d_mixed):
    gradients = _call(kernels.BACKWARD, _floats(*(x.shape for x in residuals[:3])), static, *residuals, d_mixed)
    none = (np.zeros(x.shape, jax.dtypes.float0) for x in residuals[3:5])
    return *gradients, *none


def _floats(*shapes: tuple[int, ...]) -> tuple[jax.ShapeDtypeStruct, ...]:
    return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)


attend.defvjp(_forward, _backward)
