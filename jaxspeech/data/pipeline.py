"""From the plan to batches in memory: number of a step → this host's rows, loaded and laid out, ahead of the loop.

The plan is a Grain `MapDataset` of batches, so the position in the data is one integer: an iterator starts at any step
at once, and gives the same arrays with threads and with any number of worker processes.
"""

import atexit
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import grain
import numpy as np
from absl import flags

from jaxspeech.data import audio, augment
from jaxspeech.data.plan import Schedule
from jaxspeech.data.record import Record
from jaxspeech.data.shapes import Shape
from jaxspeech.errors import UserError

Rows = Callable[[Shape], slice | None]
ENDLESS = 2**40  # steps; more than any run takes, and Grain wants a length
SHARED_BYTES = 1 << 14  # smaller arrays are pickled, not put into shared memory


class Records(Protocol):
    """What is read from: a `Collection`, a `Manifest`, or a stand-in."""

    durations: np.ndarray  # float64[n], seconds

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...

    def ids(self, indices: Any) -> list[str]: ...


class Loader(Protocol):
    """The host side of a task (`jaxspeech.task.Task`)."""

    sample_rate: int

    def load(self, record: Record, rng: np.random.Generator | None) -> Any: ...

    def collate(self, rows: Sequence[Sequence[Any]], shape: Shape) -> Any: ...


class HostBatch(NamedTuple):
    """A batch with this host's rows; all but `arrays` and `failures` is the same on every host.

    Attributes:
        index: number of the step, from 0.
        epoch: number of the epoch.
        shape: index into the schedule's shapes.
        segments: utterances that a row holds at most.
        arrays: what the task collated from this host's rows.
        records: int64, record numbers of the whole global batch.
        rows: int32, the row of the global batch that each of `records` lies in.
        failures: (id, reason, detail) of the utterances of this host that could not be loaded; their places are empty.
        audio_seconds: recorded audio of the global batch, without padding.
        padding: share of the global batch's audio area that no recording fills.
    """

    index: int  # type: ignore[assignment]  # a tuple has a method of this name, which nothing here wants
    epoch: int
    shape: int
    segments: int
    arrays: Mapping[str, np.ndarray]
    records: np.ndarray
    rows: np.ndarray
    failures: list[tuple[str, str, str]]
    audio_seconds: float
    padding: float

    def places(self, flat: np.ndarray) -> list[int]:
        """Which of `records` lie at these places, `row * segments + place in the row`; empty places are left out.

        In a packed row, an utterance that failed to load counts here although the ones behind it moved up.
        """
        place = np.arange(len(self.rows)) - np.searchsorted(self.rows, self.rows)
        at = {where: number for number, where in enumerate((self.rows * self.segments + place).tolist())}
        return [at[where] for where in np.asarray(flat).tolist() if where in at]


def batch_dataset(
    collection: Records,
    schedule: Schedule,
    task: Loader,
    *,
    rows: Rows | None = None,
    seed: int | None = None,
) -> grain.MapDataset[HostBatch]:
    """Number of a step → `HostBatch`; picklable, and the same whoever asks in whatever order.

    Args:
        collection: what the schedule's record numbers count.
        schedule: the plans of all epochs.
        task: loads and collates.
        rows: which rows of a shape this host loads; may reach beyond the shape's rows, which are then empty. All by
            default.
        seed: of the augmentation, which is a function of (seed, epoch, id), and of the step where a schedule is set;
            None: no augmentation.
    """
    slices = tuple((rows and rows(shape)) or slice(0, shape.rows) for shape in schedule.shapes)
    return grain.MapDataset.source(_Source(collection, schedule, task, slices, seed))


def batches(
    collection: Records,
    schedule: Schedule,
    task: Loader,
    *,
    start: int = 0,
    stop: int | None = None,
    rows: Rows | None = None,
    seed: int | None = None,
    workers: int = 0,
    threads: int = 4,
    prefetch: int = 8,
) -> "Batches":
    """The batches `start … stop - 1`, loaded ahead of time; loading begins at once. See `batch_dataset`.

    Args:
        start: the first step; O(1).
        stop: the step before which it ends; None: an evaluation's schedule ends with its epoch, others never.
        workers: processes that load; 0: threads of this one.
        threads: threads that load (in each worker); a batch is loaded by one of them.
        prefetch: batches loaded ahead in all.
    """
    dataset = batch_dataset(collection, schedule, task, rows=rows, seed=seed)[start:stop]
    return Batches(dataset, workers=workers, threads=threads, prefetch=prefetch)


