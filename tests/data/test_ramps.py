"""Schedules: nothing before the delay, a straight line, then all of it."""

import numpy as np
import pytest

from jaxspeech.data.ramps import Ramp, between


def test_a_ramp_is_a_straight_line_after_its_delay():
    ramp = Ramp(delay=10, length=4)
    assert [ramp(step) for step in (0, 10, 11, 12, 13, 14, 15, 10**12)] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


def test_without_a_length_it_is_a_step_and_without_anything_always_one():
    assert [Ramp(delay=3)(step) for step in (0, 2, 3, 4)] == [0, 0, 1, 1]
    assert Ramp()(0) == 1


def test_where_no_run_counts_steps_every_schedule_is_over():
    assert Ramp(delay=10**9, length=10**9)(None) == 1


@pytest.mark.parametrize(("share", "low", "high"), [(0, 30, 60), (0.5, 15, 45), (1, 0, 30)])
def test_a_range_moves_as_a_whole(share, low, high):
    np.testing.assert_allclose(between((30.0, 60.0), (0.0, 30.0), share), (low, high))
