"""The pipeline: the same batches whoever loads them, from any step, and no bad file goes unnoticed."""

import json
import os

import numpy as np
import pytest
from tones import Task, Tones, schedule_of, take

from jaxspeech.data import audio, pipeline
from jaxspeech.data.manifest import Collection
from jaxspeech.data.plan import Schedule
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.errors import UserError


def assert_same(left: list[pipeline.HostBatch], right: list[pipeline.HostBatch]) -> None:
    assert [b.index for b in left] == [b.index for b in right]
    for one, other in zip(left, right):
        for name in ("audio", "audio_length"):
            assert one.arrays[name].dtype == other.arrays[name].dtype
            assert np.array_equal(one.arrays[name], other.arrays[name])
        assert np.array_equal(one.records, other.records)
        assert np.array_equal(one.rows, other.rows)
        same = ("epoch", "shape", "segments", "failures", "audio_seconds", "padding")
        assert all(getattr(one, name) == getattr(other, name) for name in same)


@pytest.fixture(scope="module")
def of_two_workers() -> list[pipeline.HostBatch]:
    tones = Tones()
    tones.broken = (7,)
    return take(task=Task(failing=("u11", "u30")), tones=tones, workers=2, threads=2)


@pytest.fixture(scope="module")
def of_threads() -> list[pipeline.HostBatch]:
    tones = Tones()
    tones.broken = (7,)
    return take(task=Task(failing=("u11", "u30")), tones=tones)


def test_worker_processes_give_the_same_arrays_as_threads(of_two_workers, of_threads):
    assert_same(of_two_workers, of_threads)
    processes = {int(b.arrays["process"][0]) for b in of_two_workers}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_workers_start_no_backend(of_two_workers):
    assert {int(b.arrays["backends"].max()) for b in of_two_workers} == {0}


def test_arrays_of_workers_are_plain_memory(of_two_workers):
    for batch in of_two_workers:
        for array in (*batch.arrays.values(), batch.records, batch.rows):
            assert type(array) is np.ndarray
            assert array.flags.owndata


@pytest.mark.slow
def test_five_workers_give_the_same_arrays_as_threads(of_threads):
    tones = Tones()
    tones.broken = (7,)
    assert_same(take(task=Task(failing=("u11", "u30")), tones=tones, workers=5), of_threads)


@pytest.mark.parametrize("options", [dict(threads=1, prefetch=1), dict(threads=7, prefetch=3), dict(prefetch=100)])
def test_the_number_of_threads_changes_nothing(options):
    assert_same(take(**options), take())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("start", [1, 5, 23])
def test_resuming_at_a_step_equals_the_tail_of_the_whole(packed, start):
    assert_same(take(30 - start, start=start, packed=packed), take(30, packed=packed)[start:])


def test_a_step_far_ahead_is_reached_without_a_record_of_any_step_before_it():
    class Counted(Tones):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    asked: list[int] = []
    (batch,) = take(1, start=10**9, tones=Counted())
    assert batch.index == 10**9
    assert sorted(asked) == sorted(batch.records.tolist())


