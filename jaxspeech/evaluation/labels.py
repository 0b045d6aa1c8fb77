"""Pseudo-labels: what a model hears in each of many utterances, by greedy search, and how sure of it it is."""

import functools
import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxspeech import params as trees
from jaxspeech.data import pipeline
from jaxspeech.errors import UserError
from jaxspeech.evaluation.by_shape import ByShape
from jaxspeech.evaluation.evaluate import plan_once
from jaxspeech.parallel import sharding
from jaxspeech.task import Params, Task


class Label(NamedTuple):
    """What is heard in one utterance.

    Attributes:
        text: in one line; "" where nothing is heard.
        logprob: average natural log-probability of what decoding chose (`Hypotheses.choices`); NaN without.
        problem: (reason, detail) where the utterance cannot be read or the model gives no numbers.
    """

    text: str
    logprob: float
    problem: tuple[str, str] | None = None


class Labeler:
    """Labels utterances in batches that are planned once: a batch is a function of its number, whoever asks and when.

    Args:
        task: the model family.
        params: the whole tree, on the mesh.
        records: utterances with unique ids; their texts are not read, and best empty: texts make shapes larger.
        mesh: rows of a batch are spread over its axes `data` and `fsdp`.
        batch_seconds: audio decoded at once, padding included.
        threads: that load audio.

    Attributes:
        audio_seconds: labelled so far.
    """

    def __init__(
        self, task: Task, params: Params, records: Any, mesh: Mesh, *, batch_seconds: float, threads: int = 4
    ) -> None:
        self._task, self._params, self._records, self._mesh = task, params, records, mesh
        self._threads = threads
        self._schedule = plan_once(task, records, batch_seconds, mesh)
        self._decode = ByShape(functools.partial(task.decode, beams=1), task, mesh)
        self.audio_seconds = 0.0

    @property
    def seconds(self) -> float:
        """That decoding took, by the wall clock, without compiling and loading."""
        return self._decode.seconds

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self._schedule)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """int64[n] of each utterance: the number of its batch, and its place among the labels of that batch."""
        plan = self._schedule.plan(0)
        sizes = np.diff(plan.starts)
        batch, place = np.empty((2, len(plan.records)), np.int64)
        batch[plan.records] = np.repeat(np.arange(len(plan)), sizes)
        place[plan.records] = np.arange(len(plan.records)) - np.repeat(plan.starts[:-1], sizes)
        return batch, place

    def labels(self, numbers: Iterable[int]) -> Iterator[tuple[int, list[Label]]]:
        """The labels of batches, each with its number.

        Args:
            numbers: of the batches, ascending.

        Raises:
            UserError: the family does not tell how sure it is.
        """
        for start, stop in _stretches(numbers):
            batches = pipeline.batches(
                self._records,
                self._schedule,
                self._task,
                start=start,
                stop=stop,
                rows=lambda shape: sharding.host_rows(shape, self._mesh)[1],
                threads=self._threads,
            )
            with batches:
                for batch in batches:
                    yield batch.index, self._label(batch)
                    self.audio_seconds += batch.audio_seconds

    def _label(self, batch: pipeline.HostBatch) -> list[Label]:
        arrays = sharding.to_device(batch.arrays, self._mesh)
        heard = self._decode(self._params, arrays, self._schedule.shapes[batch.shape])
        if heard.choices is None:
            raise UserError(
                f"{type(self._task).__name__} does not tell how probable its hypotheses are, so it cannot make "
                "pseudo-labels; its `decode` must return `choices` (see `Hypotheses` in jaxspeech/task.py)"
            )
        problems = {name: (reason, detail) for name, reason, detail in batch.failures}
        labels = []
        for name, row in zip(self._records.ids(batch.records.tolist()), batch.rows.tolist(), strict=True):
            text = self._task.tokenizer.decode(heard.tokens[row, : heard.length[row]].tolist())
            choices, problem = int(heard.choices[row]), problems.get(name)
            logprob = float(heard.score[row]) / choices if choices else math.nan
            if choices and not math.isfinite(logprob):
                problem = problem or ("not finite", "the model's output is not finite")
            labels.append(Label("", math.nan, problem) if problem else Label(" ".join(text.split()), logprob))
        return labels

    def fingerprint(self, settings: str) -> str:
        """Of what decides the labels, but for the utterances: parameters, tokenizer, shapes and `settings`."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{settings}\n{self._task.tokenizer.fingerprint}\n{self._schedule.shapes}\n".encode())
        for name, leaf in trees.named(self._params):
            array = np.asarray(jax.device_get(leaf))
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def _stretches(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(start, stop) of each run of successive numbers."""
    start = stop = -1
    for number in numbers:
        if number != stop:
            if stop > start:
                yield start, stop
            start = number
        stop = number + 1
    if stop > start:
        yield start, stop
