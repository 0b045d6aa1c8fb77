"""SpecAugment: masks as wide and as many as asked for, within the utterance, from its own bits alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspeech.ops.spec_augment import spec_augment

FRAMES, BINS = 300, 80
LENGTHS = np.array([300, 211, 100, 1], np.int32)
SEEDS = np.array([1, 2, 3, 4], np.uint32)


def masked(rows=LENGTHS, seeds=SEEDS, frames=FRAMES, **options):
    """bool[rows, frames, bins]: what is masked of features that are nowhere 0."""
    features = jnp.ones((len(rows), frames, BINS))
    return np.asarray(jax.jit(lambda x: spec_augment(x, rows, seeds, **options))(features) == 0)


def runs(flags: np.ndarray) -> list[int]:
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


def many(**options):
    """The masks of 200 utterances of full length."""
    return masked(np.full(200, FRAMES, np.int32), np.arange(200, dtype=np.uint32), **options)


def test_bands_are_at_most_as_many_and_as_wide_as_asked_for():
    widths = []
    for mask in many(freq_masks=1, freq_width=20, time_masks=0):
        np.testing.assert_array_equal(mask, np.broadcast_to(mask[0], mask.shape))  # the same bins in every frame
        widths.append(sum(runs(mask[0])))
    assert (min(widths), max(widths)) == (0, 20)
    assert np.mean(widths) == pytest.approx(10, abs=1.5)
    assert max(len(runs(mask[0])) for mask in many(freq_masks=2, freq_width=8, time_masks=0)) == 2


def test_stretches_of_time_are_at_most_as_many_and_as_long_as_asked_for():
    longest = [max(runs(mask[:, 0]), default=0) for mask in many(freq_masks=0, time_masks=1, time_share=0.1)]
    assert max(longest) == 30
    assert np.mean(longest) == pytest.approx(15, abs=2)
    short = many(freq_masks=0, time_masks=1, time_share=0.1, time_width=7)
    assert max(max(runs(mask[:, 0]), default=0) for mask in short) == 7
    assert max(len(runs(mask[:, 0])) for mask in many(freq_masks=0, time_masks=10, time_share=0.03)) > 7


def test_places_are_spread_over_all_bins_and_frames():
    met = many(freq_masks=2, freq_width=20, time_masks=10, time_share=0.03)
    assert met[:, 0].any(0).all()
    assert met[:, :, 0].any(0).all()


def test_masks_of_time_lie_within_the_utterance():
    mask = masked(freq_masks=0, time_masks=10, time_share=0.2)
    for row, length in zip(mask, LENGTHS):
        assert not row[length:].any()
    assert mask[:3].any((1, 2)).all()


def test_masks_depend_on_nothing_but_the_utterance():
    whole = masked()
    np.testing.assert_array_equal(masked(frames=400)[:, :FRAMES], whole)  # its padding
    np.testing.assert_array_equal(masked(LENGTHS[::-1].copy(), SEEDS[::-1].copy())[::-1], whole)  # its row
    np.testing.assert_array_equal(masked(LENGTHS[1:2], SEEDS[1:2])[0], whole[1])  # its neighbours
    assert not np.array_equal(masked(seeds=SEEDS + np.uint32(9)), whole)


def test_what_is_masked_is_filled_and_nothing_else_is_touched():
    features = np.random.default_rng(0).normal(5, 1, (4, FRAMES, BINS)).astype(np.float32)
    changed = np.asarray(spec_augment(jnp.asarray(features), LENGTHS, SEEDS, fill=-3.0))
    np.testing.assert_array_equal(changed == -3.0, masked())
    np.testing.assert_array_equal(changed[changed != -3.0], features[changed != -3.0])


def test_nothing_asked_for_is_nothing_masked():
    assert not masked(freq_masks=0, time_masks=0).any()
