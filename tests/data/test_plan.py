"""The batch plan: everything exactly once, nothing where it does not fit, the same for everyone, little padding."""

import pickle
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from jaxspeech.data.plan import Schedule, shapes_for
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.errors import UserError

STRIDE = 384


def laws(n: int, seed: int = 0) -> dict[str, Lengths]:
    """Two laws of lengths: LibriSpeech-like (mean 12.7 s), and a third each of that, short reading, conversation."""
    rng = np.random.default_rng(seed)

    def read(n):
        slow = rng.random(n) < 0.55
        return np.clip(np.where(slow, rng.normal(14.6, 1.2, n), 1 + rng.gamma(3.2, 2.9, n)), 1.2, 35)

    third = n // 3
    short = np.clip(rng.lognormal(np.log(5.0), 0.32, third), 1.2, 20)
    talk = np.clip(rng.lognormal(np.log(3.6), 0.75, third), 0.6, 30)
    seconds = {"read": read(n), "mix": np.concatenate([read(n - 2 * third), short, talk])}
    rate = np.clip(rng.normal(3.3, 0.5, n), 1, 8)  # tokens a second
    return {
        name: Lengths(np.rint(s * 16_000).astype(np.int64), (2 + rng.poisson(s * rate)).astype(np.int32))
        for name, s in seconds.items()
    }


def section(**changes) -> ConfigDict:
    """A `data` section."""
    keys = dict(
        batching="buckets",
        shapes=16,
        batch_seconds=600.0,
        batch_rows=0,
        row_multiple=8,
        row_seconds=64.0,
        row_segments=16,
    )
    return ConfigDict(keys | changes)


def schedule_of(lengths: Lengths, batching: str = "buckets", **options) -> Schedule:
    """A schedule with small batches."""
    kept = options.pop("kept", np.arange(len(lengths)))
    data = section(batching=batching, shapes=4, batch_seconds=80.0, row_multiple=2, row_seconds=36.0, row_segments=6)
    return Schedule(shapes_for(data, lengths, kept), lengths, kept, **options)


