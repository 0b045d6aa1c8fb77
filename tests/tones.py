"""Utterances that need no files, and the task and schedule that load them: what the tests of the pipeline share."""

import dataclasses
import os
import sys

import cloudpickle
import numpy as np

from jaxspeech.data import audio, pipeline
from jaxspeech.data.plan import Schedule
from jaxspeech.data.record import Record
from jaxspeech.data.shapes import Lengths, Shape

# Workers cannot import a test's module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

RATE = 1000


class Tones:
    """Records that need no files: utterance i is `durations[i]` seconds of the value i + 1."""

    def __init__(self, n: int = 60):
        self.durations = np.random.default_rng(0).integers(300, 2000, n) / RATE

    def __len__(self):
        return len(self.durations)

    def __getitem__(self, index):
        if index in self.broken:
            raise ValueError("broken line")
        return Record(id=f"u{index}", text="", duration=self.durations[index], segments=())

    broken: tuple[int, ...] = ()

    def ids(self, indices):
        return [f"u{i}" for i in indices]

    @property
    def lengths(self) -> Lengths:
        return Lengths(np.rint(self.durations * RATE).astype(np.int64), np.full(len(self), 4, np.int32))


@dataclasses.dataclass(frozen=True)
class Task:
    """Loads tones; tells what its process knows of jax, and fails where it is told to."""

    failing: tuple[str, ...] = ()
    sample_rate: int = RATE

    def load(self, record, rng):
        if record.id in self.failing:
            raise audio.AudioError("missing file", f"{record.id}.wav") if record.id < "u2" else KeyError("surprise")
        samples = np.full(round(record.duration * RATE), int(record.id[1:]) + 1, np.float32)
        return samples if rng is None else samples + rng.standard_normal(len(samples), np.float32)

    def collate(self, rows, shape):
        batch = {
            "audio": np.zeros((shape.rows, shape.samples), np.float32),
            "audio_length": np.zeros((shape.rows, shape.segments), np.int32),
            "process": np.full(shape.rows, os.getpid()),
            "backends": np.full(shape.rows, _backends()),
        }
        for row, examples in enumerate(rows):
            at = 0
            for place, samples in enumerate(examples):
                batch["audio"][row, at : at + len(samples)] = samples
                batch["audio_length"][row, place] = len(samples)
                at += -(-len(samples) // 16) * 16
        return batch


def _backends() -> int:
    """How many jax backends this process has started."""
    if "jax" not in sys.modules:
        return 0
    from jax._src import xla_bridge

    return len(xla_bridge._backends)


def schedule_of(tones: Tones, packed: bool = False) -> Schedule:
    shapes = (Shape(3, 6000, 100, 8),) if packed else (Shape(8, 992, 4), Shape(4, 2000, 4))
    return Schedule(shapes, tones.lengths, np.arange(len(tones)), seed=5, stride=16)


def take(count: int = 24, *, tones=None, packed=False, task=None, **options) -> list[pipeline.HostBatch]:
    tones = tones or Tones()
    options = {"start": 0, "seed": 3, **options}
    stream = pipeline.batches(
        tones, schedule_of(tones, packed), task or Task(), stop=options["start"] + count, **options
    )
    with stream:
        return list(stream)
