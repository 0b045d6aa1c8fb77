"""What `config.optim` becomes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from jaxspeech import optim
from jaxspeech.errors import UserError
from jaxspeech.optim.build import decays

DEFAULTS = {
    "name": "schedule_free_adamw",
    "schedule": "constant",
    "learning_rate": 1e-2,
    "warmup_steps": 0,
    "final_rate": 0.0,
    "b1": 0.9,
    "b2": 0.999,
    "average_power": 0.0,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "clip_norm": 1.0,
}


def section(**changes):
    return ConfigDict(DEFAULTS | changes)


def params():
    return {
        "encoder": {"conv1": {"kernel": jnp.ones((3, 1, 2))}, "norm": {"scale": jnp.ones(2)}},
        "decoder": {
            "embedding": {"embedding": jnp.ones((4, 2))},
            "query": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((2, 1))},
        },
    }


def update(tx, gradient, tree):
    updates, state = tx.update(gradient, tx.init(tree), tree)
    return optax.apply_updates(tree, updates), state


@pytest.mark.parametrize("name", ["schedule_free_adamw", "adamw"])
def test_decay_acts_on_kernels_and_embeddings_only(name):
    tree = params()
    after, _ = update(
        optim.build(section(name=name, weight_decay=0.5), 10), jax.tree.map(jnp.zeros_like, tree), tree
    )  # the gradient is 0: only decay moves
    shrunk = jax.tree.map(lambda a, b: bool((a < b).all()), after, tree)
    assert shrunk == decays(tree)
    assert shrunk == {
        "encoder": {"conv1": {"kernel": True}, "norm": {"scale": False}},
        "decoder": {"embedding": {"embedding": True}, "query": {"kernel": True, "bias": False}},
    }
    np.testing.assert_allclose(after["encoder"]["conv1"]["kernel"], 1 - 1e-2 * 0.5, rtol=1e-6)


@pytest.mark.parametrize("name", ["schedule_free_adamw", "adamw"])
def test_clipping_bounds_what_the_moments_see(name):
    tree = {"bias": jnp.zeros(4)}
    gradient = {"bias": jnp.full(4, 50.0)}  # global norm 100
    _, state = update(optim.build(section(name=name, clip_norm=2.0), 10), gradient, tree)
    np.testing.assert_allclose(optax.tree.get(state, "nu")["bias"], 0.001 * 1.0**2, rtol=1e-5)
    _, state = update(optim.build(section(name=name, clip_norm=0.0), 10), gradient, tree)
    np.testing.assert_allclose(optax.tree.get(state, "nu")["bias"], 0.001 * 50.0**2, rtol=1e-5)


@pytest.mark.parametrize("name", ["schedule_free_adamw", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "one_cycle"])
def test_the_update_has_the_rate_that_is_reported(name, schedule):
    chosen = section(name=name, schedule=schedule, warmup_steps=5, clip_norm=0.0, b1=0.5, b2=0.5)
    tx, rate = optim.build(chosen, 20), optim.learning_rate(chosen, 20)
    tree = {"bias": jnp.zeros(())}
    state = tx.init(tree)
    for step in range(20):
        z = tree["bias"] if name == "adamw" else optax.tree.get(state, "z")["bias"]
        updates, state = tx.update({"bias": jnp.ones(())}, state, tree)
        tree = optax.apply_updates(tree, updates)
        new = tree["bias"] if name == "adamw" else optax.tree.get(state, "z")["bias"]
        np.testing.assert_allclose(z - new, rate(step), rtol=1e-3, atol=1e-7)  # a constant gradient: Adam steps by lr


def test_every_optimiser_learns_a_line():
    target = jnp.asarray([0.3, -0.7])
    for name in ("schedule_free_adamw", "adamw"):
        tx = optim.build(section(name=name, warmup_steps=10), 500)
        tree = {"kernel": jnp.zeros(2)}
        state = tx.init(tree)
        step = jax.jit(lambda t, s, tx=tx: tx.update({"kernel": t["kernel"] - target}, s, t))
        for _ in range(500):
            updates, state = step(tree, state)
            tree = optax.apply_updates(tree, updates)
        np.testing.assert_allclose(optim.evaluation_params(state, tree)["kernel"], target, atol=2e-2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "schedule_free"}, "'schedule_free': did you mean 'schedule_free_adamw'"),
        ({"name": "lion"}, "schedule_free_adamw, adamw"),
        ({"b1": 1.0}, "optim.b1 = 1.0"),
        ({"b2": 0.0}, "optim.b2 = 0.0"),
        ({"eps": 0.0}, "optim.eps = 0.0"),
        ({"average_power": -1.0}, "optim.average_power = -1.0"),
        ({"weight_decay": -0.1}, "optim.weight_decay = -0.1"),
        ({"clip_norm": -1.0}, "optim.clip_norm = -1.0"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
    ],
)
def test_a_wrong_value_is_named(changes, words):
    with pytest.raises(UserError) as error:
        optim.build(section(**changes), 100)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
