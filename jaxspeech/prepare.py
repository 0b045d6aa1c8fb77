"""From a config to what a run needs before the first step: the task, its data, the plan. No device is touched."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxspeech.checkpoint.fingerprint import fingerprint
from jaxspeech.data import ledger
from jaxspeech.data.audio import samples
from jaxspeech.data.manifest import Collection
from jaxspeech.data.plan import Plan, Schedule, shapes_for
from jaxspeech.data.shapes import Lengths
from jaxspeech.errors import UserError
from jaxspeech.task import Task, task_class


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Task, training data and schedule of a run.

    Attributes:
        task: the model family.
        collection: all records of the training manifests.
        lengths: their lengths as the plan has them: at the longest that augmentation may make them.
        recorded: their lengths as they are.
        selection: which records are trained on, and why the others are not.
        schedule: the batches of every epoch.
        first: the plan of epoch 0.
        fingerprint: what a restart must not change.
        measure_seconds, plan_seconds: how long counting tokens and planning took.
    """

    task: Task
    collection: Collection
    lengths: Lengths
    recorded: Lengths
    selection: ledger.Selection
    schedule: Schedule
    first: Plan
    fingerprint: dict
    measure_seconds: float
    plan_seconds: float


Fit = Callable[[Task, Lengths], float]


def prepare(config: ConfigDict, fit: Fit | None = None) -> Prepared:
    """Opens and checks the manifests, measures them and plans the batches.

    Args:
        config: the whole config. Where it sets neither `data.batch_seconds` nor `data.batch_rows`, the former is set
            to what `fit` finds.
        fit: (task, lengths of what is trained on) -> seconds of audio in a global batch that fill the devices.

    Raises:
        UserError: a bad manifest line, or nothing left to train on.
    """
    task = task_class(config.task).from_config(config)
    collection = Collection.open(config.data.train)
    start = time.perf_counter()
    lengths = task.measure(collection)
    measured = time.perf_counter()
    recorded = Lengths(samples(collection.durations, task.sample_rate), lengths.text)
    selection = ledger.select(recorded, config.data, task.sample_rate)
    if not len(selection.kept):
        counts = ", ".join(f"{name}: {count}" for name, count in selection.counts().items())
        raise UserError(
            f"no utterance of {config.data.train} is left to train on ({counts}); change config.data.min_seconds, "
            "max_seconds or max_tokens"
        )
    if not config.data.batch_seconds and not config.data.batch_rows:
        if fit is None:
            raise UserError(
                "config.data.batch_seconds and batch_rows are both 0: fitting them needs a device; set one of them"
            )
        config.data.batch_seconds = fit(task, lengths[selection.kept])
    shapes = shapes_for(config.data, lengths, selection.kept, sample_rate=task.sample_rate, stride=task.stride)
    schedule = Schedule(
        shapes, lengths, selection.kept, seed=config.seed, weights=collection.weights, stride=task.stride
    )
    first = schedule.plan(0)
    return Prepared(
        task=task,
        collection=collection,
        lengths=lengths,
        recorded=recorded,
        selection=selection,
        schedule=schedule,
        first=first,
        fingerprint=fingerprint(config, collection, task.tokenizer.fingerprint),
        measure_seconds=measured - start,
        plan_seconds=time.perf_counter() - measured,
    )


def describe(prepared: Prepared) -> dict[str, Any]:
    """What is known before the first step, as `jaxspeech plan --json` tells it, without parameters and memory."""
    plan, lengths, rate = prepared.first, prepared.recorded, prepared.task.sample_rate
    padding, text_padding = plan.padding(lengths)
    counts = plan.batches_of_shape()
    shape_of_record = np.repeat(plan.batch_shape, np.diff(plan.starts))
    audio = np.bincount(shape_of_record, lengths.audio[plan.records], len(plan.shapes))
    return {
        "utterances": len(plan.records),
        "filtered": prepared.selection.counts(),
        "hours": float(lengths.audio[plan.records].sum() / rate / 3600),
        "batches": len(plan),
        "padding": padding,
        "text_padding": text_padding,
        "measure_seconds": prepared.measure_seconds,
        "plan_seconds": prepared.plan_seconds,
        "shapes": [
            {
                "rows": shape.rows,
                "audio_seconds": shape.samples / rate,
                "tokens": shape.tokens,
                "segments": shape.segments,
                "batches": int(count),
                "padding": 1 - float(held) / max(int(count) * shape.rows * shape.samples, 1),
            }
            for shape, count, held in zip(plan.shapes, counts, audio)
        ],
    }
