import os
import pathlib
import shutil
import stat
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspeech.errors import UserError
from jaxspeech.ops import attention_native, native
from jaxspeech.ops.attention import attention, choose, reference

compiled = pytest.mark.skipif(not native.load(), reason="not compiled: python -m jaxspeech.ops.native")
compiler = pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")


def make(cache, **environment):
    """`python -m jaxspeech.ops.native` with an empty cache."""
    full = {**os.environ, "XDG_CACHE_HOME": str(cache), **environment}
    command = [sys.executable, "-m", "jaxspeech.ops.native"]
    return subprocess.run(command, env=full, capture_output=True, text=True, timeout=300)


def kept(cache):
    return [path for path in cache.rglob("*") if path.is_file()]


@compiler
def test_kernels_are_compiled_once(tmp_path):
    first = make(tmp_path)
    assert first.returncode == 0, first.stderr
    (path,) = kept(tmp_path)
    assert first.stdout == f"compiled: {path}\n"
    assert make(tmp_path).stdout == f"compiled before: {path}\n"


def test_without_a_compiler_one_line_says_so(tmp_path):
    done = make(tmp_path, CXX="no-such-compiler")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no C++ compiler: CXX=no-such-compiler is not a program;")
    assert done.stderr.count("\n") == 1


# A compiler that gets one number wrong: softmax of half the score; the last three keys' values left out.
@compiler
@pytest.mark.parametrize(
    ("source", "right", "wrong"),
    [
        ("attention.cc", "Exp(Load(line + j) - Fill(top))", "Exp(0.5f * (Load(line + j) - Fill(top)))"),
        ("recall.cc", "j < count; ++j) {", "j < count - 3; ++j) {"),
    ],
)
def test_kernels_that_compute_something_else_are_not_kept(tmp_path, source, right, wrong):
    text = (pathlib.Path(native.__file__).parent / source).read_text()
    assert right in text
    (tmp_path / source).write_text(text.replace(right, wrong))
    program = tmp_path / "c++"
    program.write_text(f'#!/bin/sh\nexec c++ $(echo "$@" | sed "s|[^ ]*{source}|{tmp_path}/{source}|")\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    done = make(tmp_path / "cache", CXX=str(program))
    assert done.returncode == 2
    assert "wrong by" in done.stderr
    assert "not kept" in done.stderr
    assert not kept(tmp_path / "cache")


def test_where_they_are_not_compiled_nothing_needs_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "load", native.load.__wrapped__)
    x, ids = jnp.ones((1, 4, 1, 8)), jnp.ones((1, 4), jnp.int32)
    assert choose("cpu", x, x, packed=False, cross=False) == "chunked"
    assert attention(x, x, x, query_segments=ids).shape == x.shape
    with pytest.raises(UserError, match=r"python -m jaxspeech\.ops\.native"):
        attention(x, x, x, query_segments=ids, implementation="native")


@compiled
def test_only_fp32_on_one_device_is_for_them():
    x = jnp.ones((1, 4, 1, 8))
    assert attention_native.fits(x)
    assert not attention_native.fits(x.astype(jnp.bfloat16))
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((2,), ("data",))):
        assert not attention_native.fits(x)
    ids = jnp.ones((1, 4), jnp.int32)
    with pytest.raises(UserError, match="float32, not bfloat16"):
        attention(*[x.astype(jnp.bfloat16)] * 3, query_segments=ids, implementation="native")


def both(implementation, arrays, segments, causal):
    """Values and gradients of self-attention."""

    @jax.jit
    def run(query, key, value, d_mixed):
        def mix(*arrays):
            return implementation(*arrays, segments, segments, causal, 0.3)

        mixed, backward = jax.vjp(mix, query, key, value)
        return mixed, *backward(d_mixed)

    return run(*arrays)


def draw(rows, length, heads=2, dim=36, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal((rows, length, heads, dim)).astype(np.float32) for _ in range(4)]


# Around the ends of blocks of queries (64 and fewer), of steps of keys (16) and of tiles.
@compiled
@pytest.mark.parametrize("length", [1, 7, 16, 63, 65, 200, 1041, 2100])
@pytest.mark.parametrize("causal", [False, True])
def test_any_length_equals_the_definition(length, causal):
    arrays = draw(1, length)
    segments = (1 + np.arange(length)[None] * 3 // length).astype(np.int32)  # three, packed
    segments[:, length - length // 5 :] = 0
    with jax.enable_x64():
        doubles = [x.astype(np.float64) for x in arrays]
        expected = jax.device_get(both(reference, doubles, segments, causal))
    for found, right in zip(both(attention_native.native, arrays, segments, causal), expected):
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-5 * max(np.abs(right).max(), 1))


@compiled
def test_a_row_is_the_same_alone_and_beside_others_to_the_bit():
    arrays, segments = draw(5, 90), np.ones((5, 90), np.int32)
    together = both(attention_native.native, arrays, segments, False)
    for row in range(5):
        alone = both(attention_native.native, [x[row : row + 1] for x in arrays], segments[:1], False)
        for a, b in zip(together, alone):
            np.testing.assert_array_equal(a[row], b[0])


@compiled
def test_padding_changes_no_bit_even_if_it_is_not_finite():
    arrays, segments = draw(2, 100), np.ones((2, 100), np.int32)
    padded = [np.pad(x, ((0, 0), (0, 60), (0, 0), (0, 0)), constant_values=np.nan) for x in arrays]
    wide = np.pad(segments, ((0, 0), (0, 60)))
    for a, b in zip(
        both(attention_native.native, arrays, segments, False), both(attention_native.native, padded, wide, False)
    ):
        np.testing.assert_array_equal(a, b[:, :100])
        assert (np.asarray(b[:, 100:]) == 0).all()


@compiled
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows(bad):
    (query, *others), segments = draw(1, 40), np.ones((1, 40), np.int32)
    query[0, 3, 1, 5] = bad
    mixed, _, d_key, _ = map(np.asarray, both(attention_native.native, [query, *others], segments, False))
    wrong = ~np.isfinite(mixed).all(axis=3)[0]
    assert wrong[3, 1]
    assert wrong.sum() == 1
    assert not np.isfinite(d_key[0, :, 1]).any()


@compiled
@pytest.mark.parametrize(("size", "tolerance"), [(1e-4, 1e-5), (30.0, 1e-4), (1e4, 0.03)])
def test_scores_of_any_size_are_a_softmax(size, tolerance):
    (query, *others), segments = draw(1, 50), np.ones((1, 50), np.int32)
    arrays = [size * query, *others]
    # A weight is exp(a difference of scores), which fp32 has to a 1e-7th of the scores: of the largest, to 0.01.
    tolerances = [tolerance, tolerance, tolerance * max(size, 1), tolerance]
    expected = both(reference, arrays, segments, False)
    for found, right, error in zip(both(attention_native.native, arrays, segments, False), expected, tolerances):
        np.testing.assert_allclose(found, right, rtol=0, atol=error)


@compiled
def test_vmap_is_a_loop():
    arrays, segments = draw(6, 20), np.ones((3, 20), np.int32)
    halves = [x.reshape(2, 3, *x.shape[1:]) for x in arrays]
    mapped = jax.vmap(lambda *a: jnp.stack(both(attention_native.native, a, segments, True)))(*halves)
    for i in range(2):
        one = both(attention_native.native, [x[i] for x in halves], segments, True)
        np.testing.assert_array_equal(mapped[i], jnp.stack(one))
