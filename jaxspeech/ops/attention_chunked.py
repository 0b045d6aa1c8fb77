"""Attention in blocks that fit a core's cache: the matrix of scores is never whole, forward or backward.

The forward pass keeps one number a query, the logarithm of its softmax's denominator; the backward pass computes the
scores of a block again from it (Dao et al. 2022, arXiv 2205.14135). On a CPU this is the fast way as well: the scores
of a block stay in cache, where the written-out form spends its time on memory.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Scores of a block: 2 MiB in fp32, about what the second-level caches of two cores hold.
BLOCK = 2**19
_MASKED = -1e30  # a score that is not seen
_FLOOR = -1e20  # what a query without any key takes as its largest score: exp(_MASKED - _FLOOR) is 0


class _Blocks(NamedTuple):
    """How many rows, heads and queries go through at a time; the first two divide theirs, the last is padded to."""

    rows: int
    heads: int
    queries: int


def _blocks(rows: int, heads: int, queries: int, keys: int) -> _Blocks:
    """The largest that fit `BLOCK`, with scores of two rows or heads at least: one for each of two cores."""
    length = math.ceil(queries / math.ceil(2 * queries * keys / BLOCK))
    # Where there are several devices, rows and heads may be sharded: a loop over them would fetch all to each.
    if jax.sharding.get_abstract_mesh().size > 1:
        return _Blocks(rows, heads, length)

    def divisor(total: int, most: int) -> int:
        return max(n for n in range(1, total + 1) if total % n == 0 and n <= max(most, 1))

    fits = max(BLOCK // (length * keys), 1)
    some = divisor(rows, fits)
    return _Blocks(some, divisor(heads, fits // some), length)


def chunked(query, key, value, query_segments, key_segments, causal, scale):
    """See `attention.attention`."""
    rows, queries, heads, _ = query.shape
    blocks = _blocks(rows, heads, queries, key.shape[1])
    pad = -queries % blocks.queries
    query = jnp.pad(query, ((0, 0), (0, pad), (0, 0), (0, 0)))
    query_segments = jnp.pad(query_segments, ((0, 0), (0, pad)))
    return _attend((causal, scale, blocks), query, key, value, query_segments, key_segments)[:, :queries]


def _over_rows_and_heads(blocks: _Blocks, function: Callable, by_head: tuple, by_row: tuple):
    """`function(*by_head, *by_row)` of a block of rows and heads at a time.

    Args:
        by_head: arrays [rows, time, heads, dim]; `function` takes and gives them as [rows, heads, time, dim].
        by_row: arrays [rows, time].
    """
    rows, _, heads, _ = by_head[0].shape

    def of(row, head, by_row):
        parts = by_head
        if blocks.rows < rows or blocks.heads < heads:
            parts = tuple(
                jax.lax.dynamic_slice(x, (row, 0, head, 0), (blocks.rows, x.shape[1], blocks.heads, x.shape[3]))
                for x in by_head
            )
        results = function(*(x.swapaxes(1, 2) for x in parts), *by_row)
        return tuple(x.swapaxes(1, 2) for x in results)

    shapes = jax.eval_shape(lambda: of(0, 0, tuple(x[: blocks.rows] for x in by_row)))
    if blocks.rows == rows and blocks.heads == heads:
        return of(0, 0, by_row)

    def of_rows(number, whole):
        row = number * blocks.rows
        # Sliced here, not in the loop over heads: there the slice would become part of the mask, score by score.
        mine = tuple(jax.lax.dynamic_slice_in_dim(x, row, blocks.rows) for x in by_row)

        def of_heads(number, whole):
            head = number * blocks.heads
            results = of(row, head, mine)
            return tuple(jax.lax.dynamic_update_slice(x, y, (row, 0, head, 0)) for x, y in zip(whole, results))

        return jax.lax.fori_loop(0, heads // blocks.heads, of_heads, whole)

    empty = tuple(jnp.zeros((rows, x.shape[1], heads, x.shape[3]), x.dtype) for x in shapes)
    return jax.lax.fori_loop(0, rows // blocks.rows, of_rows, empty)


def _seen(causal: bool, first: jax.Array | int, query_segments: jax.Array, key_segments: jax.Array) -> jax.Array:
    """Mask [rows, 1, queries, keys] of a block whose first query is number `first` of its row."""
    mask = (query_segments[:, :, None] == key_segments[:, None, :]) & (key_segments > 0)[:, None, :]
    if causal:
        row = first + jnp.arange(query_segments.shape[1])
        mask &= row[:, None] >= jnp.arange(key_segments.shape[1])
    return mask[:, None]


def _transposed(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(static, query, key, value, query_segments, key_segments):
    """Arguments as those of `chunked`; queries are whole blocks."""
    return _forward(static, query, key, value, query_segments, key_segments)[0]


def _forward(static, query, key, value, query_segments, key_segments):
    causal, scale, blocks = static

    def block(part, key, summed, key_segments):
        first, query, segments = part
        scores = _product("bhtd,bhsd->bhts", query, key) * scale
        scores = jnp.where(_seen(causal, first, segments, key_segments), scores, _MASKED)
        top = jnp.maximum(jnp.max(scores, axis=-1, keepdims=True), _FLOOR)
        weights = jnp.exp(scores - top).astype(summed.dtype)
        mixed = _product("bhts,bhsd->bhtd", weights, summed)
        total = mixed[..., -1:]
        total = jnp.where(total == 0, 1, total)
        return (mixed[..., :-1] / total).astype(query.dtype), top + jnp.log(total)

    def group(query, key, value, segments, key_segments):
        # A column of ones beside the values sums the weights in the same product.
        summed = jnp.concatenate([value, jnp.ones_like(value[..., :1])], axis=-1)
        count = query.shape[2] // blocks.queries
        if count == 1:
            return block((0, query, segments), key, summed, key_segments)
        parts = (jnp.arange(count) * blocks.queries, _split(query, count, 2), _split(segments, count, 1))
        mixed, normaliser = jax.lax.map(lambda part: block(part, key, summed, key_segments), parts)
        return _join(mixed), _join(normaliser)

    by_row = (query_segments, key_segments)
    mixed, normaliser = _over_rows_and_heads(blocks, group, (query, key, value), by_row)
    return mixed, (query, key, value, query_segments, key_segments, mixed, normaliser)


def _backward(static, residuals, d_mixed):
    causal, scale, blocks = static
    query, key, value, query_segments, key_segments, mixed, normaliser = residuals

    # d softmax = weights · (d weights - correction). Summed out here: within a block it would become part of a product.
    correction = jnp.sum(mixed.astype(jnp.float32) * d_mixed.astype(jnp.float32), axis=-1, keepdims=True)

    # Of each product the operand order below is the one that needs no transposed copy of the scores.
    def block(part, key, value, key_segments):
        first, query, d_mixed, correction, normaliser, segments = part
        scores = _product("bhtd,bhsd->bhts", query, key) * scale
        scores = jnp.where(_seen(causal, first, segments, key_segments), scores, _MASKED)
        weights = jnp.exp(scores - normaliser)
        d_scores = weights * (_product("bhtd,bhsd->bhts", d_mixed, value) - correction) * scale
        weights, d_scores = weights.astype(query.dtype), d_scores.astype(query.dtype)
        d_query = _product("bhts,bhsd->bhtd", d_scores, key)
        d_key = _product("bhdt,bhts->bhds", _transposed(query), d_scores)
        d_value = _product("bhdt,bhts->bhds", _transposed(d_mixed), weights)
        return d_query.astype(query.dtype), d_key, d_value

    def group(query, d_mixed, correction, normaliser, key, value, segments, key_segments):
        count = query.shape[2] // blocks.queries
        over_queries = (query, d_mixed, correction, normaliser)
        if count == 1:
            d_query, d_key, d_value = block((0, *over_queries, segments), key, value, key_segments)
        else:

            def add(sums, part):
                d_query, *d_sums = block(part, key, value, key_segments)
                return jax.tree.map(jnp.add, sums, tuple(d_sums)), d_query

            zero = jnp.zeros(_transposed(key).shape, jnp.float32)
            split = (_split(x, count, 2) for x in over_queries)
            parts = (jnp.arange(count) * blocks.queries, *split, _split(segments, count, 1))
            (d_key, d_value), d_query = jax.lax.scan(add, (zero, zero), parts)
            d_query = _join(d_query)
        return d_query, _transposed(d_key).astype(key.dtype), _transposed(d_value).astype(value.dtype)

    by_head, by_row = (query, d_mixed, correction, normaliser, key, value), (query_segments, key_segments)
    none = np.zeros(query_segments.shape, jax.dtypes.float0), np.zeros(key_segments.shape, jax.dtypes.float0)
    return *_over_rows_and_heads(blocks, group, by_head, by_row), *none


_attend.defvjp(_forward, _backward)


def _split(x: jax.Array, count: int, axis: int) -> jax.Array:
    """An axis in `count` parts, which become the leading axis."""
    return jnp.moveaxis(x.reshape(*x.shape[:axis], count, -1, *x.shape[axis + 1 :]), axis, 0)


def _join(x: jax.Array) -> jax.Array:
    """[blocks, rows, heads, length, …] → [rows, heads, queries, …]"""
    x = jnp.moveaxis(x, 0, 2)
    return x.reshape(*x.shape[:2], -1, *x.shape[4:])
