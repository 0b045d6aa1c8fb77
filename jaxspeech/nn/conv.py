"""A strided convolution layer over time, without padding."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxspeech.ops.conv import strided_conv


class StridedConv(nn.Module):
    """Kernel (taps, inputs, outputs), frames = (time - taps) // stride + 1."""

    features: int
    taps: int
    stride: int
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32
    kernel_init: Callable[..., jnp.ndarray] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "rows time inputs"]) -> Float[Array, "rows frames outputs"]:
        shape = (self.taps, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        y = strided_conv(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y
