"""Whose weights: where a run starts from, and what `--checkpoint` loads for use.

A place is a workdir (its best checkpoint), `DIR@step`, or a folder of published weights.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxspeech import config as configs
from jaxspeech import optim, output
from jaxspeech import params as trees
from jaxspeech import step as steps
from jaxspeech.checkpoint.store import Checkpoints, abstract
from jaxspeech.errors import UserError
from jaxspeech.interop import published
from jaxspeech.task import Params, Task, task_class

CONFIG, CHECKPOINTS, TOKENIZER = "config.json", "checkpoints", "tokenizer"


def starting_params(task: Task, config: ConfigDict) -> Params:
    """The weights before step 0: those of `config.init_from`, else random ones from `config.seed`."""
    if not config.init_from:
        return jax.jit(task.init)(jax.random.key(config.seed))
    params, place = weights(task, config.init_from), config.init_from
    expected = dict(trees.named(trees.shapes(task.init)))
    found = dict(trees.named(params))
    wrong = [name for name in expected.keys() ^ found.keys()]
    wrong += [name for name in expected.keys() & found.keys() if expected[name].shape != found[name].shape]
    if wrong:
        names = ", ".join(sorted(wrong)[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise UserError(
            f"config.init_from = {place!r} does not fit config.model{_unlike(config, place)}: missing, unexpected or "
            f"other shape: {names}"
        )
    return jax.tree.map(jnp.asarray, params)


def _unlike(config: ConfigDict, place: str) -> str:
    """What `config.model` has otherwise than the config of the weights at a place."""
    if published.is_published(place):
        theirs = published.config_for(place)
    else:
        theirs = configs.from_json((_workdir_and_step(place)[0] / CONFIG).read_text(encoding="utf-8"))
    here, there = dict(configs.flatten(config.model)), dict(configs.flatten(theirs.model))
    other = [key for key in here.keys() & there.keys() if here[key] != there[key]]
    told = ", ".join(f"{key} is {here[key]!r} here and {there[key]!r} there" for key in sorted(other))
    return f" ({told})" if told else ""


def weights(task: Task, place: str) -> Params:
    """The parameter tree at a place, averaged weights where the optimiser averages."""
    if published.is_published(place):
        return task.load_weights(place)
    return load_for_use(place)[1]


def load_for_use(place: str) -> tuple[Task, Params, ConfigDict]:
    """Task, parameters and config of a workdir, `DIR@step` or a folder of published weights.

    Raises:
        UserError: nothing usable is there.
    """
    if published.is_published(place):
        config = published.config_for(place)
        task = task_class(config.task).from_config(config)
        return task, task.load_weights(place), config
    workdir, step = _workdir_and_step(place)
    config = configs.from_json((workdir / CONFIG).read_text(encoding="utf-8"))
    copies = sorted(workdir.glob(f"{TOKENIZER}.*"))
    if copies:  # the run's own copy: the file that the config names may have moved
        with config.unlocked():
            config.data.tokenizer = str(copies[0])
    task = task_class(config.task).from_config(config)
    checkpoints = Checkpoints(workdir / CHECKPOINTS, read_only=True)
    steps_there = checkpoints.steps()
    step = checkpoints.best() if step is None else step
    if step not in steps_there:
        there = ", ".join(map(str, steps_there)) or "none"
        raise UserError(f"{workdir} has no checkpoint{'' if step is None else f' of step {step}'}; there are: {there}")

    tx = optim.build(config.optim, config.train.steps)

    def fresh() -> tuple[steps.TrainState, Params]:
        trainable, frozen = trees.split(task.init(jax.random.key(config.seed)), task.frozen)
        return steps.init_state(trainable, tx, config.seed), frozen

    shapes, frozen = jax.eval_shape(fresh)
    # On one device, whatever mesh a run that starts from here trains on.
    with jax.set_mesh(jax.sharding.Mesh(np.array(jax.local_devices()[:1]), ("data",))):
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        state = checkpoints.restore(step, abstract(shapes, jax.tree.map(lambda _: here, shapes)))
        checkpoints.close()
        averaged = jax.jit(optim.evaluation_params)(state.opt_state, state.params)
        if jax.tree.leaves(frozen):
            frozen = trees.split(starting_params(task, config), task.frozen)[1]
    return task, trees.merge(averaged, frozen), config


def _workdir_and_step(place: str) -> tuple[pathlib.Path, int | None]:
    folder, at, number = place.rpartition("@")
    if at and number.isdigit() and not pathlib.Path(place).exists():
        workdir, step = pathlib.Path(folder), int(number)
    else:
        workdir, step = pathlib.Path(place), None
    if not workdir.is_dir():
        raise UserError(
            f"--checkpoint {place!r}: no such folder; give a workdir, DIR@step or a folder of published weights"
        )
    if not (workdir / CONFIG).is_file():
        raise UserError(f"--checkpoint {place!r} has neither a {CONFIG} of a run nor weights of a known model")
    return workdir, step


def keep_tokenizer(spec: str, workdir: pathlib.Path) -> None:
    """Copies the tokenizer's file into the workdir, so that the run can be used wherever it is moved.

    What lies there of an earlier start with another tokenizer goes: `load_for_use` prefers the copy to the config.
    """
    source = pathlib.Path(spec)
    target = workdir / f"{TOKENIZER}{source.suffix}"
    content = source.read_bytes() if source.is_file() else None
    for old in workdir.glob(f"{TOKENIZER}.*"):
        if content is None or old != target:
            old.unlink()
    if content is not None and not (target.is_file() and target.read_bytes() == content):
        output.write(target, content)


def summary(trainable: Params, frozen: Params) -> dict[str, int]:
    """How many parameters there are and how many of them train."""
    return {"parameters": trees.count(trainable) + trees.count(frozen), "trainable": trees.count(trainable)}