@pytest.mark.parametrize("packed", [False, True])
def test_an_epoch_holds_every_utterance_once(packed):
    tones = Tones()
    count = len(schedule_of(tones, packed))
    epoch = take(count, start=2 * count, packed=packed, seed=None)
    assert {b.epoch for b in epoch} == {2}
    assert sorted(np.concatenate([b.records for b in epoch]).tolist()) == list(range(len(tones)))
    seen = []
    for batch in epoch:
        lengths = batch.arrays["audio_length"]
        for row, place in np.argwhere(lengths):
            begin = (-(-lengths[row, :place] // 16) * 16).sum()
            stretch = batch.arrays["audio"][row, begin : begin + lengths[row, place]]
            assert len(set(stretch.tolist())) == 1
            seen.append(int(stretch[0]) - 1)
            number = batch.places([row * batch.segments + place])[0]
            assert batch.records[number] == seen[-1]
    assert sorted(seen) == list(range(len(tones)))


@pytest.mark.parametrize("packed", [False, True])
def test_hosts_together_load_what_one_would(packed):
    whole = take(packed=packed)
    halves = [
        take(packed=packed, rows=lambda shape: slice(0, 2)),
        take(packed=packed, rows=lambda shape: slice(2, shape.rows)),
    ]
    for batch, *parts in zip(whole, *halves):
        joined = np.concatenate([part.arrays["audio"] for part in parts])
        assert np.array_equal(joined, batch.arrays["audio"])
        for part in parts:  # what is said of the batch is said of the global one
            assert np.array_equal(part.records, batch.records)
            assert (part.audio_seconds, part.padding) == (batch.audio_seconds, batch.padding)


def test_rows_beyond_the_plan_are_empty():
    for batch, padded in zip(take(), take(rows=lambda shape: slice(0, shape.rows + 3))):
        rows = len(batch.arrays["audio"])
        assert len(padded.arrays["audio"]) == rows + 3
        assert np.array_equal(padded.arrays["audio"][:rows], batch.arrays["audio"])
        assert not padded.arrays["audio_length"][rows:].any()


def test_what_fails_leaves_an_empty_place_and_is_named(of_threads):
    plain = take()
    failures = sorted(failure for batch in of_threads for failure in batch.failures)
    first_epoch = sorted({failure for batch in of_threads if batch.epoch == 0 for failure in batch.failures})
    assert first_epoch == [
        ("record 7", "ValueError", "broken line"),
        ("u11", "missing file", "u11.wav"),
        ("u30", "KeyError", "'surprise'"),
    ]
    assert len(failures) >= 3
    for batch, whole in zip(of_threads, plain):
        failed = int((whole.arrays["audio_length"] > 0).sum() - (batch.arrays["audio_length"] > 0).sum())
        assert failed == len(batch.failures)
        assert batch.audio_seconds == whole.audio_seconds
        kept = batch.arrays["audio_length"][:, 0] > 0
        assert np.array_equal(batch.arrays["audio"][kept], whole.arrays["audio"][kept])


def test_a_task_may_go_over_its_rows_twice():
    class Twice(Task):
        def collate(self, rows, shape):
            longest = max((len(samples) for examples in rows for samples in examples), default=0)
            assert longest <= shape.samples
            assert [len(examples) for examples in rows[:2]] == [len(rows[0]), len(rows[1])]
            return super().collate(list(rows), shape)

    failing = ("u11", "u30")
    assert_same(take(task=Twice(failing=failing)), take(task=Task(failing=failing)))


def test_augmentation_depends_on_seed_epoch_and_utterance_alone():
    tones = Tones()
    many = [take(200, seed=seed, packed=packed) for seed, packed in ((3, False), (3, True), (4, False))]

    def first_samples(batches):
        found = {}
        for batch in batches:
            for number, record in enumerate(batch.records.tolist()):
                row, place = int(batch.rows[number]), number - int(np.searchsorted(batch.rows, batch.rows[number]))
                begin = (-(-batch.arrays["audio_length"][row, :place] // 16) * 16).sum()
                found[batch.epoch, record] = float(batch.arrays["audio"][row, begin])
        return found

    buckets, packed, other = map(first_samples, many)
    shared = buckets.keys() & packed.keys()
    assert len(shared) > 2 * len(tones)
    assert all(buckets[key] == packed[key] for key in shared)
    assert all(buckets[0, record] != buckets[1, record] for record in range(len(tones)))
    assert all(buckets[key] != other[key] for key in buckets.keys() & other.keys())


def test_padding_of_an_epoch_is_what_the_plan_expects():
    tones = Tones()
    schedule = schedule_of(tones)
    epoch = take(len(schedule), seed=None)
    areas = [schedule.shapes[b.shape].rows * schedule.shapes[b.shape].samples for b in epoch]
    measured = np.average([b.padding for b in epoch], weights=areas)
    assert measured == pytest.approx(schedule.plan(0).padding(tones.lengths)[0])
    filled = sum(int(b.arrays["audio_length"].sum()) for b in epoch)
    assert measured == pytest.approx(1 - filled / sum(areas))
    assert sum(b.audio_seconds for b in epoch) == pytest.approx(tones.durations.sum())


def test_an_evaluation_ends_with_its_epoch():
    tones = Tones()
    schedule = Schedule.once(schedule_of(tones).shapes, tones.lengths, np.arange(len(tones)), stride=16)
    with pipeline.batches(tones, schedule, Task()) as stream:
        batches = list(stream)
    assert len(batches) == len(schedule)
    assert sorted(np.concatenate([b.records for b in batches]).tolist()) == list(range(len(tones)))


def test_the_dataset_can_be_asked_for_any_batch():
    tones = Tones()
    dataset = pipeline.batch_dataset(tones, schedule_of(tones), Task(), seed=3)
    assert_same([dataset[9], dataset[2]], [take()[9], take()[2]])


def test_a_missing_file_is_named_and_the_run_goes_on(tmp_path):
    samples = np.linspace(-0.5, 0.5, 16_000, dtype=np.float32)
    for name in ("a", "b"):
        audio.write(tmp_path / f"{name}.wav", samples, 16_000)
    lines = [{"id": n, "audio": f"{n}.wav", "text": "x", "duration": 1.0} for n in ("a", "gone", "b")]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    collection = Collection.open(str(tmp_path / "m.jsonl"))

    class Reader(Task):
        def load(self, record, rng):
            return audio.read(record, 16_000)

    lengths = Lengths(audio.samples(collection.durations, 16_000), np.full(3, 4, np.int32))
    schedule = Schedule.once((Shape(3, 16_128, 4),), lengths, np.arange(3))
    with pipeline.batches(collection, schedule, Reader()) as stream:
        (batch,) = stream
    assert [failure[:2] for failure in batch.failures] == [("gone", "missing file")]
    assert batch.arrays["audio_length"][:, 0].tolist() == [16_000, 0, 16_000]


def test_a_manifest_that_changes_under_the_run_ends_it():
    class Changed(Tones):
        def __getitem__(self, index):
            raise UserError("manifest m.jsonl has changed while it is in use")

    with pytest.raises(UserError, match="has changed"):
        take(tones=Changed())
