"""The batch plan: which utterances each batch of an epoch holds, as numpy arrays, before anything is read.

An epoch is shuffled by (seed, epoch), sorted into shapes or packed into rows, cut into global batches, and the batches
are shuffled. A plan depends on lengths, shapes, weights and seed alone, never on hosts, devices or workers: so the
position in the data is one integer, and any change of machines keeps the sequence of global batches.
"""

import bisect
import dataclasses
import functools
import math
import threading

import numpy as np
from ml_collections import ConfigDict

from jaxspeech.data import buckets, packing
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.errors import UserError

PACKED_SLACK = 0.001  # packed epochs get this share of rows more than the first needed, so that all have equally many
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2  # its multiples modulo 1 are spread evenly, however many
ORDER, ROWS, BATCHES, PHASE = range(101, 105)  # what a stream of random bits is for


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """One epoch. Batch i has shape `shapes[batch_shape[i]]` and holds `records[starts[i]:starts[i + 1]]`.

    Attributes:
        epoch: number of the epoch, from 0.
        shapes: the static shapes.
        batch_shape: int32[batches], index into `shapes`.
        starts: int64[batches + 1].
        records: int64[total], record numbers, ordered by batch and row.
        rows: int32[total], the row of the global batch that each lies in; within a row they lie in this order.
    """

    epoch: int
    shapes: tuple[Shape, ...]
    batch_shape: np.ndarray
    starts: np.ndarray
    records: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.batch_shape)

    @functools.cached_property
    def turns(self) -> np.ndarray:
        """int32[total]: how often each of `records` came before in this epoch; not 0 only where weights exceed 1."""
        turns = np.zeros(len(self.records), np.int32)
        if len(self.records) and np.bincount(self.records).max() > 1:
            order = np.argsort(self.records, kind="stable")
            first = np.flatnonzero(np.diff(self.records[order], prepend=-1))
            turns[order] = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
        return turns

    def batch(self, i: int) -> tuple[Shape, np.ndarray, np.ndarray]:
        """Shape, record numbers and rows of batch `i`."""
        part = slice(self.starts[i], self.starts[i + 1])
        return self.shapes[self.batch_shape[i]], self.records[part], self.rows[part]

    def padding(self, lengths: Lengths) -> tuple[float, float]:
        """Shares of the padded area without audio and text, over all batches of the epoch, empty rows included."""
        audio = sum(int(n) * s.rows * s.samples for n, s in zip(self.batches_of_shape(), self.shapes))
        text = sum(int(n) * s.rows * s.tokens for n, s in zip(self.batches_of_shape(), self.shapes))
        held = lengths[self.records]
        return 1 - int(held.audio.sum()) / audio, 1 - int(held.text.sum(dtype=np.int64)) / text

    def batches_of_shape(self) -> np.ndarray:
        """int64[shapes]: how many batches have each shape."""
        return np.bincount(self.batch_shape, minlength=len(self.shapes))


