"""The optimiser that `config.optim` asks for."""

import jax
import optax
from ml_collections import ConfigDict

from jaxspeech.errors import UserError
from jaxspeech.optim.schedule_free import schedule_free_adamw
from jaxspeech.optim.schedules import learning_rate, unknown
from jaxspeech.params import path_name
from jaxspeech.task import Params

NAMES = ("schedule_free_adamw", "adamw")


def build(section: ConfigDict, total_steps: int) -> optax.GradientTransformation:
    """The optimiser of a run, with clipping by the global norm in front.

    Args:
        section: `config.optim`.
        total_steps: updates of the whole run.

    Raises:
        UserError: naming the key that cannot work, its value and what it may be.
    """
    if section.name not in NAMES:
        raise UserError(f"config.optim.name = {section.name!r}: {unknown(section.name, list(NAMES))}")
    for key in ("b1", "b2"):
        if not 0 < section[key] < 1:
            raise UserError(f"config.optim.{key} = {section[key]}: it must lie between 0 and 1")
    if not section.eps > 0:
        raise UserError(f"config.optim.eps = {section.eps}: it must be greater than 0")
    if not section.average_power >= 0:
        raise UserError(f"config.optim.average_power = {section.average_power}: it must not be negative")
    for key in ("weight_decay", "clip_norm"):
        if not section[key] >= 0:
            raise UserError(f"config.optim.{key} = {section[key]}: it must not be negative; 0 turns it off")

    rate = learning_rate(section, total_steps)
    if section.name == "schedule_free_adamw":
        optimiser = schedule_free_adamw(
            rate,
            b1=section.b1,
            b2=section.b2,
            eps=section.eps,
            weight_decay=section.weight_decay,
            decay_mask=decays,
            average_power=section.average_power,
        )
    else:
        optimiser = optax.adamw(
            rate, b1=section.b1, b2=section.b2, eps=section.eps, weight_decay=section.weight_decay, mask=decays
        )
    if not section.clip_norm:
        return optimiser
    return optax.chain(optax.clip_by_global_norm(section.clip_norm), optimiser)


def decays(params: Params) -> Params:
    """Which parameters weight decay acts on: kernels and embeddings, no bias and no scale of a norm."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path_name(path).endswith(("kernel", "embedding")),
        params,
    )