class Batches(Iterator[HostBatch]):
    """Iterator over a dataset of batches; `close` it (or use it in `with`) to stop its threads and processes."""

    def __init__(self, dataset: grain.MapDataset[HostBatch], *, workers: int, threads: int, prefetch: int):
        if not flags.FLAGS.is_parsed():  # Grain asks absl for its options; in a notebook nobody parsed them
            flags.FLAGS.mark_as_parsed()
        ahead = max(1, -(-prefetch // max(1, workers)))
        options = grain.ReadOptions(num_threads=max(1, min(threads, ahead)), prefetch_buffer_size=ahead)
        stream = dataset.to_iter_dataset(options)
        if workers and len(dataset):
            shared = grain.experimental.DatasetOptions(min_shm_size=SHARED_BYTES)
            stream = grain.experimental.WithOptionsIterDataset(stream, shared)
            # More processes than batches would have nothing to do.
            processes = grain.MultiprocessingOptions(min(workers, len(dataset)), per_worker_buffer_size=1)
            stream = stream.mp_prefetch(processes, worker_init_fn=_begin_worker).map(_own)
            # The thread starts the processes now, not at the first `next`, and copies beside the loop.
            stream = grain.experimental.ThreadPrefetchIterDataset(stream, prefetch_buffer_size=1)
        self._iterator: Any = iter(stream)
        self._iterator.start_prefetch()
        _OPEN.add(self)

    def __next__(self) -> HostBatch:
        try:
            return next(self._iterator)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            code = str(error).partition("exit code ")[2].partition(".")[0]
            raise UserError(
                f"a data worker died (exit code {code}; -9: killed, often for lack of memory; -7: shared memory, "
                "/dev/shm, is full). Start again; if it recurs, lower config.data.workers or config.data.prefetch"
            ) from error

    def close(self) -> None:
        """Stops loading. Twice is as good as once."""
        if hasattr(self._iterator, "close"):
            self._iterator.close()
        self._iterator = iter(())
        _OPEN.discard(self)

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_OPEN: "weakref.WeakSet[Batches]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Whoever forgot to close must not see Grain stumble over an interpreter that is half gone."""
    for stream in list(_OPEN):
        stream.close()


@dataclasses.dataclass
class _Source:
    """The random-access source: a batch is a function of its number."""

    collection: Records
    schedule: Schedule
    task: Loader
    slices: tuple[slice, ...]  # this host's rows of each shape
    seed: int | None

    def __len__(self) -> int:
        return len(self.schedule) if self.schedule.epochs == 1 else ENDLESS

    def __repr__(self) -> str:
        return f"batches of {len(self.collection)} records"

    def __getitem__(self, index: int) -> HostBatch:
        plan, number = self.schedule.locate(index)
        shape, records, rows = plan.batch(number)
        which = int(plan.batch_shape[number])
        mine = self.slices[which]
        turns = plan.turns[plan.starts[number] : plan.starts[number + 1]]
        wanted: list[list[_Turn]] = [[] for _ in range(mine.stop - mine.start)]
        for record, row, turn in zip(records.tolist(), rows.tolist(), turns.tolist()):
            if mine.start <= row < mine.stop:
                wanted[row - mine.start].append(_Turn(record, turn))
        examples = _Rows(self, plan.epoch, index, wanted)
        recorded = self.collection.durations[records]
        area = shape.rows * shape.samples
        return HostBatch(
            index=index,
            epoch=plan.epoch,
            shape=which,
            segments=shape.segments,
            arrays=self.task.collate(examples, dataclasses.replace(shape, rows=len(examples))),
            records=records,
            rows=rows,
            failures=list(examples.failures.values()),
            audio_seconds=float(recorded.sum()),
            padding=1 - int(audio.samples(recorded, self.task.sample_rate).sum()) / area,
        )


class _Turn(NamedTuple):
    """A record's turn in an epoch: the first is 0."""

    record: int
    number: int


class _Rows(Sequence[list[Any]]):
    """Rows of a batch that are loaded when `collate` comes to them, and not kept.

    So an utterance is copied into the batch while the processor still has it in its cache: for PCM that is a fifth of
    the work. Whoever iterates twice loads twice, and gets the same.
    """

    def __init__(self, source: _Source, epoch: int, step: int, turns: list[list[_Turn]]):
        self.failures: dict[_Turn, tuple[str, str, str]] = {}
        self._source = source
        self._epoch = epoch
        self._step = step
        self._turns = turns

    def __len__(self) -> int:
        return len(self._turns)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        loaded = (self._load(turn) for turn in self._turns[row])
        return [example for example in loaded if example is not None]

    def _load(self, turn: _Turn) -> Any:
        """One utterance, or None if it cannot be had: one bad file must not end a run. The ledger hears of it."""
        try:
            record = self._source.collection[turn.record]
        except UserError:  # the manifest has changed: nothing that follows would be what was planned
            raise
        except Exception as error:
            self.failures[turn] = (f"record {turn.record}", type(error).__name__, str(error))
            return None
        try:
            return self._source.task.load(record, self._rng(record.id, turn))
        except audio.AudioError as error:
            self.failures[turn] = (record.id, error.reason, error.detail)
        except (MemoryError, UserError):  # a manifest of noises that is not what it was concerns all utterances
            raise
        except Exception as error:
            self.failures[turn] = (record.id, type(error).__name__, str(error))
        return None

    def _rng(self, id: str, turn: _Turn) -> augment.Draws | None:
        seed = self._source.seed
        return None if seed is None else augment.generator(seed, self._epoch, id, turn=turn.number, step=self._step)


def _own(batch: HostBatch) -> HostBatch:
    """A batch of a worker in this process's own memory: shared memory must be gone before the interpreter ends."""
    arrays = {name: np.array(array, subok=False) for name, array in batch.arrays.items()}
    return batch._replace(
        arrays=arrays, records=np.array(batch.records, subok=False), rows=np.array(batch.rows, subok=False)
    )


def _begin_worker(index: int, count: int) -> None:
    """Runs first in every worker process: no device, no signals but the parent's word, no life after the parent."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # Grain or the main module imported it, and it has read the variable already
        sys.modules["jax"].config.update("jax_platforms", "cpu")
    # A scheduler signals the whole job; the parent decides when loading ends.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