class Schedule:
    """All epochs: the number of a step ↔ its epoch's plan and the batch within it. Thread-safe, picklable.

    With whole weights every epoch has the same number of batches, so `locate` is O(1). Weights such as 0.5 let epochs
    differ by a batch; these are then counted from the first on (cheap for buckets; for packed rows it means packing
    each).
    """

    def __init__(
        self,
        shapes: tuple[Shape, ...],
        lengths: Lengths,
        kept: np.ndarray,
        *,
        seed: int = 0,
        weights: np.ndarray | None = None,
        stride: int = 384,
        shuffle: bool = True,
    ):
        """Prepares the epochs; no plan is made yet.

        Args:
            shapes: an ascending chain (`buckets.choose_shapes`) or one shape of packed rows (`packing.choose_row`).
            lengths: of all records.
            kept: record numbers (int) or a mask (bool) of those to plan.
            seed: of the order.
            weights: float[n] of all records: how often each is seen an epoch, 1 by default. Over E epochs a record of
                weight w is seen ⌊E·w⌋ or ⌈E·w⌉ times; who is seen when is drawn by the seed.
            stride: packed utterances start on multiples of so many samples.
            shuffle: False keeps the order of the records, for evaluation.

        Raises:
            ValueError: an utterance fits no shape, or a weight is negative or not finite.
        """
        self.shapes = tuple(shapes)
        self.lengths = lengths
        self.seed = seed & (2**64 - 1)
        self.packed = self.shapes[0].segments > 1
        self._stride = stride
        self._shuffle = shuffle
        self.epochs = None if shuffle else 1  # an evaluation has one
        self._kept = np.arange(len(lengths), dtype=np.int64)[kept]
        if len(self._kept) == 0:
            raise ValueError("nothing to plan: no record is kept")
        self._home = buckets.shape_of(self.shapes, lengths[self._kept])  # the smallest shape that holds each
        if self._home.max() == len(self.shapes):
            raise ValueError(f"record {self._kept[self._home.argmax()]} fits no shape of {self.shapes}")
        self._weights = np.ones(len(self._kept)) if weights is None else np.asarray(weights, float)[self._kept]
        if not (np.isfinite(self._weights).all() and (self._weights >= 0).all() and self._weights.any()):
            raise ValueError("weights must be finite, at least 0, and not all 0")
        self._equal = bool((self._weights == np.floor(self._weights)).all())
        self._phase = np.zeros(len(self._kept)) if self._equal else self._phases()
        self._plans: dict[int, Plan] = {}  # of the last two epochs
        self._ends: list[int] = []  # steps after each epoch that was counted
        self._lock = threading.RLock()

    @classmethod
    def once(cls, shapes: tuple[Shape, ...], lengths: Lengths, kept: np.ndarray, *, stride: int = 384) -> "Schedule":
        """For evaluation: every kept record exactly once, in their order within each shape. Its epoch is 0 alone."""
        return cls(shapes, lengths, kept, stride=stride, shuffle=False)

    def __len__(self) -> int:
        """Batches of the first epoch; of every epoch if all weights are whole numbers."""
        return self._end(0)

    def locate(self, index: int) -> tuple[Plan, int]:
        """The plan of the epoch that step `index` (from 0) lies in, and the number of its batch there."""
        if index < 0 or (self.epochs and index >= len(self)):
            raise IndexError(f"step {index} of {len(self) if self.epochs else 'endless'} steps")
        if self._equal:
            epoch, batch = divmod(index, len(self))
            return self.plan(epoch), batch
        with self._lock:
            while not self._ends or self._ends[-1] <= index:
                self._end(len(self._ends))
            epoch = bisect.bisect_right(self._ends, index)
        return self.plan(epoch), index - (self._ends[epoch - 1] if epoch else 0)

    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch; those of the last two that were asked for are kept."""
        with self._lock:
            if epoch not in self._plans:
                records = self._records(epoch)
                made = self._pack(epoch, records) if self.packed else self._bucket(epoch, records)
                self._plans = dict([*self._plans.items(), (epoch, made)][-2:])
            return self._plans[epoch]

    def __getstate__(self) -> dict:
        """Without the lock and the plans: a worker makes its own."""
        return self.__dict__ | {"_lock": None, "_plans": {}}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ = state | {"_lock": threading.RLock()}

    # How often, and in which order.

    def _phases(self) -> np.ndarray:
        """float[kept] in [0, 1): where a record's turn starts; spread evenly among those of like shape and weight."""
        drawn = _shuffled(len(self._kept), self.seed, 0, PHASE)
        alike = drawn[np.lexsort((self._weights[drawn], self._home[drawn]))]
        phase = np.empty(len(self._kept))
        phase[alike] = np.arange(len(self._kept)) * GOLDEN_RATIO % 1.0
        return phase

    def _times(self, epoch: int) -> np.ndarray:
        """int64[kept]: how often each record is seen in an epoch."""
        begin, end = (np.floor(e * self._weights + self._phase) for e in (epoch, epoch + 1))
        return (end - begin).astype(np.int64)

    def _records(self, epoch: int) -> np.ndarray:
        """int64[total]: positions in `_kept` of the epoch's utterances, in its order."""
        positions = np.repeat(np.arange(len(self._kept)), self._times(epoch))
        return positions[_shuffled(len(positions), self.seed, epoch, ORDER)] if self._shuffle else positions

    def _end(self, epoch: int) -> int:
        """The number of steps up to the end of `epoch`; epochs before it have been counted."""
        with self._lock:
            if len(self._ends) <= epoch:
                if self.packed:
                    batches = len(self.plan(epoch))
                else:
                    held = np.bincount(self._home, weights=self._times(epoch), minlength=len(self.shapes))
                    batches = sum(self._cut(held.astype(int))[0])
                self._ends.append((self._ends[-1] if self._ends else 0) + batches)
            return self._ends[epoch]

    # Filling batches.

    def _cut(self, held: np.ndarray) -> tuple[list[int], list[int]]:
        """Batches of each shape, and utterances in them, if `held` are at home in each: what fills none moves up."""
        batches, used, left = [], [], 0
        for count, shape in zip(held.tolist(), self.shapes):
            full, left = divmod(count + left, shape.rows)
            batches.append(full)
            used.append(full * shape.rows)
        if left:
            batches[-1] += 1
            used[-1] += left
        return batches, used

    def _bucket(self, epoch: int, positions: np.ndarray) -> Plan:
        home = self._home[positions]
        positions = positions[np.argsort(home, kind="stable")]  # within a shape still in the epoch's order
        batches, used = self._cut(np.bincount(home, minlength=len(self.shapes)))
        # What moves up stands before the next shape's own, so the cuts are simply further along the same sequence.
        sizes = np.concatenate([_spread(n, b, s.rows) for n, b, s in zip(used, batches, self.shapes)])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        rows = np.arange(len(positions)) - np.repeat(starts[:-1], sizes)
        return self._shuffle_batches(epoch, positions, rows, starts, np.repeat(np.arange(len(batches)), batches))

    def _pack(self, epoch: int, positions: np.ndarray) -> Plan:
        shape = self.shapes[0]
        row, rows = self._fill(positions)
        if not self._equal:
            batches = math.ceil(rows / shape.rows)
        elif epoch == 0:
            batches = min(rows, math.ceil(rows * (1 + PACKED_SLACK) / shape.rows))
        else:
            batches = len(self)
            if not batches <= rows <= batches * shape.rows:
                positions = self._records(0)  # the first epoch's rows, newly shuffled, are as many as needed
                row, rows = self._fill(positions)
        rank = _shuffled(rows, self.seed, epoch, ROWS) if self._shuffle else np.arange(rows)
        by_row = np.argsort(rank[row], kind="stable")
        row = rank[row][by_row]
        ends = np.cumsum(_spread(rows, batches, shape.rows))
        batch = np.searchsorted(ends, row, side="right")
        starts = np.searchsorted(batch, np.arange(batches + 1))
        rows_before = np.concatenate([[0], ends])[batch]
        return self._shuffle_batches(epoch, positions[by_row], row - rows_before, starts, np.zeros(batches, int))

    def _fill(self, positions: np.ndarray) -> tuple[np.ndarray, int]:
        return packing.pack(self.lengths, self._kept[positions], self.shapes[0], stride=self._stride)

    def _shuffle_batches(
        self, epoch: int, positions: np.ndarray, rows: np.ndarray, starts: np.ndarray, batch_shape: np.ndarray
    ) -> Plan:
        count = len(batch_shape)
        order = _shuffled(count, self.seed, epoch, BATCHES) if self._shuffle else np.arange(count)
        sizes = np.diff(starts)[order]
        moved = np.concatenate([[0], np.cumsum(sizes)])
        take = np.arange(len(positions)) + np.repeat(starts[:-1][order] - moved[:-1], sizes)
        return Plan(
            epoch=epoch,
            shapes=self.shapes,
            batch_shape=batch_shape[order].astype(np.int32),
            starts=moved.astype(np.int64),
            records=self._kept[positions[take]],
            rows=rows[take].astype(np.int32),
        )


