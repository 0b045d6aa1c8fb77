import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspeech.ops import attention as module
from jaxspeech.ops import attention_chunked, attention_kernels
from jaxspeech.ops import native as kernels
from jaxspeech.ops.attention import attention, choose

HEADS = 2
# Rows: padded, packed with gaps, of nobody, full.
QUERIES = np.array([[1] * 17 + [0] * 6, [1] * 9 + [0] * 2 + [2] * 8 + [3] * 4, [0] * 23, [1] * 23])
KEYS = np.array([[1] * 30 + [0] * 7, [1] * 5 + [0] * 3 + [2] * 20 + [0] * 9, [1] * 37, [1] * 37])  # 3 has no key
ONE = QUERIES.clip(0, 1) * (np.cumsum(QUERIES == 0, axis=1) == 0)


def definition(query, key, value, d_mixed, query_segments, key_segments, causal):
    """Attention and its gradients in numpy and fp64, row by row and head by head."""
    outputs = [np.zeros(x.shape) for x in (d_mixed, query, key, value)]
    scale = query.shape[-1] ** -0.5
    for row in range(query.shape[0]):
        mask = (query_segments[row][:, None] == key_segments[row]) & (query_segments[row] > 0)[:, None]
        if causal:
            mask &= np.tril(np.ones(mask.shape, bool))
        some = mask.any(axis=1)
        for head in range(query.shape[2]):
            q, k, v, dy = (x[row, :, head].astype(np.float64) for x in (query, key, value, d_mixed))
            scores = np.where(mask, scale * q @ k.T, -np.inf)[some]
            weights = np.zeros(mask.shape)
            weights[some] = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights[some] /= weights[some].sum(axis=1, keepdims=True)
            d_weights = dy @ v.T
            d_scores = weights * (d_weights - (weights * d_weights).sum(axis=1, keepdims=True)) * scale
            for output, result in zip(outputs, (weights @ v, d_scores @ k, d_scores.T @ q, weights.T @ dy)):
                output[row, :, head] = result
    return outputs


def arrays(dim, dtype=np.float32, seed=0):
    draw = np.random.default_rng(seed).normal
    rows, queries, keys = len(QUERIES), QUERIES.shape[1], KEYS.shape[1]
    # Queries and keys large enough for a peaked softmax.
    self_attention = [2 * draw(size=(rows, queries, HEADS, dim)).astype(dtype) for _ in range(4)]
    cross = [draw(size=(rows, n, HEADS, dim)).astype(dtype) for n in (queries, keys, keys, queries)]
    return self_attention, cross


def with_gradients(query, key, value, d_mixed, segments, key_segments, **options):
    def mix(query, key, value):
        return attention(query, key, value, query_segments=segments, key_segments=key_segments, **options)

    mixed, backward = jax.vjp(mix, query, key, value)
    return mixed, *backward(d_mixed)


def errors(implementation, dim, segments=QUERIES, dtype=jnp.float32, packed=True):
    """Largest errors against the definition, relative to its largest number, of values and gradients of each case."""
    own, cross = arrays(dim)
    options = {"implementation": implementation, "packed": packed}
    cross_keys = KEYS if packed else KEYS.clip(0, 1) * (np.cumsum(KEYS == 0, axis=1) == 0)

    @jax.jit
    def all_three(own, cross):
        return [
            with_gradients(*own, segments, None, causal=False, **options),
            with_gradients(*own, segments, None, causal=True, **options),
            with_gradients(*cross, segments, cross_keys, causal=False, **options),
        ]

    ours = all_three(*jax.tree.map(lambda x: jnp.asarray(x, dtype), (own, cross)))
    theirs = [
        definition(*own, segments, segments, False),
        definition(*own, segments, segments, True),
        definition(*cross, segments, cross_keys, False),
    ]
    found_errors = {}
    for case, (found, expected) in enumerate(zip(ours, theirs)):
        for name, a, b in zip(("mixed", "query", "key", "value"), found, expected):
            error = np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()
            found_errors[f"{name} of case {case}"] = float(np.nan_to_num(error, nan=np.inf))
    return found_errors