def assert_sound(plan, lengths):
    """Starts, rows and shapes agree, and every utterance fits where it lies."""
    assert plan.starts[0] == 0
    assert plan.starts[-1] == len(plan.records) == len(plan.rows)
    assert len(plan.starts) == len(plan) + 1
    for i in range(len(plan)):
        shape, records, rows = plan.batch(i)
        assert len(records) > 0
        assert rows.min() == 0
        assert rows.max() < shape.rows
        assert (np.diff(rows) >= 0).all()
        assert (np.diff(rows) <= 1).all()  # empty rows are at the end
        held = lengths[records]
        assert np.bincount(rows).max() <= shape.segments
        assert (
            np.bincount(rows, weights=-(-held.audio // STRIDE) * STRIDE).max() <= -(-shape.samples // STRIDE) * STRIDE
        )
        assert np.bincount(rows, weights=held.text).max() <= shape.tokens
        assert held.audio.max() <= shape.samples


corpora = st.integers(1, 400).flatmap(
    lambda n: st.builds(
        lambda seed: Lengths(
            np.random.default_rng(seed).integers(1_600, 560_000, n), np.random.default_rng(seed + 1).integers(0, 200, n)
        ),
        st.integers(0, 1000),
    )
)
batchings = st.sampled_from(["buckets", "packed"])


@settings(max_examples=40, deadline=None)
@given(corpora, batchings, st.integers(-5, 2**40), st.integers(0, 5))
def test_every_utterance_is_seen_exactly_once_an_epoch_where_it_fits(lengths, batching, seed, epoch):
    plan = schedule_of(lengths, batching, seed=seed).plan(epoch)
    assert sorted(plan.records.tolist()) == list(range(len(lengths)))
    assert_sound(plan, lengths)


@settings(max_examples=30, deadline=None)
@given(corpora, batchings, st.integers(0, 100))
def test_all_epochs_have_equally_many_batches(lengths, batching, seed):
    schedule = schedule_of(lengths, batching, seed=seed)
    assert {len(schedule.plan(epoch)) for epoch in (3, 1, 7, 0)} == {len(schedule)}


@settings(max_examples=20, deadline=None)
@given(corpora, batchings)
def test_no_batch_but_the_partial_ones_has_empty_rows_and_these_are_few(lengths, batching):
    plan = schedule_of(lengths, batching).plan(0)
    empty = np.array([plan.batch(i)[0].rows - len(np.unique(plan.batch(i)[2])) for i in range(len(plan))])
    rows = np.array([plan.batch(i)[0].rows for i in range(len(plan))])
    assert (empty > 0).sum() <= 2
    if len(plan) >= 2 and batching == "packed":
        assert (empty <= rows / 2).all()  # none is nearly empty: each is a step of its own


def test_epochs_differ_and_seeds_differ_and_the_same_is_the_same():
    lengths = laws(2000)["mix"]
    for batching in ("buckets", "packed"):
        schedule = schedule_of(lengths, batching, seed=1)
        first, second = schedule.plan(0), schedule.plan(1)
        again = schedule_of(lengths, batching, seed=1).plan(1)
        other = schedule_of(lengths, batching, seed=2).plan(1)
        for name in ("records", "rows", "starts", "batch_shape"):
            assert np.array_equal(getattr(second, name), getattr(again, name))
        assert not np.array_equal(first.records, second.records)
        assert not np.array_equal(second.records, other.records)
        # Whom an utterance shares a batch with changes too, not only the order of the batches.
        batch_of = [np.repeat(np.arange(len(p)), np.diff(p.starts))[np.argsort(p.records)] for p in (first, second)]
        together = [b[:-1] == b[1:] for b in batch_of]
        assert not np.array_equal(*together)


def test_a_known_plan_stays_the_same():
    # A run that resumes under a newer NumPy must find the plan that it began with.
    lengths = Lengths(np.arange(1, 9) * 16_000, np.full(8, 5, np.int32))
    plan = Schedule((Shape(2, 64_128, 5), Shape(2, 128_256, 5)), lengths, np.arange(8), seed=7).plan(3)
    assert plan.records.tolist() == [5, 7, 4, 6, 3, 2, 1, 0]


@settings(max_examples=15, deadline=None)
@example(Lengths(np.array([476_588]), np.array([94])), "packed", 3, 0.4)  # an epoch without anyone
@given(corpora, batchings, st.integers(0, 60), st.sampled_from([None, 0.4, 1.7]))
def test_locating_a_step_equals_walking_there(lengths, batching, step, weight):
    weights = None if weight is None else np.full(len(lengths), weight)
    make = lambda: schedule_of(lengths, batching, weights=weights)  # noqa: E731
    walked, epoch = [], 0
    schedule = make()
    while len(walked) <= step:
        plan = schedule.plan(epoch)
        walked += [(epoch, i) for i in range(len(plan))]
        epoch += 1
    plan, batch = make().locate(step)
    assert (plan.epoch, batch) == walked[step]


@pytest.mark.parametrize("batching", ["buckets", "packed"])
def test_a_step_far_ahead_is_located_without_a_plan_of_any_epoch_before_its_own(monkeypatch, batching):
    schedule = schedule_of(laws(20_000)["mix"], batching)
    schedule.locate(0)
    made = []
    monkeypatch.setattr(schedule, "plan", lambda epoch: made.append(epoch) or Schedule.plan(schedule, epoch))
    plan, _ = schedule.locate(10**9)
    assert plan.epoch == 10**9 // len(schedule)
    assert made == [plan.epoch]


def test_a_pickled_schedule_makes_the_same_plans():
    lengths = laws(500)["mix"]
    schedule = schedule_of(lengths, seed=3)
    schedule.plan(0)
    copy = pickle.loads(pickle.dumps(schedule))
    assert np.array_equal(schedule.plan(4).records, copy.plan(4).records)


@pytest.mark.parametrize("batching", ["buckets", "packed"])
def test_weights_are_how_often_a_record_is_seen(batching):
    lengths = laws(900)["mix"]
    weights = np.repeat([2.0, 1.0, 0.3], 300)
    schedule = schedule_of(lengths, batching, weights=weights)
    seen = np.zeros((20, 900), int)
    for epoch in range(20):
        plan = schedule.plan(epoch)
        assert_sound(plan, lengths)
        seen[epoch] = np.bincount(plan.records, minlength=900)
    assert (seen[:, :300] == 2).all()
    assert (seen[:, 300:600] == 1).all()
    rare = seen[:, 600:]
    assert rare.max() == 1
    assert (rare.sum(0) == 6).all()  # over 20 epochs all equally often
    assert np.abs(rare.sum(1) - 90).max() <= 4  # and in every epoch nearly as many
    assert len({row.tobytes() for row in rare}) > 5  # but not the same ones


def test_a_weight_of_zero_is_never_seen():
    lengths = laws(300)["mix"]
    weights = np.where(np.arange(300) < 100, 0.0, 1.0)
    assert sorted(schedule_of(lengths, weights=weights).plan(0).records.tolist()) == list(range(100, 300))


def test_records_that_are_not_kept_are_not_planned():
    lengths = laws(300)["mix"]
    kept = np.flatnonzero(lengths.audio < 100_000)
    plan = schedule_of(lengths, kept=kept).plan(0)
    assert sorted(plan.records.tolist()) == kept.tolist()
    assert plan.shapes[-1].samples <= 100_000 + STRIDE


@settings(max_examples=20, deadline=None)
@given(corpora, batchings)
def test_an_evaluation_sees_every_record_once_in_order(lengths, batching):
    data = section(batching=batching, shapes=3, batch_seconds=80.0, row_multiple=1, row_seconds=36.0)
    shapes = shapes_for(data, lengths, np.arange(len(lengths)))
    schedule = Schedule.once(shapes, lengths, np.arange(len(lengths)))
    plan = schedule.plan(0)
    assert sorted(plan.records.tolist()) == list(range(len(lengths)))
    assert_sound(plan, lengths)
    assert schedule.epochs == 1
    assert schedule.locate(len(schedule) - 1)[1] == len(plan) - 1
    with pytest.raises(IndexError):
        schedule.locate(len(schedule))
    if len(shapes) == 1 and batching == "buckets":
        assert plan.records.tolist() == list(range(len(lengths)))


def test_padding_is_what_the_batches_hold():
    lengths = laws(3000)["mix"]
    for batching in ("buckets", "packed"):
        plan = schedule_of(lengths, batching).plan(2)
        area = real = text_area = text = 0
        for i in range(len(plan)):
            shape, records, _ = plan.batch(i)
            area, real = area + shape.rows * shape.samples, real + int(lengths.audio[records].sum())
            text_area, text = text_area + shape.rows * shape.tokens, text + int(lengths.text[records].sum())
        assert plan.padding(lengths) == (pytest.approx(1 - real / area), pytest.approx(1 - text / text_area))
        assert plan.batches_of_shape().sum() == len(plan)


@pytest.mark.parametrize(
    ("law", "batching", "limit"),
    [("read", "buckets", 0.05), ("mix", "buckets", 0.08), ("read", "packed", 0.015), ("mix", "packed", 0.015)],
)
def test_padding_is_small_on_real_length_laws(law, batching, limit):
    lengths = laws(60_000)[law]
    everyone = np.arange(len(lengths))
    shapes = shapes_for(section(batching=batching), lengths, everyone)
    audio, text = Schedule(shapes, lengths, everyone).plan(0).padding(lengths)
    assert len(shapes) <= 16
    assert audio <= limit
    assert text <= 0.45


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["buckets", "packed"])
def test_a_million_utterances_are_planned_in_ten_seconds(batching):
    lengths = laws(1_000_000)["mix"]
    everyone = np.arange(len(lengths))
    began = time.perf_counter()
    shapes = shapes_for(section(batching=batching), lengths, everyone)
    plan = Schedule(shapes, lengths, everyone).plan(0)
    assert time.perf_counter() - began < 10
    assert len(plan.records) == 1_000_000


def test_what_fits_no_shape_is_refused():
    lengths = Lengths(np.array([16_000, 32_000]), np.array([5, 5], np.int32))
    with pytest.raises(ValueError, match="record 1 fits no shape"):
        Schedule((Shape(2, 20_000, 5),), lengths, np.arange(2))


def test_an_unknown_batching_is_explained():
    lengths = laws(30)["mix"]
    with pytest.raises(UserError, match="'buckets' or 'packed'"):
        shapes_for(section(batching="bucket"), lengths, np.arange(30))
