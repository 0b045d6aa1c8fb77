"""Augmented samples are the same with threads and with any number of worker processes, and after a restart."""

import dataclasses
import os
import sys

import cloudpickle
import numpy as np
import pytest

from jaxspeech import config as configs
from jaxspeech.data import audio as audio_files
from jaxspeech.data import pipeline
from jaxspeech.data.augment import Augmentation
from jaxspeech.data.manifest import Collection, write_manifest
from jaxspeech.data.plan import Schedule
from jaxspeech.data.shapes import Lengths, Shape

# Workers cannot import a test's module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

RATE = 16000
STEPS = 8  # two epochs of four batches


@dataclasses.dataclass(frozen=True)
class Loader:
    """The host side of a task that does nothing but augment."""

    augmentation: Augmentation
    sample_rate: int = RATE

    def load(self, record, rng):
        return self.augmentation(audio_files.read(record, RATE), rng)

    def collate(self, rows, shape):
        batch = {
            "audio": np.zeros((shape.rows, shape.samples), np.float32),
            "length": np.zeros(shape.rows, np.int32),
            "process": np.full(shape.rows, os.getpid()),
        }
        for row, examples in enumerate(rows):
            for samples in examples:
                batch["audio"][row, : len(samples)] = samples
                batch["length"][row] = len(samples)
        return batch


@pytest.fixture(scope="module")
def take(tmp_path_factory):
    """Steps of a run in which every part of the augmentation meets every utterance, as a function of the workers."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    for name, count, samples in (("train", 12, 8000), ("noise", 3, 5000), ("room", 2, 600)):
        rows = []
        for number in range(count):
            sound = (0.1 * rng.standard_normal(samples + 100 * number)).astype(np.float32)
            audio_files.write(folder / f"{name}{number}.wav", sound, RATE)
            row = {"id": f"{name}{number}", "audio": f"{name}{number}.wav", "text": "", "duration": len(sound) / RATE}
            rows.append(row)
        write_manifest(folder / f"{name}.jsonl", rows)
    data = configs.base("jaxspeech.tasks.moonshine.Moonshine").data
    data.train = str(folder / "train.jsonl")
    section = data.augment
    section.speed, section.gain_db, section.noise_db, section.time_mask, section.ramp = 0.1, 6.0, 20.0, 0.1, STEPS
    for name in ("room", "babble", "background", "clipping", "narrowband", "codec"):
        section[name].probability = 0.8
        section[name].ramp = 3
    section.room.manifest, section.background.manifest = str(folder / "room.jsonl"), str(folder / "noise.jsonl")
    collection = Collection.open(data.train)

    def take(workers=0, start=0):
        augmentation = Augmentation.from_config(data, RATE)
        longest = augmentation.longest(audio_files.samples(collection.durations, RATE))
        lengths = Lengths(longest, np.ones(len(collection), np.int32))
        schedule = Schedule((Shape(3, int(longest.max()), 4),), lengths, np.arange(len(collection)), seed=5, stride=16)
        stream = pipeline.batches(
            collection, schedule, Loader(augmentation), start=start, stop=STEPS, seed=3, workers=workers
        )
        with stream:
            return list(stream)

    return take


@pytest.fixture(scope="module")
def of_threads(take):
    return take()


def assert_same(batches, others):
    assert [batch.index for batch in batches] == [batch.index for batch in others]
    for one, other in zip(batches, others):
        assert one.failures == other.failures == []
        np.testing.assert_array_equal(one.arrays["length"], other.arrays["length"])
        np.testing.assert_array_equal(one.arrays["audio"], other.arrays["audio"])


@pytest.mark.parametrize("workers", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_workers_give_the_samples_that_threads_give(take, of_threads, workers):
    found = take(workers)
    assert_same(found, of_threads)
    processes = {int(batch.arrays["process"][0]) for batch in found}
    assert len(processes) == workers
    assert os.getpid() not in processes


def test_a_run_that_goes_on_hears_what_an_undisturbed_one_hears(take, of_threads):
    assert_same(take(start=3), of_threads[3:])


def test_epochs_differ(of_threads):
    """Otherwise the tests above would hold for nothing."""
    levels = [
        {int(r): batch.arrays["length"][row] for r, row in zip(batch.records, batch.rows)} for batch in of_threads
    ]
    first, second = ({k: v for part in levels[i : i + 4] for k, v in part.items()} for i in (0, 4))
    assert len(first) == len(second) == 12
    assert sum(first[k] != second[k] for k in first) > 8
