"""The Moonshine task: rows are laid out exactly, and the audit sees labels that cannot be right."""

import dataclasses

import jax
import numpy as np
import pytest
import soundfile
from drill import TINY, make_corpus

from jaxspeech import config as configs
from jaxspeech.data.augment import generator
from jaxspeech.data.manifest import Manifest
from jaxspeech.data.record import Record, Segment
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.errors import UserError
from jaxspeech.tasks.moonshine import Moonshine


def build(**changes):
    config = configs.base("jaxspeech.tasks.moonshine.Moonshine")
    for name, value in (TINY | {"model.vocab_size": 0} | changes).items():
        configs.override(config, name, str(value))
    return Moonshine.from_config(config)


@pytest.fixture(scope="module")
def task():
    return build()


@pytest.fixture(scope="module")
def params(task):
    return jax.jit(task.init)(jax.random.key(0))


def example(task, seconds, text, seed=0):
    audio = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * 16000)).astype(np.float32)
    tokens = np.array([task.tokenizer.bos, *task.tokenizer.encode(text), task.tokenizer.eos], np.int32)
    return {"audio": audio, "tokens": tokens, "token_limit": np.int32(20)}


@pytest.fixture(scope="module")
def examples(task):
    return [
        example(task, s, text, i) for i, (s, text) in enumerate([(0.5, "ab"), (0.9, "fade"), (0.31, "c"), (0.7, "")])
    ]


def losses(task, params, rows, shape):
    loss = jax.jit(lambda p, b: task.loss(p, b, jax.random.key(0), train=True))
    out = loss(params, task.collate(rows, shape))
    return out, np.asarray(out.utterance_loss)


def test_alone_padded_and_packed_give_the_same_loss(task, params, examples):
    alone = [float(losses(task, params, [[e]], Shape(1, len(e["audio"]), len(e["tokens"])))[0].loss) for e in examples]
    out, padded = losses(task, params, [[e] for e in examples] + [[]], Shape(5, 19200, 9))
    np.testing.assert_allclose(padded[:4, 0], alone, rtol=1e-5)
    assert padded[4, 0] == 0.0
    out, packed = losses(task, params, [examples[:2], examples[2:]], Shape(2, 384 * 70, 14, segments=3))
    np.testing.assert_allclose(packed[:, :2].reshape(-1), alone, rtol=1e-5)
    np.testing.assert_allclose(float(out.loss), sum(alone), rtol=1e-5)
    assert float(out.weight) == sum(len(e["tokens"]) - 1 for e in examples)


def test_collated_arrays_have_the_announced_shapes(task, examples):
    shape = Shape(2, 384 * 70, 14, segments=3)
    batch = task.collate([examples[:2], examples[2:]], shape)
    for name, spec in task.batch_spec(shape).items():
        assert (batch[name].shape, batch[name].dtype) == (spec.shape, spec.dtype), name
    assert np.isfinite(batch["audio"]).all()
    assert (batch["audio_start"] % task.stride == 0).all()


def test_stored_integers_are_in_the_batch_what_the_file_holds_as_floats(tmp_path):
    task = build(**{f"data.augment.{part}": 0.0 for part in ("speed", "gain_db", "noise_db", "time_mask")})
    sound = (0.3 * np.random.default_rng(0).standard_normal(9000)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, 16000, "PCM_16")
    record = Record("a", "ab", 9000 / 16000, (Segment(str(tmp_path / "a.wav")),))
    stored = task.load(record, generator(0, 0, "a"))  # as in training
    assert stored["audio"].dtype == np.int16
    batch = task.collate([[stored, stored]], Shape(1, 19200, 9, segments=2))
    expected = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
    for start in batch["audio_start"][0]:
        np.testing.assert_array_equal(batch["audio"][0, start : start + 9000], expected)


def stored(tmp_path, sound, subtype="PCM_16"):
    soundfile.write(tmp_path / f"{subtype}.wav", sound, 16000, subtype)
    return Record("a", "ab", len(sound) / 16000, (Segment(str(tmp_path / f"{subtype}.wav")),))


def test_batches_of_int16_train_to_the_bit_as_batches_of_floats(tmp_path, task, params):
    record = stored(tmp_path, 0.3 * np.random.default_rng(0).standard_normal(16000))
    shape, found = Shape(2, 19200, 9), []
    for each in (task, build(**{"data.audio_dtype": "int16"})):
        batch = each.collate([[each.load(record, None)], []], shape)
        assert batch["audio"].dtype == each.audio_dtype
        step = jax.jit(jax.value_and_grad(lambda p, b, each=each: each.loss(p, b, jax.random.key(0), train=True).loss))
        found.append(step(params, batch))
    jax.tree.map(np.testing.assert_array_equal, *found)
    assert found[0][0] > 0


