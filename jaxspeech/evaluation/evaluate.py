"""Evaluation of a set: loss, WER, CER and every hypothesis. One loop for the trainer and for `jaxspeech evaluate`.

Every utterance of the set counts, whatever `config.data` filters from training: the static shapes are made for the set,
and audio that cannot be read is an utterance of which every word was missed.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxspeech import step as steps
from jaxspeech.data import pipeline
from jaxspeech.data.buckets import choose_shapes
from jaxspeech.data.manifest import Collection
from jaxspeech.data.plan import Schedule
from jaxspeech.errors import UserError
from jaxspeech.evaluation import conditions
from jaxspeech.evaluation.by_shape import ByShape
from jaxspeech.evaluation.normalize import normalizer
from jaxspeech.evaluation.result import Result
from jaxspeech.evaluation.scoring import score
from jaxspeech.parallel import distributed, sharding
from jaxspeech.task import Params, Task

SHAPES = 4  # at most: each is compiled twice (loss and decoding), and evaluation can afford some padding
_WORTH = 8  # so many batches in a single shape make another one repay its compilation


def evaluation_sets(config: ConfigDict) -> dict[str, Collection]:
    """The sets of `config.data.eval` by name: a manifest, a list of them (named after their files), or a mapping.

    Raises:
        UserError: a manifest cannot be used, or two have one name.
    """
    spec = config.data.eval
    if not spec:
        return {}
    if isinstance(spec, str):
        spec = [spec]
    if not isinstance(spec, Mapping):
        names = [pathlib.Path(path).stem for path in spec]
        if len(set(names)) < len(names):
            raise UserError(f"config.data.eval: two sets would be named alike ({', '.join(names)}); give a mapping")
        spec = dict(zip(names, spec))
    return {str(name): Collection.open(path, "config.data.eval") for name, path in spec.items()}


class Section(Protocol):
    """The keys of `config.eval` that are read here."""

    decode: bool
    beams: int
    batch_seconds: float
    normalizer: str


class Evaluator:
    """One evaluation set, measured and planned once, run as often as needed; nothing compiles after the first run.

    Args:
        task: the model family.
        name: of the set.
        collection: its records.
        section: `config.eval`.
        mesh: rows of a batch are spread over its axes `data` and `fsdp`.
        threads: that load audio.

    Raises:
        UserError: the set is empty, or there is no such normaliser.
    """

    def __init__(
        self, task: Task, name: str, collection: Collection, section: Section, mesh: Mesh, *, threads: int = 4
    ) -> None:
        if not len(collection):
            raise UserError(f"evaluation set {name!r} has no utterances; give a manifest with at least one line")
        self.name = name
        self._task, self._collection, self._mesh, self._threads = task, collection, mesh, threads
        self._normalizer = normalizer(section.normalizer)
        self._schedule = plan_once(task, collection, section.batch_seconds, mesh)
        self._loss = ByShape(functools.partial(steps.eval_step, task), task, mesh)
        decode = functools.partial(task.decode, beams=section.beams)
        self._decode = ByShape(decode, task, mesh) if section.decode else None

    @functools.cached_property
    def _rows(self) -> list[dict[str, Any]]:
        """What stays the same from run to run."""
        found = (self._collection[i] for i in range(len(self._collection)))
        unknown = {"hypothesis": None, "loss": None, "wer": None}
        return [
            {"id": r.id, "reference": r.text, **unknown, "duration": r.duration, "audio": r.segments[0].audio}
            for r in found
        ]

    def compile(self, params: Params) -> None:
        """Compiles all shapes now rather than in the first run. `params` are arrays or specs with shardings."""
        for shape in self._schedule.shapes:
            self._loss.compile(params, shape)
            if self._decode is not None:
                self._decode.compile(params, shape)

    def run(
        self,
        params: Params,
        *,
        condition: conditions.Condition | None = None,
        poll: Callable[[], bool] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Result | None:
        """Evaluates these parameters. Every process of a run calls it, and all get the same result.

        Args:
            params: the whole tree, averaged where the optimiser averages.
            condition: what every utterance is heard through; None: the set as it is.
            poll: asked before each batch; True ends the evaluation. All processes must answer alike.
            progress: told (utterances done, utterances in all) after each batch.

        Returns:
            The result, or None where `poll` ended it.

        Raises:
            UserError: the family has no augmentation that a condition could take the place of.
        """
        loader = self._task if condition is None else conditions.under(self._task, condition)
        self.compile(params)
        count = len(self._collection)
        found: dict[int, str] = {}
        losses: dict[int, float] = {}
        sums: dict[str, np.ndarray] = {}
        failures: list[tuple[str, str, str]] = []
        before, done = self._decode.seconds if self._decode else 0.0, 0
        batches = pipeline.batches(
            self._collection,
            self._schedule,
            loader,
            rows=lambda shape: sharding.host_rows(shape, self._mesh)[1],
            seed=None if condition is None else conditions.SEED,
            threads=self._threads,
        )
        with batches:
            for batch in batches:
                if poll is not None and poll():
                    return None
                shape = self._schedule.shapes[batch.shape]
                arrays = sharding.to_device(batch.arrays, self._mesh)
                out = self._loss(params, arrays, shape)
                for name, pair in {"loss": (out.loss, out.weight), **out.metrics}.items():
                    sums[name] = sums.get(name, np.zeros(2)) + np.asarray(pair, np.float64)
                places = list(zip(batch.records.tolist(), batch.rows.tolist(), strict=True))
                for record, row in places:
                    loss, weight = float(out.utterance_loss[row, 0]), float(out.utterance_weight[row, 0])
                    if weight > 0 and math.isfinite(loss):
                        losses[record] = loss / weight
                if self._decode is not None:
                    heard = self._decode(params, arrays, shape)
                    for record, row in places:
                        tokens = heard.tokens[row, : heard.length[row]]
                        found[record] = self._task.tokenizer.decode(tokens.tolist())
                failures += batch.failures
                done += len(places)
                if progress is not None:
                    progress(done, count)
        decode_seconds = self._decode.seconds - before if self._decode else 0.0
        result = self._result(found, losses, sums, distributed.gather_list(failures), decode_seconds)
        return result if condition is None else dataclasses.replace(result, condition=condition.name)

    def _result(
        self,
        found: dict[int, str],
        losses: dict[int, float],
        sums: dict[str, np.ndarray],
        failures: list[tuple[str, str, str]],
        decode_seconds: float,
    ) -> Result:
        errors = {name: ": ".join(filter(None, why)) for name, *why in failures}
        rows = [dict(row) for row in self._rows]
        for i, row in enumerate(rows):
            if row["id"] in errors:
                row["error"] = errors[row["id"]]
            else:
                row["hypothesis"], row["loss"] = found.get(i), losses.get(i)
        scores = None
        if self._decode is not None:
            scores = score([row["reference"] for row in rows], [row["hypothesis"] for row in rows], self._normalizer)
            for row, words in zip(rows, scores.utterance_words, strict=True):
                row["hypothesis"], row["wer"] = row["hypothesis"] or "", words.rate
        means = {name: float(total / weight) if weight else math.nan for name, (total, weight) in sums.items()}
        return Result(
            set=self.name,
            loss=means.pop("loss"),
            scores=scores,
            audio_seconds=float(sum(row["duration"] for row in rows if "error" not in row)),
            decode_seconds=decode_seconds,
            failed=len(errors),
            sums=means,
            records=rows,
        )


def plan_once(task: Task, collection: Any, batch_seconds: float, mesh: Mesh) -> Schedule:
    """Every utterance once, in few shapes made for this set.

    Args:
        collection: a `Collection`, or what else has `durations` and `texts()`.
        batch_seconds: audio of a batch, padding included.
    """
    lengths = task.measure(collection)
    everyone = np.arange(len(lengths))
    padded = float(lengths.audio.max()) / task.sample_rate * len(lengths)  # seconds, in a single shape
    seconds = min(batch_seconds, padded)  # not more rows than there are utterances
    shapes = choose_shapes(
        lengths,
        everyone,
        max_shapes=min(SHAPES, 1 + int(padded / seconds / _WORTH)),
        batch_seconds=seconds,
        row_multiple=math.prod(mesh.shape[axis] for axis in sharding.ROWS),
        sample_rate=task.sample_rate,
    )
    return Schedule.once(shapes, lengths, everyone)
