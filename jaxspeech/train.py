"""The loop: restore, step, evaluate, save, leave. It reads top to bottom and knows nothing of speech.

The host runs one step ahead of what it reads: step n is dispatched before the metrics of step n-1 are fetched, so that
the device never waits for the host.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import time
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxspeech import config as configs
from jaxspeech import optim, output
from jaxspeech import params as trees
from jaxspeech import step as steps
from jaxspeech.audit import audit
from jaxspeech.checkpoint import restore
from jaxspeech.checkpoint.fingerprint import refuse_changes
from jaxspeech.checkpoint.store import Checkpoints
from jaxspeech.compile import compile_all, fit_batch_seconds, specify
from jaxspeech.data import pipeline
from jaxspeech.data.ledger import Ledger
from jaxspeech.data.shapes import Lengths
from jaxspeech.errors import EXIT_REQUEUE, UserError
from jaxspeech.evaluation.evaluate import Evaluator, evaluation_sets
from jaxspeech.observe.compilations import CompilationCounter
from jaxspeech.observe.metrics import Writer
from jaxspeech.observe.profile import Profiler
from jaxspeech.observe.progress import Progress
from jaxspeech.observe.window import Window
from jaxspeech.parallel import distributed, sharding
from jaxspeech.parallel.host_memory import keep_freed_memory
from jaxspeech.parallel.mesh import make_mesh
from jaxspeech.parallel.preemption import Preemption
from jaxspeech.prepare import Prepared, describe, prepare
from jaxspeech.task import Task

_UNREAD: Any = ()  # what stays on the device unless a step was skipped


def train(config: ConfigDict, workdir: str, *, profile: str = "") -> int:
    """Trains until `config.train.steps`, from where the workdir stands. Returns the exit code: 0, or 75 to start again.

    Raises:
        UserError: anything that the user can correct.
    """
    keep_freed_memory()
    distributed.initialize()
    jax.config.update("jax_default_matmul_precision", config.train.matmul_precision)
    folder = output.folder(workdir, "--workdir")
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh), contextlib.ExitStack() as stack:
        preemption = stack.enter_context(Preemption())
        prepared = prepare(config, fit=lambda task, lengths: _fitted(config, folder, task, lengths, mesh))
        checkpoints = stack.enter_context(contextlib.closing(_checkpoints(config, folder)))
        state, frozen, meta = _start(config, folder, prepared, checkpoints, mesh)
        audit(prepared, state.params)
        run = _Run(config, folder, prepared, checkpoints, mesh, preemption, state, frozen, meta)
        run.writer = stack.enter_context(
            contextlib.closing(
                Writer(
                    folder,
                    config.log,
                    resume_step=run.step if run.saved >= 0 else -1,
                    evaluated=run.evaluated,
                    config=config.to_dict(),
                )
            )
        )
        run.progress = stack.enter_context(
            contextlib.closing(Progress(config.train.steps, run.step, enabled=distributed.is_main()))
        )
        run.profiler = stack.enter_context(contextlib.closing(Profiler(folder, profile)))
        run.compile()
        return run.loop()


def _checkpoints(config: ConfigDict, folder: pathlib.Path) -> Checkpoints:
    section = config.checkpoint
    return Checkpoints(
        folder / restore.CHECKPOINTS, keep=section.keep, keep_every=section.keep_every, keep_best=section.keep_best
    )


def _fitted(config: ConfigDict, folder: pathlib.Path, task: Task, lengths: Lengths, mesh: jax.sharding.Mesh) -> float:
    """Seconds of audio a batch: what was fitted at the first start, kept for whatever hardware comes later."""
    kept = folder / "fitted.json"
    if not kept.exists():
        seconds = fit_batch_seconds(config, task, lengths, mesh)
        if distributed.is_main():
            output.write(kept, json.dumps({"data.batch_seconds": seconds}).encode())
        return seconds
    return json.loads(kept.read_text(encoding="utf-8"))["data.batch_seconds"]


def _start(
    config: ConfigDict, folder: pathlib.Path, prepared: Prepared, checkpoints: Checkpoints, mesh: jax.sharding.Mesh
) -> tuple[steps.TrainState, Any, dict[str, Any]]:
    """The state that training goes on from, the frozen parameters, and what was saved beside the state.

    The restart policy: the workdir's own newest checkpoint, else `init_from` (a checkpoint, or published weights), else
    random weights.
    """
    task = prepared.task
    state_spec, frozen_spec = specify(config, task, mesh)
    own = checkpoints.newest()
    params = None
    if own is None or jax.tree.leaves(frozen_spec):
        params = restore.starting_params(task, config)
    trainable, frozen = trees.split(params, task.frozen) if params else ({}, {})
    frozen = sharding.place(frozen, jax.tree.map(lambda x: x.sharding, frozen_spec))
    if own is not None:
        meta = checkpoints.meta(own)
        if not config.checkpoint.accept_changes:
            refuse_changes(meta["fingerprint"], prepared.fingerprint, str(folder))
        return checkpoints.restore(own, state_spec), frozen, {"step": own, **meta}
    layout = jax.tree.map(lambda x: x.sharding, state_spec)
    tx = optim.build(config.optim, config.train.steps)
    init = jax.jit(lambda p: steps.init_state(p, tx, config.seed), out_shardings=layout)
    return init(sharding.place(trainable, layout.params)), frozen, {"step": 0}


class _Run:
    """What the loop holds between steps. Everything that a restart needs is in `state` and in `save`'s meta."""

    writer: Writer
    progress: Progress
    profiler: Profiler
    compilations: CompilationCounter

    def __init__(
        self,
        config: ConfigDict,
        folder: pathlib.Path,
        prepared: Prepared,
        checkpoints: Checkpoints,
        mesh: jax.sharding.Mesh,
        preemption: Preemption,
        state: steps.TrainState,
        frozen: Any,
        meta: dict[str, Any],
    ) -> None:
        self.config, self.folder, self.prepared, self.mesh = config, folder, prepared, mesh
        self.task, self.schedule = prepared.task, prepared.schedule
        self.checkpoints, self.preemption = checkpoints, preemption
        self.state, self.frozen = state, frozen
        self.step: int = meta["step"]
        self.ledger = Ledger.from_json(meta["ledger"]) if "ledger" in meta else Ledger()
        self.window = Window(audio_seconds=meta.get("audio_seconds", 0.0))
        self.best: float = math.inf if meta.get("best") is None else meta["best"]
        self.score = math.inf
        self.improved = False
        self.scored = -1  # the step of `score`
        self.evaluated: bool = meta.get("evaluated", True) or checkpoints.scored_later(self.step)
        self.unsettled: list[tuple[int, int, list]] = []
        self.saved = self.step if "fingerprint" in meta else -1
        self.evaluators = [
            Evaluator(self.task, name, manifest, config.eval, mesh)
            for name, manifest in evaluation_sets(config).items()
        ]
        if distributed.is_main():
            (folder / restore.CONFIG).write_text(configs.to_json(config), encoding="utf-8")
            restore.keep_tokenizer(config.data.tokenizer, folder)

    def compile(self) -> None:
        """Compiles every shape ahead of the first step, and writes what is known before it into plan.json."""
        start = time.perf_counter()
        self.accumulate, self.compiled = compile_all(
            self.config, self.task, self.schedule.shapes, self.mesh, self.progress.stage
        )
        layout = jax.tree.map(lambda x: x.sharding, self.state.params)
        average = jax.jit(lambda s: optim.evaluation_params(s.opt_state, s.params), out_shardings=layout)
        self.average = average.lower(self.state).compile()
        for evaluator in self.evaluators:
            self.progress.stage(f"compiling the evaluation of {evaluator.name}")
            evaluator.compile(trees.merge(self.state.params, self.frozen))
        self.progress.stage("")
        devices = {"device": jax.devices()[0].device_kind, "devices": jax.device_count()}
        report = devices | restore.summary(self.state.params, self.frozen) | describe(self.prepared)
        for shape, compiled in zip(report["shapes"], self.compiled):
            shape["memory_bytes"] = compiled.memory_bytes
        if distributed.is_main():
            (self.folder / "plan.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
        memory = max(compiled.memory_bytes for compiled in self.compiled)
        shapes = f"{len(self.compiled)} shape" + "s" * (len(self.compiled) > 1)
        self.progress.note(
            f"{report['parameters']:,} parameters ({report['trainable']:,} train), {report['utterances']:,} "
            f"utterances, {report['batches']:,} batches an epoch, padding {report['padding']:.1%}; {shapes} compiled "
            f"in {time.perf_counter() - start:.0f} s, {memory / 2**30:.2f} GiB a device"
            + (f", {self.accumulate} micro-batches" if self.accumulate > 1 else "")
        )

    def loop(self) -> int:
        """Steps until the end or a signal; returns the exit code."""
        config, total = self.config, self.config.train.steps
        if self.step >= total and self.evaluated:
            self.progress.note(f"already at step {self.step} of {total}; raise config.train.steps to go on")
            return 0
        if not self.evaluated:  # a signal came in the middle of it
            self.evaluated = self.evaluate()
            if not self.evaluated:
                return self._stopped()
            self.checkpoints.score_later(self.step, self._score())
        batches = pipeline.batches(
            self.prepared.collection,
            self.schedule,
            self.task,
            start=self.step,
            stop=total,
            rows=lambda shape: sharding.host_rows(shape, self.mesh, self.accumulate)[1],
            seed=config.seed,
            workers=config.data.workers,
            threads=config.data.threads,
            prefetch=config.data.prefetch,
        )
        pending = None
        self.window.close()  # the clocks begin here
        with contextlib.closing(batches), CompilationCounter() as self.compilations:
            while self.step < total:
                self.profiler.step(self.step + 1)
                with self.window.waiting():
                    batch = next(batches)
                arrays = sharding.to_device(batch.arrays, self.mesh)
                self.state, metrics = self.compiled[batch.shape].run(self.state, self.frozen, arrays)
                self.step += 1
                self.account(batch)
                self.report(pending)
                pending = _Pending(self.step, batch, metrics)
                self.checkpoints.check()

                last, stopping = self.step == total, self.preemption.requested(self.step)
                evaluation_due = self._due(config.eval.every) or last
                save_due = self._due(config.checkpoint.every) or last
                if not (stopping or evaluation_due or save_due):
                    continue
                self.report(pending)  # before saving: a line in metrics.jsonl is never younger than the checkpoint
                pending = None
                self.improved = False
                with self.window.paused():
                    if evaluation_due:
                        self.evaluated = not stopping and self.evaluate()
                    stopping = stopping or not self.evaluated
                    if stopping or save_due or self.improved:
                        self.save()
                if stopping and not (last and self.evaluated):
                    return self._stopped()
        self.checkpoints.finish()
        return 0

    def _stopped(self) -> int:
        self.checkpoints.finish()
        self.progress.note(f"stopped by a signal at step {self.step}; the same command goes on from there")
        return EXIT_REQUEUE

    def _score(self) -> float | None:
        """What ranks the checkpoint of this step, if it has been evaluated."""
        return self.score if self.scored == self.step and math.isfinite(self.score) else None

    def _due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0

    def account(self, batch: pipeline.HostBatch) -> None:
        """Enters a batch that was dispatched into what `settle` will enter into the ledger."""
        for name, reason, *detail in batch.failures:
            self.progress.note(f"step {self.step}: {name} could not be read: {reason} {' '.join(detail)}".rstrip())
        self.unsettled.append((batch.epoch, len(batch.records), batch.failures))

    def settle(self) -> None:
        """Enters the batches since the last time into the ledger; failures are gathered from all hosts at once."""
        filtered = self.prepared.selection.counts(self.prepared.collection.weights)
        everywhere = distributed.gather([failures for _, _, failures in self.unsettled])
        for place, (epoch, read, _) in enumerate(self.unsettled):
            failures = [failure for host in everywhere for failure in host[place]]
            self.ledger.begin(epoch, filtered)
            self.ledger.batch(epoch, read, read - len(failures), failures)
            self.ledger.stop_if_too_many_fail(epoch, self.config.data.max_failed)
        self.unsettled.clear()
        if distributed.is_main():
            self.ledger.write(self.folder / "ledger.json")

    def report(self, pending: "_Pending | None") -> None:
        """Reads the metrics of a step that the device has finished, or is about to."""
        if pending is None:
            return
        step, batch, device_metrics = pending
        self.window.add(batch.audio_seconds, batch.padding, self.task.flops(self.prepared.recorded[batch.records]))
        metrics = jax.device_get(dataclasses.replace(device_metrics, utterance_loss=_UNREAD))
        if not metrics.applied:
            self._explain_skip(step, batch, device_metrics)
        line = {
            "split": "train",
            "step": step,
            "epoch": batch.epoch,
            "batch": f"{zlib.crc32(batch.records.tobytes()):08x}",  # the same utterances have the same number
            "loss": float(metrics.loss),
            "lr": float(metrics.learning_rate),
            "grad_norm": float(metrics.grad_norm),
            "audio_seconds": self.window.audio_seconds,
            **{name: float(value) for name, value in metrics.metrics.items()},
            "skipped_updates": int(metrics.skipped),
        }
        if step % self.config.log.every == 0 or step == self.config.train.steps:
            line |= self.window.close() | {"compilations": self.compilations.count}
            self.writer.write(line)
            self.settle()
        else:
            line |= self.window.now()
        self.progress.update(step, line)

    def _explain_skip(self, step: int, batch: pipeline.HostBatch, metrics: steps.StepMetrics) -> None:
        losses = np.asarray(metrics.utterance_loss).reshape(-1)
        ids = self.prepared.collection.ids(batch.records)
        culprits = [ids[place] for place in batch.places(np.flatnonzero(~np.isfinite(losses)))]
        named = f"loss not finite for {', '.join(culprits[:8])}" if culprits else f"batch of {', '.join(ids[:8])}"
        more = len(culprits or ids) - 8
        text = f"gradient not finite at step {step}, nothing changed; {named}" + (
            f" and {more} more" if more > 0 else ""
        )
        self.progress.note(text)
        if int(metrics.skipped_in_row) >= self.config.train.max_skipped:
            raise UserError(
                f"{int(metrics.skipped_in_row)} gradients in a row were not finite (config.train.max_skipped); "
                f"the last: {text}. "
                "Lower config.optim.learning_rate, raise warmup_steps, or look at these utterances; "
                "checkpoints are untouched"
            )

    def evaluate(self) -> bool:
        """Evaluates all sets with the averaged weights. False if a signal came in between."""
        params = trees.merge(self.average(self.state), self.frozen)
        scores = []
        for evaluator in self.evaluators:
            name = evaluator.name
            result = evaluator.run(
                params,
                poll=lambda: self.preemption.requested(self.step),
                progress=lambda done, count: self.progress.stage(f"evaluating {name} {done}/{count}"),  # noqa: B023
            )
            self.progress.stage("")
            if result is None:
                return False
            scores.append(result.loss if result.wer is None else result.wer)
            self.writer.write({"split": "eval", "step": self.step, **result.metrics()})
            self.progress.update(self.step, {"split": "eval", **result.metrics()})
            for text in result.samples(self.config.eval.samples):
                self.progress.note(text)
            if distributed.is_main():
                result.write(self.folder / "evaluations" / f"{result.set}.jsonl")
        self.score, self.scored = float(np.mean(scores)) if scores else math.inf, self.step
        self.improved = self.score < self.best
        self.best = min(self.best, self.score)
        return True

    def save(self) -> None:
        """Starts to save everything that a restart needs."""
        if self.saved == self.step:
            return
        self.settle()
        meta = {
            "score": self._score(),
            "best": self.best if math.isfinite(self.best) else None,
            "evaluated": self.evaluated,
            "audio_seconds": self.window.audio_seconds,
            "ledger": self.ledger.to_json(),
            "fingerprint": self.prepared.fingerprint,
        }
        self.checkpoints.save(self.step, self.state, meta)
        self.saved = self.step


class _Pending(NamedTuple):
    """A step that was dispatched and whose metrics nobody has read yet."""

    step: int
    batch: pipeline.HostBatch
    metrics: steps.StepMetrics
