"""Compiling every static shape ahead of step 0, and fitting batches to the memory that the compiler says they take."""

import concurrent.futures
import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxspeech import optim
from jaxspeech import params as trees
from jaxspeech import step as steps
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.errors import UserError
from jaxspeech.parallel import sharding
from jaxspeech.task import Params, Task

_HEADROOM = 0.92  # of the device's memory: the rest is for the allocator's fragments and the next batch


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One shape's executable train step.

    Attributes:
        shape: the global batch.
        run: (state, frozen, batch on the device) -> (state, metrics).
        memory_bytes: what it takes on each device, state and batch included.
        seconds: how long compiling took.
    """

    shape: Shape
    run: Callable[..., tuple[steps.TrainState, steps.StepMetrics]]
    memory_bytes: int
    seconds: float


def specify(config: ConfigDict, task: Task, mesh: Mesh) -> tuple[steps.TrainState, Params]:
    """The training state and the frozen parameters as ShapeDtypeStructs with their layout; nothing is allocated."""
    params = trees.shapes(task.init)
    layout = sharding.params_shardings(params, task.sharding_rules, mesh)
    (trainable, frozen), (trainable_layout, frozen_layout) = (trees.split(x, task.frozen) for x in (params, layout))
    tx = optim.build(config.optim, config.train.steps)
    state = jax.eval_shape(lambda p: steps.init_state(p, tx, config.seed), trainable)
    state_layout = sharding.state_shardings(state, trainable_layout, mesh)
    return _specs(state, state_layout), _specs(frozen, frozen_layout)


def _specs(tree: Any, layout: Any) -> Any:
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, layout)


def batch_spec(task: Task, shape: Shape, mesh: Mesh, accumulate: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The global batch of a shape as it lies on the mesh: empty rows are added until it divides."""
    spec = task.batch_spec(sharding.padded(shape, mesh, accumulate))
    return _specs(spec, jax.tree.map(lambda _: sharding.batch_sharding(mesh), spec))


def compile_step(config: ConfigDict, task: Task, shape: Shape, mesh: Mesh, accumulate: int) -> Compiled:
    """Compiles the train step of a shape."""
    start = time.perf_counter()
    tx = optim.build(config.optim, config.train.steps)
    rate = optim.learning_rate(config.optim, config.train.steps)
    state, frozen = specify(config, task, mesh)
    step = jax.jit(
        functools.partial(steps.train_step, task, tx, rate, accumulate),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda x: x.sharding, state), sharding.replicated(mesh)),
    )
    executable = step.lower(state, frozen, batch_spec(task, shape, mesh, accumulate)).compile()
    return Compiled(shape, executable, memory_bytes(executable), time.perf_counter() - start)


def memory_bytes(executable: Any) -> int:
    """Peak memory of an executable on each device: arguments, results that are not donated arguments, temporaries."""
    analysis = executable.memory_analysis()
    if analysis is None:
        return 0
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.generated_code_size_in_bytes
    )


def device_memory(config: ConfigDict) -> int | None:
    """Bytes that a step may take on each device; None if neither the config nor the device says."""
    if config.train.memory_gib:
        return int(config.train.memory_gib * 2**30)
    stats = jax.local_devices()[0].memory_stats()
    limit = (stats or {}).get("bytes_limit")
    return int(limit * _HEADROOM) if limit else None


def fit_batch_seconds(config: ConfigDict, task: Task, lengths: Lengths, mesh: Mesh) -> float:
    """Seconds of audio in a global batch with which the longest utterances fill the devices without micro-batches.

    Memory grows linearly with rows: two small compilations give the line, a third confirms the answer.

    Raises:
        UserError: neither the config nor the device says how much memory there is, or not even one row fits.
    """
    limit = device_memory(config)
    if limit is None:
        raise UserError(
            "config.data.batch_seconds and batch_rows are both 0, and this device does not tell its memory; set one of "
            "them, or config.train.memory_gib"
        )
    shape = Shape(1, -(-int(lengths.audio.max()) // task.stride) * task.stride, int(lengths.text.max()))

    def needed(rows: int) -> int:
        return compile_step(config, task, dataclasses.replace(shape, rows=rows), mesh, 1).memory_bytes

    unit = sharding.padded(shape, mesh).rows  # rows come in multiples of this
    one, two = needed(unit), needed(2 * unit)
    rows = unit * int((limit - one) // max(two - one, 1) + 1)
    while rows > unit and needed(rows) > limit:
        rows -= unit * max(rows // unit // 10, 1)
    if rows < unit or one > limit:
        raise UserError(_too_little(one, limit))
    return rows * shape.samples / task.sample_rate


def _too_little(needed: int, limit: int) -> str:
    return (
        f"one row of the longest shape takes {needed / 2**30:.2f} GiB and the device has {limit / 2**30:.2f} "
        "GiB; lower "
        "config.data.max_seconds, set config.model.remat, or shard with config.mesh.fsdp"
    )


def largest(shapes: Sequence[Shape]) -> Shape:
    """The shape that asks for most memory: most audio, then most text."""
    return max(shapes, key=lambda shape: (shape.rows * shape.samples, shape.rows * shape.tokens))


def compile_all(
    config: ConfigDict, task: Task, shapes: Sequence[Shape], mesh: Mesh, say: Callable[[str], object] = lambda _: None
) -> tuple[int, list[Compiled]]:
    """Every shape's train step, and the number of micro-batches with which all of them fit the device.

    Args:
        say: is told how far it is.

    Raises:
        UserError: `config.train.accumulate` is more than there are rows, or not even one row fits.
    """
    wanted = config.train.accumulate
    rows, devices = max(shape.rows for shape in shapes), math.prod(mesh.shape[axis] for axis in sharding.ROWS)
    most = -(-rows // devices)
    if wanted > most:
        raise UserError(
            f"config.train.accumulate = {wanted}: a batch has {rows} rows for {devices} device{'s' * (devices > 1)}, "
            f"some micro-batches would be empty; give {most} or less, 0 to have it fitted, or larger batches"
        )
    done: list[Shape] = []
    say(f"compiling {len(shapes)} shape{'s' * (len(shapes) > 1)}")

    def compile_with(accumulate: int, shape: Shape) -> Compiled:
        with jax.set_mesh(mesh):  # a thread does not inherit it
            compiled = compile_step(config, task, shape, mesh, accumulate)
        done.append(shape)
        say(f"compiled {len(done)} of {len(shapes)} shapes")
        return compiled

    limit = None if wanted else device_memory(config)
    # The likeliest to be too large goes first, alone; the others after it, for attention may ask more of fewer rows.
    first = largest(shapes)
    order = [[first], [shape for shape in shapes if shape != first]]
    accumulate = wanted or 1
    while True:
        known: dict[Shape, Compiled] = {}
        del done[:]
        for some in order:
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # XLA compiles without the GIL
                known |= dict(zip(some, pool.map(functools.partial(compile_with, accumulate), some)))
            worst = max(known.values(), key=lambda compiled: compiled.memory_bytes)
            if limit is not None and worst.memory_bytes > limit:
                break
        else:
            return accumulate, [known[shape] for shape in shapes]
        if accumulate >= worst.shape.rows:
            raise UserError(_too_little(worst.memory_bytes, limit))
        accumulate *= 2
