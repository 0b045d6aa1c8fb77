"""Fitting into the memory of a device: every shape counts, and no micro-batch is empty."""

import jax
import pytest

from jaxspeech import compile as compiling
from jaxspeech import config as configs
from jaxspeech.compile import Compiled, compile_all
from jaxspeech.data.shapes import Shape
from jaxspeech.errors import UserError
from jaxspeech.parallel.mesh import make_mesh

SHAPES = (Shape(28, 91_000, 20), Shape(13, 184_000, 40), Shape(6, 384_000, 80))  # about as much audio in each


@pytest.fixture
def compiled(monkeypatch):
    """`compile_all` for a device of so many bytes, where attention asks for the square of a row's length."""

    def fake(config, task, shape, mesh, accumulate):
        return Compiled(shape, None, -(-shape.rows // accumulate) * (shape.samples // 1000) ** 2, 0.0)

    def run(limit, accumulate=0):
        config = configs.base("jaxspeech.tasks.moonshine.Moonshine")
        config.train.accumulate = accumulate
        monkeypatch.setattr(compiling, "compile_step", fake)
        monkeypatch.setattr(compiling, "device_memory", lambda config: limit)
        return compile_all(config, None, SHAPES, make_mesh(config.mesh, jax.devices()[:1]))

    return run


def test_the_shape_that_asks_for_most_decides_and_not_the_one_with_most_audio(compiled):
    most = 6 * 384**2
    assert compiled(most)[0] == 1
    accumulate, found = compiled(most - 1)
    assert accumulate == 2
    assert max(entry.memory_bytes for entry in found) < most
    assert [entry.shape for entry in found] == list(SHAPES)
    assert compiled(None)[0] == 1
    with pytest.raises(UserError, match="one row of the longest shape takes"):
        compiled(384**2 - 1)


def test_more_micro_batches_than_rows_are_refused(compiled):
    assert compiled(None, 28)[0] == 28
    with pytest.raises(UserError, match=r"accumulate = 29: a batch has 28 rows for 1 device, .* give 28 or less"):
        compiled(None, 29)
