"""Pseudo-labels of a small Moonshine with random weights: the log-probabilities are those of its own log-softmax."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from drill import TINY

from jaxspeech import config as configs
from jaxspeech.data.manifest import Record, Segment
from jaxspeech.data.shapes import Shape
from jaxspeech.errors import UserError
from jaxspeech.evaluation.labels import Labeler, _stretches
from jaxspeech.evaluation.transcribe import Pieces
from jaxspeech.models import moonshine as model
from jaxspeech.parallel.mesh import make_mesh
from jaxspeech.tasks.moonshine import Moonshine

SECONDS = (0.5, 1.9, 0.8, 1.2, 0.6, 1.6, 0.31)


@pytest.fixture(scope="module")
def task():
    config = configs.base("jaxspeech.tasks.moonshine.Moonshine")
    for name, value in (TINY | {"model.vocab_size": 0, "data.augment.speed": 0.0}).items():
        configs.override(config, name, str(value))
    return Moonshine.from_config(config)


@pytest.fixture(scope="module")
def params(task):
    """Random parameters, so far from zero that the model is sure of some tokens and not of others."""
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    random = np.random.default_rng(3)
    return jax.tree.map(lambda x: jnp.asarray(0.4 * random.standard_normal(x.shape, np.float32)), shapes)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.local_devices()[:1])


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    found = []
    for number, seconds in enumerate(SECONDS):
        path = str(folder / f"{number}.wav")
        soundfile.write(path, 0.1 * np.random.default_rng(number).normal(size=round(seconds * 16000)), 16000)
        found.append(Record(f"u{number}", "", seconds, (Segment(path),)))
    return found


def label(task, params, mesh, records, batch_seconds):
    """The labels of records in their order, and how many batches they were in."""
    labeler = Labeler(task, params, Pieces(records), mesh, batch_seconds=batch_seconds, threads=1)
    return in_order(labeler), len(labeler)


def in_order(labeler):
    batches = dict(labeler.labels(range(len(labeler))))
    return [batches[batch][place] for batch, place in zip(*labeler.places(), strict=True)]


@pytest.fixture(scope="module")
def labeler(task, params, mesh, records):
    return Labeler(task, params, Pieces(records), mesh, batch_seconds=4.0, threads=1)


@pytest.fixture(scope="module")
def labels(labeler):
    assert len(labeler) > 1
    return in_order(labeler)


def test_the_log_probability_is_that_of_the_same_tokens_under_teacher_forcing(task, params, records, labels):
    """All utterances as one batch with more padding: greedy tokens, then one pass of the decoder over them."""
    rows = [[task.load(record, None)] for record in records]
    batch = task.collate(rows, Shape(len(rows), 40_000, 2))
    heard = jax.device_get(jax.jit(task.decode)(params, batch))
    length, eos = heard.length, task.tokenizer.eos
    tokens = np.concatenate([np.full((len(rows), 1), task.tokenizer.bos), heard.tokens], axis=1).astype(np.int32)
    tokens = np.pad(tokens, ((0, 0), (0, 1)), constant_values=eos)

    @jax.jit
    def forced(tokens, count):
        net = model.Moonshine(task.config)
        audio = (batch["audio"], batch["audio_start"], batch["audio_length"])
        encoded = net.apply({"params": params}, *audio, method="encode")
        view = model.targets(tokens, jnp.zeros_like(count), count)
        states = (view.inputs, view.segment_ids, view.positions, encoded)
        hidden = net.apply({"params": params}, *states, method="hidden")
        return jax.nn.log_softmax(hidden @ params["decoder"]["embedding"]["embedding"].T, axis=-1)

    log_probs = np.asarray(forced(tokens, length[:, None] + 2))
    ended = heard.choices == length + 1
    assert ended.any()  # the end of a text is a choice
    assert not ended.all()  # unless the limit came first
    for row, found in enumerate(labels):
        chosen = [*heard.tokens[row, : length[row]].tolist(), eos][: heard.choices[row]]
        assert chosen == np.argmax(log_probs[row, : len(chosen)], axis=-1).tolist()
        sure = [log_probs[row, place, token] for place, token in enumerate(chosen)]
        assert found.logprob == pytest.approx(np.mean(sure), abs=1e-4)
        assert found.text == " ".join(task.tokenizer.decode(chosen[: length[row]]).split())
    assert len({round(found.logprob, 3) for found in labels}) > 3


def test_batching_does_not_change_a_label(task, params, mesh, records, labels):
    alone, batches = label(task, params, mesh, records, batch_seconds=2.0)
    assert batches == len(records)
    for one, other in zip(alone, labels, strict=True):
        assert one.text == other.text
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_a_batch_is_the_same_whenever_it_is_asked_for(labeler, labels):
    every = dict(labeler.labels(range(len(labeler))))
    last = len(labeler) - 1
    assert last >= 2
    assert dict(labeler.labels([0, last])) == {0: every[0], last: every[last]}


def test_what_decides_the_labels_is_in_the_fingerprint(task, params, mesh, records):
    def fingerprint(params=params, settings="a", seconds=4.0):
        return Labeler(task, params, Pieces(records), mesh, batch_seconds=seconds).fingerprint(settings)

    changed = jax.tree.map(lambda x: x, params)
    bias = changed["decoder"]["embedding"]
    bias["embedding"] = bias["embedding"].at[0, 0].add(1e-6)
    every = [fingerprint(), fingerprint(changed), fingerprint(settings="b"), fingerprint(seconds=0.1)]
    assert len(set(every)) == 4
    assert fingerprint() == every[0]


def test_numbers_that_are_none_and_files_that_are_none_are_problems(level_task, mesh, tmp_path):
    class Odd(level_task.Levels):
        def decode(self, params, batch, *, beams=1):
            heard = super().decode(params, batch, beams=beams)
            return heard.replace(score=jnp.where(heard.length == 3, jnp.nan, heard.score))

    records = []
    for text in ("one", "four", "gone"):
        seconds = level_task.write(tmp_path / f"{text}.wav", text)
        records.append(Record(text, "", seconds, (Segment(str(tmp_path / f"{text}.wav")),)))
    (tmp_path / "gone.wav").unlink()
    found, _ = label(Odd(), jax.device_put(level_task.params()), mesh, records, batch_seconds=4.0)
    assert [one.text for one in found] == ["", "four", ""]
    assert [one.problem and one.problem[0] for one in found] == ["not finite", None, "missing file"]
    assert [math.isnan(one.logprob) for one in found] == [True, False, True]


def test_a_family_that_tells_no_log_probabilities_is_refused_in_one_line(level_task, mesh, records):
    class Silent(level_task.Levels):
        def decode(self, params, batch, *, beams=1):
            return super().decode(params, batch, beams=beams).replace(choices=None)

    with pytest.raises(UserError, match="Silent does not tell how probable its hypotheses are") as error:
        label(Silent(), jax.device_put(level_task.params()), mesh, records[:1], batch_seconds=4.0)
    assert "\n" not in str(error.value)


def test_stretches_are_runs_of_successive_numbers():
    assert list(_stretches([0, 1, 4, 6, 7, 8])) == [(0, 2), (4, 5), (6, 9)]
    assert list(_stretches([])) == []