def test_batches_of_int16_round_what_is_not_of_16_bits_and_clip_what_is_too_loud(tmp_path):
    sound = np.linspace(-1.5, 1.5, 9000, dtype=np.float32)
    task = build(**{"data.audio_dtype": "int16"})
    batch = task.collate([[task.load(stored(tmp_path, sound, "FLOAT"), None)]], Shape(1, 9600, 9))
    heard = batch["audio"][0, :9000] / 32768
    np.testing.assert_allclose(heard, np.clip(sound, -1, 32767 / 32768), atol=0.5001 / 32768)
    assert not batch["audio"][0, 9000:].any()


def test_decoding_writes_no_more_than_the_cap_and_nothing_for_empty_rows(task, params, examples):
    short = [dict(e, token_limit=np.int32(n)) for e, n in zip(examples, (0, 3, 5, 2))]
    batch = task.collate([[e] for e in short] + [[]], Shape(5, 19200, 9))
    for beams in (1, 2):
        heard = jax.jit(task.decode, static_argnames="beams")(params, batch, beams=beams)
        assert (np.asarray(heard.length) <= [0, 3, 5, 2, 0]).all()


def test_the_cap_grows_with_the_clip_and_has_a_floor_and_knows_languages(tmp_path):
    task = build(**{"model.tokens_per_second": 6.5, "model.min_tokens": 8})
    records = Manifest.open(make_corpus(tmp_path, 2))
    record = records[0]
    assert task.load(record, None)["token_limit"] == 8
    japanese = dataclasses.replace(record, language="ja")
    assert task.load(japanese, None)["token_limit"] == max(8, int(record.duration * 13))


def test_measured_lengths_bound_what_is_loaded(tmp_path):
    task = build(**{"data.augment.speed": 0.2})
    manifest = Manifest.open(make_corpus(tmp_path, 12))
    lengths = task.measure(manifest)
    for i in range(len(manifest)):
        loaded = task.load(manifest[i], np.random.default_rng(i))
        assert len(loaded["audio"]) <= lengths.audio[i]
        assert len(loaded["tokens"]) == lengths.text[i]


def test_flops_are_the_models(task):
    one = task.flops(Lengths(np.array([16000]), np.array([5])))
    assert task.flops(Lengths(np.array([16000, 16000]), np.array([5, 5]))) == pytest.approx(2 * one)


def audited(task, tmp_path, spoil=lambda batch: None):
    manifest = Manifest.open(make_corpus(tmp_path, 4))
    records = [manifest[i] for i in range(4)]
    batch = dict(task.collate([[task.load(r, None)] for r in records], Shape(4, 20000, 12)))
    spoil(batch)
    return task.audit(batch, records)


def test_the_audit_finds_nothing_in_a_sound_batch(task, tmp_path):
    assert audited(task, tmp_path) == []


def drop_eos(batch):
    batch["token_length"] = batch["token_length"] - 1


def shift_twice(batch):
    batch["tokens"] = np.roll(batch["tokens"], -1, axis=1)
    batch["token_length"] = batch["token_length"] - 1


def other_text(batch):
    batch["tokens"] = np.where(batch["tokens"] == 3, 4, batch["tokens"])


def outside(batch):
    batch["tokens"] = np.where(batch["tokens"] == 3, 400, batch["tokens"])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (drop_eos, "EOS of .* is masked away"),
        (shift_twice, "shifted twice"),
        (other_text, "its text is"),
        (outside, "the vocabulary ends at"),
        (lambda b: b.update(token_limit=b["token_limit"] * 0), "longer than decoding may write"),
    ],
)
def test_the_audit_names_labels_that_cannot_be_right(task, tmp_path, spoil, said):
    import re

    faults = audited(task, tmp_path, spoil)
    assert any(re.search(said, fault) for fault in faults), faults


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.vocab_size": 5}, "tokens would lie outside the vocabulary"),
        ({"model.dtype": "float16"}, "it must be float32 or bfloat16"),
        ({"model.dim": 33}, "no multiple of heads"),
        ({"model.rotary_dims": 64}, "rotary_dims 64"),
        ({"model.initial_stem": "mel"}, "initial_stem 'mel' is none of random, filterbank"),
    ],
)
def test_sizes_that_cannot_work_are_one_clear_line(changes, said):
    with pytest.raises(UserError, match=said):
        build(**changes)
