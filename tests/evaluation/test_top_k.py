"""The k largest, block by block: what `jax.lax.top_k` finds, ties and infinities included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspeech.evaluation.top_k import top_k


@pytest.mark.parametrize("k", [1, 2, 8, 20])
@pytest.mark.parametrize("n", [20, 8191, 8192, 30_001, 131_072])
@pytest.mark.parametrize("kind", ["distinct", "many ties", "mostly nothing", "all alike"])
def test_it_finds_what_sorting_finds(kind, n, k):
    rng = np.random.default_rng(n + k)
    x = rng.standard_normal((3, n)).astype(np.float32)
    if kind == "many ties":
        x = np.round(x * 2) + 0.0  # no -0.0, which sorts apart
    elif kind == "mostly nothing":
        x[rng.random((3, n)) < 0.9999] = -np.inf
    elif kind == "all alike":
        x[:] = 1.5
    order = np.argsort(-x, axis=-1, kind="stable")[:, :k]
    values, places = jax.jit(top_k, static_argnums=1)(jnp.asarray(x), k)
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, -1))


def test_any_batch_axes():
    x = np.random.default_rng(0).standard_normal((2, 3, 9000)).astype(np.float32)
    values, places = top_k(jnp.asarray(x), 4)
    expected, order = jax.lax.top_k(x, 4)
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(values, expected)