def slow(*values):
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


NATIVE = pytest.param(
    "native", marks=pytest.mark.skipif(not kernels.load(), reason="not compiled: python -m jaxspeech.ops.native")
)


@pytest.mark.parametrize("dim", [36, 52, 64, 128])
@pytest.mark.parametrize("implementation", ["xla", "chunked", NATIVE])
def test_values_and_gradients_equal_the_definition(implementation, dim):
    assert max(errors(implementation, dim).values()) <= 1e-5


def test_the_reference_equals_the_definition():
    assert max(errors("reference", 36).values()) <= 1e-5


@pytest.mark.parametrize("block", [100, 400])  # less than one head's scores; two heads of four rows
def test_blocks_of_any_size_give_the_same(monkeypatch, block):
    monkeypatch.setattr(attention_chunked, "BLOCK", block)
    assert max(errors("chunked", 36).values()) <= 1e-5


@pytest.mark.parametrize("dim", [36, *slow(52, 64)])
def test_the_segment_kernel_equals_the_definition(dim):
    assert max(errors("pallas", dim).values()) <= 1e-5


@pytest.mark.parametrize("dim", [36, 52, *slow(64, 128)])
def test_padding_for_cudnn_is_exact(monkeypatch, dim):
    monkeypatch.setitem(module.IMPLEMENTATIONS, "cudnn", functools.partial(attention_kernels.cudnn, backend="xla"))
    assert max(errors("cudnn", dim, segments=ONE, packed=False).values()) <= 1e-5


@pytest.mark.parametrize("implementation", ["xla", "chunked"])
def test_bfloat16_is_as_good_as_bfloat16_can_be(implementation):
    assert max(errors(implementation, 36, dtype=jnp.bfloat16).values()) <= 3e-2


@pytest.mark.parametrize("implementation", ["xla", "chunked", "pallas", NATIVE])
def test_nothing_leaks_across_segments(implementation):
    (query, key, value, d_mixed), _ = arrays(36)
    first, second = QUERIES[1] == 1, QUERIES[1] == 2
    disturbed = [x.copy() for x in (query, key, value, d_mixed)]
    for x in disturbed:
        x[:, first] = 100 * x[:, first] + 1

    @jax.jit
    def run(*arguments):
        options = {"implementation": implementation}
        both = [with_gradients(*arguments, QUERIES, None, causal=causal, **options) for causal in (False, True)]
        return both[0] + both[1]

    for a, b in zip(run(query, key, value, d_mixed), run(*disturbed)):
        np.testing.assert_array_equal(a[1, second], b[1, second])
        assert (a[1, first] != b[1, first]).any()


def test_the_platform_and_the_shapes_choose():
    def pick(platform, length, dtype=jnp.bfloat16, **options):
        x = jax.ShapeDtypeStruct((1, length, 8, 36), dtype)
        return choose(platform, x, x, **options)

    assert pick("cpu", 100, packed=False, cross=False) == "chunked"
    assert pick("cpu", 100, jnp.float32, packed=False, cross=False) == ("native" if kernels.load() else "chunked")
    assert pick("gpu", 2000, packed=False, cross=True) == "cudnn"
    assert pick("gpu", 2000, packed=True, cross=False) == "pallas"
    assert pick("gpu", 2000, packed=True, cross=True) == "chunked"
    assert pick("gpu", 500, jnp.float32, packed=False, cross=False) == "xla"
    assert pick("gpu", 2000, jnp.float32, packed=False, cross=False) == "chunked"
    assert pick("tpu", 500, packed=True, cross=False) == "xla"


def test_what_an_implementation_cannot_do_is_refused():
    x = jnp.zeros((1, 4, 1, 8))
    ids = jnp.ones((1, 4), jnp.int32)
    with pytest.raises(ValueError, match="one segment a row"):
        attention(x, x, x, query_segments=ids, implementation="cudnn")
    with pytest.raises(ValueError, match="flash"):
        attention(x, x, x, query_segments=ids, implementation="flash")
