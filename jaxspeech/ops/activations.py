"""Activations whose backward pass keeps only what the layer before them gave, and computes the rest again.

Left to itself, differentiation keeps two or three arrays as large as the widest of the network for each of them.
Computed in fp32, whatever the dtype of the arguments.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def gelu_reference(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x · Φ(x), Φ the normal distribution function: the exact form, not the tanh approximation."""
    return jax.nn.gelu(x, approximate=False)


@jax.custom_vjp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`gelu_reference` by erf in place of erfc, which is four times as dear on a CPU."""
    wide = x.astype(jnp.float32)
    return (wide * (0.5 + 0.5 * jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


def _gelu_backward(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * jnp.pi) ** -0.5
    # erf of -x: written as in the forward pass, the compiler would see that both are one and keep it in between.
    distribution = 0.5 - 0.5 * jax.lax.erf(wide * -(0.5**0.5))
    return ((dy.astype(jnp.float32) * (distribution + wide * density)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def swiglu_reference(x: Float[Array, "*shape double"]) -> Float[Array, "*shape half"]:
    """value · silu(gate), where the first half of the last axis is the value and the second the gate."""
    value, gate = jnp.split(x, 2, axis=-1)
    return value * jax.nn.silu(gate)


@jax.custom_vjp
def swiglu(x: Float[Array, "*shape double"]) -> Float[Array, "*shape half"]:
    """`swiglu_reference`."""
    value, gate = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return (value * gate * jax.nn.sigmoid(gate)).astype(x.dtype)


def _swiglu_backward(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    value, gate = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    dy = dy.astype(jnp.float32)
    open_ = jax.nn.sigmoid(gate)
    d_gate = dy * value * open_ * (1 + gate * (1 - open_))
    return (jnp.concatenate([dy * gate * open_, d_gate], axis=-1).astype(x.dtype),)


swiglu.defvjp(lambda x: (swiglu(x), x), _swiglu_backward)
