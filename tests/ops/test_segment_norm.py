import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxspeech.ops.segment_norm import reference, segment_norm


def test_values_and_gradients_equal_the_reference():
    draw = np.random.default_rng(0).normal
    x, dy = (jnp.asarray(draw(size=(2, 12, 6)) + 3, jnp.float32) for _ in range(2))
    scale, bias = (jnp.asarray(draw(size=6), jnp.float32) for _ in range(2))
    ids = jnp.array([[1] * 5 + [0] * 2 + [3] * 5, [0] * 11 + [2]])

    @functools.partial(jax.jit, static_argnums=0)
    def both(function):
        y, backward = jax.vjp(lambda *arguments: function(*arguments, ids, 3, 1e-5), x, scale, bias)
        return y, *backward(dy)

    for a, b in zip(both(segment_norm), both(reference)):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
