"""Schedule-free AdamW (Defazio et al., "The Road Less Scheduled", arXiv 2405.15682), its state in fp32 or better.

There are three sequences of weights. Gradients are taken at y, which is what training holds as its parameters; z takes
the AdamW steps; x is the running average of z, and is what is evaluated and published:

    z' = z - lr * (g / (sqrt(nu / (1 - b2^t)) + eps) + weight_decay * y)
    x' = (1 - c) x + c z'       c = w / (sum of w so far)       w = t^r lr_max^2, t = 1, 2, …
    y' = b1 x' + (1 - b1) z'

This is the algorithm of facebookresearch/schedule_free 1.4 (`AdamWScheduleFree`, weight_lr_power = 2).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxspeech.task import Params

_NONE = optax.MaskedNode()  # an empty node where a leaf has nothing to keep


class ScheduleFreeState(NamedTuple):
    """What the optimiser keeps. Everything is at least fp32, whatever the dtype of the parameters.

    Attributes:
        z: the weights that take the steps.
        x: the averaged weights, kept only for parameters of less than fp32: y in bf16 could not give them back.
            For fp32 parameters they follow from y and z, and an empty node stands here.
        nu: running mean of the squared gradient.
        count: updates so far.
        weight_sum: sum of the weights w of the updates so far, in units of the newest. In these units each update adds
            exactly 1, which fp32 sums without error for 16 million updates at a constant rate.
        lr_max: the highest learning rate so far.
        b1: how far y lies from z towards x.
    """

    z: Params
    x: Params
    nu: Params
    count: Int[Array, ""]  # type: ignore[assignment]  # a tuple has a method of this name, which nothing here wants
    weight_sum: Float[Array, ""]
    lr_max: Float[Array, ""]
    b1: Float[Array, ""]


def schedule_free_adamw(
    learning_rate: Callable[[Array], Array] | float,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decay_mask: Callable[[Params], Any] | Any | None = None,
    average_power: float = 0.0,
) -> optax.GradientTransformation:
    """Schedule-free AdamW; the parameters in training are y, `evaluation_params` gives x.

    Clipping goes outside: `optax.chain(optax.clip_by_global_norm(c), schedule_free_adamw(…))`.

    Args:
        learning_rate: of update t = 0, 1, …; warm-up belongs in it.
        b1: interpolation between z and x, in place of momentum; strictly between 0 and 1.
        b2: decay of the mean of squared gradients; strictly between 0 and 1.
        eps: added to the root of that mean.
        weight_decay: acts at y, times the learning rate, as in AdamW.
        decay_mask: tree of booleans like the parameters, or a function that makes one of them; None decays all.
        average_power: r of the weights t^r of the average. 0 weighs all updates alike; with r the last 1 / (r + 1) of
            a run decide, for runs whose early weights are not worth keeping.

    Raises:
        ValueError: b1, b2 or average_power out of range, or an update without parameters.
    """
    if not 0 < b1 < 1:
        raise ValueError(f"b1 = {b1}: x cannot be found from y and z unless 0 < b1 < 1")
    if not 0 < b2 < 1:
        raise ValueError(f"b2 = {b2}: it must lie between 0 and 1")
    if not average_power >= 0:
        raise ValueError(f"average_power = {average_power}: it must not be negative")
    log_b2 = math.log(b2)

    def init(params: Params) -> ScheduleFreeState:
        return ScheduleFreeState(
            # Copies, for the step donates parameters and state together, and no buffer may be donated twice.
            z=jax.tree.map(lambda p: jnp.array(p, _at_least_fp32(p), copy=True), params),
            x=jax.tree.map(lambda p: jnp.array(p, jnp.float32, copy=True) if _is_low(p) else _NONE, params),
            nu=jax.tree.map(lambda p: jnp.zeros_like(p, _at_least_fp32(p)), params),
            count=jnp.zeros((), jnp.int32),
            weight_sum=jnp.zeros((), jnp.float32),
            lr_max=jnp.zeros((), jnp.float32),
            b1=jnp.asarray(b1, jnp.float32),
        )

    def update(
        updates: Params, state: ScheduleFreeState, params: Params | None = None
    ) -> tuple[Params, ScheduleFreeState]:
        if params is None:
            raise ValueError("schedule-free AdamW needs the parameters: tx.update(gradient, state, params)")
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        lr = jnp.asarray(rate, jnp.float32)
        lr_max = jnp.maximum(lr, state.lr_max)
        scale = jnp.where(lr_max > 0, state.lr_max / jnp.where(lr_max > 0, lr_max, 1.0), 0.0) ** 2
        if average_power:
            count = state.count.astype(jnp.float32)
            scale = scale * (count / (count + 1)) ** average_power
        weight_sum = state.weight_sum * scale + jnp.where(lr_max > 0, 1.0, 0.0)
        c = jnp.where(lr_max > 0, 1.0 / jnp.maximum(weight_sum, 1.0), 0.0)  # nothing to average before the first step
        # 1 - b2^t without the cancellation that costs fp32 four digits at t = 1
        correction = -jnp.expm1((state.count + 1).astype(jnp.float32) * log_b2)

        # Scalars are done once and kept: fused into the loops over the parameters, XLA would do them for every element.
        lr, c, scale_nu = jax.lax.optimization_barrier((lr, c, 1.0 / correction))

        mask = decay_mask(params) if callable(decay_mask) else decay_mask
        if mask is None:
            mask = jax.tree.map(lambda _: True, params)

        def leaf(g: Array, p: Array, z: Array, x: Any, nu: Array, decays: bool) -> tuple[Array, Array, Any, Array]:
            low = not isinstance(x, optax.MaskedNode)
            g = g.astype(z.dtype)
            y = b1 * x + (1 - b1) * z if low else p
            nu = b2 * nu + (1 - b2) * jnp.square(g)
            direction = g / (jnp.sqrt(nu * scale_nu) + eps)
            if weight_decay:
                direction = direction + jnp.where(decays, weight_decay, 0.0) * y
            new_z = z - lr * direction
            if low:
                # The parameter becomes the rounded y; what rounding loses stays in x and z.
                new_x = x + c * (new_z - x)
                return b1 * new_x + (1 - b1) * new_z - p.astype(z.dtype), new_z, new_x, nu
            # y' - y without x, and without the old z, whose buffer the new one takes over: no copies.
            return c * (new_z - y) - lr * ((1 - b1) * (1 - c)) * direction, new_z, _NONE, nu

        # Flattened by the gradient's structure, for a state may hold empty nodes where others hold arrays.
        structure: Any
        leaves, structure = jax.tree.flatten(updates)
        others = (structure.flatten_up_to(tree) for tree in (params, state.z, state.x, state.nu, mask))
        results = [leaf(*each) for each in zip(leaves, *others, strict=True)]
        step, z, x, nu = (jax.tree.unflatten(structure, [each[i] for each in results]) for i in range(4))
        return step, ScheduleFreeState(z, x, nu, state.count + 1, weight_sum, lr_max, jnp.asarray(b1, jnp.float32))

    return optax.GradientTransformation(init, update)


def evaluation_params(opt_state: optax.OptState, params: Params) -> Params:
    """The averaged weights x for schedule-free optimisers, `params` as they are for all others.

    The state is found wherever it lies: in a chain, in a partition, behind a mask. Parameters that it does not cover
    are returned unchanged; every leaf keeps its dtype, but for those of less than fp32, which are returned in fp32.
    """
    states = [
        node
        for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, ScheduleFreeState))
        if isinstance(node, ScheduleFreeState)
    ]
    averaged: dict[Any, tuple[Any, Any, Array]] = {}
    for state in states:
        kept = dict(jax.tree_util.tree_flatten_with_path(state.x)[0])
        for path, z in jax.tree_util.tree_flatten_with_path(state.z)[0]:
            averaged[path] = (z, kept.get(path), state.b1)

    def average(path: Any, y: Array) -> Array:
        if path not in averaged:
            return y
        z, x, b1 = averaged[path]
        return x if x is not None else y + (y - z) * ((1 - b1) / b1)

    return jax.tree_util.tree_map_with_path(average, params) if states else params


def _is_low(leaf: Array) -> bool:
    return jnp.finfo(leaf.dtype).bits < 32


def _at_least_fp32(leaf: Array) -> jnp.dtype:
    return jnp.promote_types(leaf.dtype, jnp.float32)