def shapes_for(
    data: ConfigDict, lengths: Lengths, kept: np.ndarray, *, sample_rate: int = 16_000, stride: int = 384
) -> tuple[Shape, ...]:
    """The static shapes that the `data` section of a config asks for, by its key `batching`."""
    size = dict(
        batch_seconds=data.batch_seconds,
        batch_rows=data.batch_rows,
        row_multiple=data.row_multiple,
        sample_rate=sample_rate,
        stride=stride,
    )
    if data.batching == "buckets":
        return buckets.choose_shapes(lengths, kept, max_shapes=data.shapes, **size)
    if data.batching == "packed":
        row = dict(row_seconds=data.row_seconds, row_segments=data.row_segments)
        return packing.choose_row(lengths, kept, **row, **size)
    raise UserError(f"data.batching = {data.batching!r}: give 'buckets' or 'packed'")


def _shuffled(n: int, seed: int, epoch: int, purpose: int) -> np.ndarray:
    """A permutation of n by sorting raw bits: NumPy promises that their stream stays, which `permutation`'s may not.

    The purpose comes first and is never 0: `default_rng(seed)`, which may have made the data, is another stream.
    """
    bits = np.random.PCG64(np.random.SeedSequence((purpose, epoch, seed)))
    return np.argsort(bits.random_raw(n), kind="stable")


def _spread(total: int, batches: int, rows: int) -> np.ndarray:
    """Sizes of `batches` batches of up to `rows` that hold `total`: full ones, then as few as leave none half empty."""
    lacking = batches * rows - total
    partial = min(batches, math.ceil(2 * lacking / rows))
    share, extra = divmod(total - (batches - partial) * rows, max(1, partial))
    sizes = np.full(batches, rows)
    sizes[batches - partial :] = share + (np.arange(partial) < extra)
    return sizes
