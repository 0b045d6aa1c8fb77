"""Where a run takes its first weights from: what does not fit is said with the keys that differ."""

import jax
import numpy as np
import pytest
from drill import TINY

from jaxspeech import config as configs
from jaxspeech import optim
from jaxspeech import params as trees
from jaxspeech import step as steps
from jaxspeech.checkpoint.restore import starting_params
from jaxspeech.checkpoint.store import Checkpoints
from jaxspeech.errors import UserError
from jaxspeech.interop import moonshine_hf
from jaxspeech.tasks.moonshine import Moonshine


def config_of(**changes):
    config = configs.base("jaxspeech.tasks.moonshine.Moonshine")
    for name, value in (TINY | {"model.vocab_size": 0} | changes).items():
        configs.override(config, name, str(value))
    return config


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    config = config_of()
    task = Moonshine.from_config(config)
    params = jax.jit(task.init)(jax.random.key(1))
    folder = tmp_path_factory.mktemp("weights") / "hf"
    moonshine_hf.write_folder(folder, params, task.config, config.data.tokenizer)
    return str(folder), params


def test_they_are_those_of_the_folder(published):
    folder, params = published
    config = config_of(init_from=folder)
    found = starting_params(Moonshine.from_config(config), config)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert dict(trees.named(found)).keys() == dict(trees.named(params)).keys()


def test_a_run_of_another_form_is_refused_with_what_differs(tmp_path):
    there = config_of()
    task = Moonshine.from_config(there)
    state = steps.init_state(task.init(jax.random.key(0)), optim.build(there.optim, there.train.steps), 0)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, state, {})
    checkpoints.close()
    (tmp_path / "config.json").write_text(configs.to_json(there))
    here = config_of(init_from=str(tmp_path), **{"model.scan_layers": True})
    with pytest.raises(UserError, match=r"\(scan_layers is True here and False there\): .*decoder/layer"):
        starting_params(Moonshine.from_config(here), here)
