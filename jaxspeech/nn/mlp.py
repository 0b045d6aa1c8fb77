"""The two feed-forward blocks: GELU, and SwiGLU whose gate is the second half."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxspeech.ops.activations import gelu, swiglu
from jaxspeech.ops.dense import flat_dot_general


class GeluMLP(nn.Module):
    """fc1 (dim, inner), exact GELU (erf, not the tanh approximation), fc2 (inner, dim); both with bias."""

    dim: int
    inner: int
    dtype: jnp.dtype = jnp.float32
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        init = nn.initializers.variance_scaling(self.output_scale**2, "fan_in", "truncated_normal")
        x = nn.Dense(self.inner, dtype=self.dtype, dot_general=flat_dot_general, name="fc1")(x)
        return nn.Dense(self.dim, dtype=self.dtype, kernel_init=init, dot_general=flat_dot_general, name="fc2")(gelu(x))


class SwigluMLP(nn.Module):
    """fc1 (dim, 2·inner) gives the value, then the gate; value · silu(gate); fc2 (inner, dim); both with bias."""

    dim: int
    inner: int
    dtype: jnp.dtype = jnp.float32
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
        init = nn.initializers.variance_scaling(self.output_scale**2, "fan_in", "truncated_normal")
        x = nn.Dense(2 * self.inner, dtype=self.dtype, dot_general=flat_dot_general, name="fc1")(x)
        return nn.Dense(self.dim, dtype=self.dtype, kernel_init=init, dot_general=flat_dot_general, name="fc2")(
            swiglu(x)
        )
