import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspeech.ops import native
from jaxspeech.ops.recall import native as kernel
from jaxspeech.ops.recall import plain, recall

compiled = pytest.mark.skipif(not native.load(), reason="not compiled: python -m jaxspeech.ops.native")


def draw(rows, keys, heads=2, dim=36, seed=0):
    generator = np.random.default_rng(seed)
    shapes = (rows, heads, dim), (rows, heads, dim, keys), (rows, heads, keys, dim)
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


def masks(rows, keys, seed=0):
    """A row that sees the first keys, one that sees some anywhere, one that sees all, one that sees none."""
    some = np.random.default_rng(seed).integers(0, 2, (rows, keys)).astype(np.int32)
    some[0] = np.arange(keys) < (keys + 1) // 2
    some[-2] = 1
    some[-1] = 0
    return some


@compiled
@pytest.mark.parametrize("dim", [1, 16, 36, 52, 64, 100, 128, 160])
@pytest.mark.parametrize("keys", [1, 2, 15, 16, 17, 95, 601])
def test_kernel_equals_the_definition_in_fp64(keys, dim):
    query, key, value = draw(5, keys, dim=dim)
    mask, scale = masks(5, keys), dim**-0.5
    scores = np.einsum("rhd,rhdk->rhk", query.astype(np.float64), key) * scale
    weights = np.exp(scores - scores.max(axis=2, keepdims=True)) * mask[:, None]
    weights /= np.maximum(weights.sum(axis=2, keepdims=True), 1e-300)
    right = np.einsum("rhk,rhkd->rhd", weights, value)
    for function in (kernel, plain):
        found = jax.jit(functools.partial(function, scale=scale))(query, key, value, mask)
        np.testing.assert_allclose(found, right, rtol=0, atol=5e-6)


@compiled
def test_what_a_row_does_not_see_changes_no_bit_even_if_it_is_not_finite():
    query, key, value = draw(4, 70)
    mask = masks(4, 70)
    before = kernel(query, key, value, mask, 0.2)
    gone = mask == 0
    key = np.where(gone[:, None, None], np.nan, key)
    value = np.where(gone[:, None, :, None], np.nan, value)
    after = np.asarray(kernel(query, key, value, mask, 0.2))
    np.testing.assert_array_equal(before, after)
    assert (after[-1] == 0).all()


@compiled
def test_a_row_is_the_same_alone_and_beside_others_to_the_bit():
    arrays, mask = draw(5, 90), masks(5, 90)
    together = kernel(*arrays, mask, 0.2)
    for row in range(5):
        one = slice(row, row + 1)
        np.testing.assert_array_equal(together[one], kernel(*[x[one] for x in arrays], mask[one], 0.2))


def test_no_key_gives_zeros_and_one_mask_may_serve_all_rows():
    query, key, value = draw(3, 10)
    one = jnp.asarray([[0, 1, 1, 0, 0, 0, 0, 0, 0, 0]])
    each = jnp.repeat(one, 3, axis=0)
    found = recall(query, key, value, one, scale=0.2)
    np.testing.assert_array_equal(found, recall(query, key, value, each, scale=0.2))
    assert (np.asarray(recall(query, key, value, 0 * each, scale=0.2)) == 0).all()


def test_bfloat16_stays_what_it_is():
    query, key, value = (jnp.asarray(x, jnp.bfloat16) for x in draw(2, 10))
    mask = jnp.ones((2, 10), jnp.int32)
    found = recall(query, key, value, mask, scale=0.2)
    assert found.dtype == jnp.bfloat16
    right = plain(*(x.astype(jnp.float32) for x in (query, key, value)), mask, 0.2)
    np.testing.assert_allclose(found.astype(jnp.float32), right, rtol=0.01, atol=0.01)
