import jax
import jax.numpy as jnp
import numpy as np

from jaxspeech.nn.rope import rotate, rotations


def test_pairs_turn_by_their_frequency_and_the_rest_passes():
    dims, head_dim = 8, 12
    x = np.random.default_rng(0).normal(size=(2, 5, 3, head_dim)).astype(np.float32)
    positions = np.array([[0, 1, 2, 0, 1], [7, 8, 9, 1000, 1247]])
    pairs = x[..., :dims].reshape(2, 5, 3, -1, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(
        1j * positions[:, :, None, None] * 10000.0 ** (-np.arange(0, dims, 2) / dims)
    )
    expected = np.concatenate([np.stack([turned.real, turned.imag], -1).reshape(2, 5, 3, dims), x[..., dims:]], -1)
    found = rotate(jnp.asarray(x), *rotations(jnp.asarray(positions), 1248, dims, head_dim))
    # fp32 angles: 1247 · 2^-24 is 7e-5.
    np.testing.assert_allclose(found, expected, atol=3e-4)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)


def test_scores_depend_on_distance_alone():
    draw = np.random.default_rng(1).normal
    query, key = (jnp.asarray(draw(size=(1, 1, 1, 36)), jnp.float32) for _ in range(2))

    @jax.jit
    def score(query_position, key_position):
        at = [rotations(jnp.array([[position]]), 200, 32, 36) for position in (query_position, key_position)]
        return jnp.sum(rotate(query, *at[0]) * rotate(key, *at[1]))

    np.testing.assert_allclose(score(3, 1), score(103, 101), rtol=1e-4)
    assert abs(score(3, 1) - score(4, 1)) > 1e-3


def test_angles_are_fp32_whatever_the_activations_are():
    cos, sin = rotations(jnp.array([[1001]]), 1002, 32, 36)
    assert cos.dtype == sin.dtype == jnp.float32
    np.testing.assert_allclose(cos[0, 0, 0], np.cos(1001.0), atol=1e-4)
    x = jnp.ones((1, 1, 1, 36), jnp.bfloat16)
    assert rotate(x, cos, sin).dtype == jnp.bfloat16
