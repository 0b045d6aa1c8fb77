import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspeech.ops.conv import blocks, library


@pytest.mark.parametrize(("taps", "stride", "inputs"), [(127, 64, 1), (7, 3, 5), (3, 2, 4), (2, 3, 2), (1, 1, 3)])
@pytest.mark.parametrize("extra", [0, 1, 2])  # what is left over behind the last frame
def test_blocks_equal_the_convolution(taps, stride, inputs, extra):
    draw = np.random.default_rng(0).normal
    x = draw(size=(2, taps + 4 * stride + extra, inputs)).astype(np.float32)
    kernel = draw(size=(taps, inputs, 6)).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def both(function):
        y, backward = jax.vjp(lambda x, kernel: function(x, kernel, stride), x, kernel)
        return y, *backward(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    for a, b in zip(both(blocks), both(library)):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max())
