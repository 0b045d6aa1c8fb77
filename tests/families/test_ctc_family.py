"""The CTC family by itself: every member of the task protocol, against references or laws that must hold."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxspeech.corpora import espeak
from jaxspeech.data import audio
from jaxspeech.data.manifest import Collection, Record, Segment, write_manifest
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.errors import UserError
from jaxspeech.evaluation.labels import Labeler
from jaxspeech.evaluation.transcribe import Pieces
from jaxspeech.parallel.mesh import make_mesh
from jaxspeech.task import Task, task_class

TEXTS = ("one two", "three", "nine five", "seven")
PLAIN = Shape(rows=4, samples=19200, tokens=9)
PADDED = Shape(rows=6, samples=25600, tokens=14)


@pytest.fixture(scope="module")
def config(families):
    """A model that compiles in a second."""
    config = importlib.import_module("ctc_family.config").get_config()
    config.model.mels, config.model.dim, config.model.dilations = 24, 48, (1, 3)
    return config


@pytest.fixture(scope="module")
def model(families):
    return importlib.import_module("ctc_family.model")


@pytest.fixture(scope="module")
def task(config):
    return task_class(config.task).from_config(config)


@pytest.fixture(scope="module")
def params(task):
    """Random parameters in place of zeros and ones, so that nothing is right by chance."""
    leaves, tree = jax.tree.flatten(jax.jit(task.init)(jax.random.key(0)))
    random = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [x + 0.1 * random.standard_normal(x.shape, np.float32) for x in leaves])


@pytest.fixture(scope="module")
def loss(task):
    """(parameters, batch) -> LossOut, without dropout."""
    return jax.jit(lambda params, batch: task.loss(params, batch, jax.random.key(0), train=False))


@pytest.fixture(scope="module")
def spoken():
    """Four utterances at 16 kHz."""
    pytest.importorskip("espeakng_loader")
    espeak.restart(0)
    audio = []
    for text in TEXTS:
        samples, rate = espeak.speak(text, "en-us+m3", rate=160)
        times = np.arange(0, len(samples), rate / 16000)
        audio.append(np.interp(times, np.arange(len(samples)), samples).astype(np.float32))
    return audio


@pytest.fixture(scope="module")
def decode(task):
    return jax.jit(task.decode)


@pytest.fixture(scope="module")
def examples(task, spoken):
    return [
        {"audio": audio, "tokens": np.asarray(task.tokenizer.encode(text), np.int32), "mask_seed": np.uint32(number)}
        for number, (audio, text) in enumerate(zip(spoken, TEXTS))
    ]


def collated(task, examples, shape=None):
    """A batch in one of two static shapes: each function is compiled for no other."""
    return task.collate([[e] for e in examples], shape or PLAIN)


def test_the_family_offers_all_that_the_loop_asks_for(task):
    wanted = {name for name in vars(Task) if not name.startswith("_")} | set(Task.__annotations__)
    assert wanted
    assert not [name for name in wanted if not hasattr(task, name)]


def test_a_manifest_is_measured_in_samples_and_tokens(task, tmp_path):
    rows = [
        {"id": "a", "audio": "a.wav", "text": "one two", "duration": 1.5},
        {"id": "b", "audio": "b.wav", "text": "nine", "duration": 0.25},
    ]
    write_manifest(tmp_path / "m.jsonl", rows)
    lengths = task.measure(Collection.open(str(tmp_path / "m.jsonl")))
    assert lengths.audio.tolist() == [24000, 4000]
    assert lengths.text.tolist() == [7, 4]


def test_a_batch_is_what_its_spec_says(task, examples):
    shape = Shape(6, 32000, 12)
    batch = task.collate([[e] for e in examples], shape)
    spec = task.batch_spec(shape)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {k: (v.shape, v.dtype) for k, v in spec.items()}
    assert batch["audio_length"].tolist() == [len(e["audio"]) for e in examples] + [0, 0]
    assert task.tokenizer.decode(batch["tokens"][0, : batch["tokens_length"][0]]) == TEXTS[0]


def test_log_mel_frames_are_the_energies_of_their_window(model):
    """Against a plain loop with a matrix of cosines and sines in fp64."""
    audio = np.random.default_rng(0).normal(0, 0.1, 3200)
    got = model.log_mel(jnp.asarray(audio, jnp.float32)[None], 24)[0]
    assert got.shape == ((3200 - 480) // 160 + 1, 24)
    angles = 2 * np.pi * np.outer(np.arange(480), np.arange(257)) / 512
    for frame in (0, 7, 17):
        window = audio[frame * 160 : frame * 160 + 480] * np.hanning(480)
        power = (window @ np.cos(angles)) ** 2 + (window @ np.sin(angles)) ** 2
        np.testing.assert_allclose(got[frame], np.log(power @ model.mel_matrix(24) + 1e-4), atol=2e-4)


def test_the_mel_triangles_cover_the_band(model):
    matrix = model.mel_matrix(48)
    assert (matrix.sum(0) > 0).all()
    inner = (np.arange(257) * 16000 / 512 > 120) & (np.arange(257) * 16000 / 512 < 7200)
    np.testing.assert_allclose(matrix.sum(1)[inner], 1.0, atol=1e-5)


def test_frames_lie_within_the_audio(model):
    assert model.frames(np.array([0, 479, 640, 799, 800, 16000])).tolist() == [0, 0, 1, 1, 1, 49]


def test_padding_does_not_change_an_utterance(task, params, loss, examples):
    plain = loss(params, collated(task, examples))
    padded = loss(params, collated(task, examples, PADDED))
    np.testing.assert_allclose(padded.utterance_loss[:4], plain.utterance_loss, rtol=1e-5)
    np.testing.assert_array_equal(padded.utterance_loss[4:], 0)
    assert float(padded.weight) == float(plain.weight) == sum(map(len, TEXTS))
    np.testing.assert_allclose(padded.loss, plain.loss, rtol=1e-5)
    for name, (total, count) in plain.metrics.items():
        np.testing.assert_allclose(padded.metrics[name], (total, count), err_msg=name)


def test_padding_does_not_change_gradients(task, params, examples):
    gradient = jax.jit(jax.grad(lambda p, b: task.loss(p, b, jax.random.key(0), train=False).loss))
    plain = gradient(params, collated(task, examples))
    padded = gradient(params, collated(task, examples, PADDED))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(padded)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(jnp.abs(a).max()))


def test_padding_does_not_change_what_is_decoded(task, params, decode, examples):
    plain = decode(params, collated(task, examples))
    padded = decode(params, collated(task, examples, PADDED))
    np.testing.assert_array_equal(padded.length, [*plain.length, 0, 0])
    for row, length in enumerate(np.asarray(plain.length)):
        np.testing.assert_array_equal(padded.tokens[row, :length], plain.tokens[row, :length])
    np.testing.assert_allclose(padded.score[:4], plain.score, rtol=1e-5)
    np.testing.assert_array_equal(padded.choices, [*plain.choices, 0, 0])


def test_an_utterance_alone_is_what_it_is_among_others(task, params, loss, examples):
    together = loss(params, collated(task, examples))
    alone = loss(params, collated(task, examples[1:2]))
    np.testing.assert_allclose(together.utterance_loss[1], alone.utterance_loss[0], rtol=1e-5)


def test_the_loss_is_minus_the_log_probability_of_all_alignments(task, model, params, loss, spoken):
    """By enumeration: every path of three frames that reads "ab"."""
    tokens = np.asarray(task.tokenizer.encode("ab"), np.int32)
    short = {"audio": spoken[0][4000 : 4000 + 480 + 5 * 160], "tokens": tokens, "mask_seed": np.uint32(0)}
    batch = collated(task, [short])
    logits = jax.jit(model.Ctc(task.config).apply)({"params": params}, batch["audio"], batch["audio_length"])
    probability = np.asarray(jax.nn.softmax(logits[0]), np.float64)[:3]
    blank = task.config.vocab_size
    total = 0.0
    for path in itertools.product([*tokens.tolist(), blank], repeat=3):
        if [k for k, _ in itertools.groupby(path) if k != blank] == tokens.tolist():
            total += np.prod([probability[t, k] for t, k in enumerate(path)])
    out = loss(params, batch)
    assert float(out.loss) == pytest.approx(-np.log(total), rel=1e-4)
    assert float(out.weight) == 2


@pytest.mark.parametrize(
    ("path", "text"),
    [("_h_ee_", "he"), ("see_e_e", "seee"), ("____", ""), ("aab_bba", "abba"), ("one", "one")],
)
def test_decoding_collapses_repeats_and_drops_blanks(task, model, monkeypatch, path, text):
    classes = [task.config.vocab_size if c == "_" else task.tokenizer.encode(c)[0] for c in path]
    logits = 20.0 * jax.nn.one_hot(
        jnp.asarray([classes + [3, 4, 3]]), task.config.vocab_size + 1
    )  # 3 frames of padding
    monkeypatch.setattr(model.Ctc, "apply", lambda *args, **kwargs: logits)
    samples = model.WINDOW + (2 * len(path) - 1) * model.HOP
    audio = np.zeros((1, samples + 3 * model.STRIDE), np.float32)
    found = task.decode({}, {"audio": audio, "audio_length": np.array([samples], np.int32)})
    assert task.tokenizer.decode(np.asarray(found.tokens[0, : found.length[0]])) == text
    assert float(found.score[0]) == pytest.approx(0.0, abs=1e-5)
    assert int(found.choices[0]) == len(path)


def test_dropout_acts_in_training_only_and_follows_its_key(task, params, loss, examples):
    batch = collated(task, examples)
    training = jax.jit(lambda key: task.loss(params, batch, key, train=True).loss)
    one, two = training(jax.random.key(1)), training(jax.random.key(2))
    assert one == training(jax.random.key(1))
    assert len({float(one), float(two), float(loss(params, batch).loss)}) == 3


def test_spec_augment_acts_in_training_only_and_does_not_depend_on_the_row(config, params, examples):
    masking = config.copy_and_resolve_references()
    masking.model.dropout, masking.model.freq_masks, masking.model.time_masks = 0.0, 2, 4
    masking.model.time_share = 0.1
    task = task_class(masking.task).from_config(masking)
    loss = jax.jit(lambda batch, train: task.loss(params, batch, jax.random.key(0), train=train), static_argnums=1)
    batch = collated(task, examples)
    trained, plain = (np.asarray(loss(batch, train).utterance_loss[:, 0]) for train in (True, False))
    assert (np.abs(trained - plain) > 1e-3).all()
    turned = np.asarray(loss(collated(task, examples[::-1]), True).utterance_loss[:, 0])
    np.testing.assert_allclose(turned, trained[::-1], rtol=1e-5)


def test_thirty_steps_learn_four_utterances(task, decode, examples):
    batch = collated(task, examples)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(4e-3))
    params = jax.jit(task.init)(jax.random.key(0))
    state = tx.init(params)

    @jax.jit
    def step(params, state, key):
        def loss(p):
            out = task.loss(p, batch, key, train=True)
            return out.loss / out.weight

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for number in range(30):
        params, state, value = step(params, state, jax.random.key(number))
        losses.append(float(value))
    assert np.isfinite(losses).all()
    assert losses[0] > 5
    assert losses[-1] < 0.5
    found = decode(params, batch)
    texts = [task.tokenizer.decode(np.asarray(found.tokens[i, : found.length[i]])) for i in range(4)]
    assert sum(a == b for a, b in zip(texts, TEXTS)) >= 3


def record(id, text):
    return Record(id, text, 1.0, (Segment("a.wav", 0.0, None, 0.0, None),), None, None, {})


def test_the_audit_finds_wrong_labels_and_texts_that_no_alignment_fits(task, examples):
    records = [record(f"u{i}", text) for i, text in enumerate(TEXTS)]
    batch = collated(task, examples)
    assert task.audit(batch, records) == []
    swapped = dict(batch, tokens=batch["tokens"][::-1], tokens_length=batch["tokens_length"][::-1])
    assert "u0 are not its text" in task.audit(swapped, records)[0]
    short = dict(batch, audio_length=np.full(4, 1600, np.int32))
    assert task.audit(short, records)[0] == "u0 has 4 frames, its text needs 7"
    doubled = collated(task, [dict(examples[1], audio=examples[1]["audio"][: 480 + 9 * 160])])
    assert task.audit(doubled, [record("u1", "three")]) == ["u1 has 5 frames, its text needs 6"]


def test_flops_grow_with_the_audio(task):
    one, two = (task.flops(Lengths(np.array([n]), np.array([5]))) for n in (16000, 32000))
    assert two == 2 * one
    assert 2e6 < one < 2e7  # 16,000 parameters, 50 frames a second, 2 for a multiply-add, and the mel matrix


def test_what_the_family_cannot_do_is_refused(config, task):
    for key, value in (("data.batching", "packed"), ("eval.beams", 4)):
        other = config.copy_and_resolve_references()
        section, name = key.split(".")
        other[section][name] = value
        with pytest.raises(UserError, match=key):
            task_class(other.task).from_config(other)
    with pytest.raises(UserError, match="no published weights"):
        task.load_weights("somewhere")


def test_pseudo_labels_have_the_log_probability_of_the_best_path(task, model, params, spoken, tmp_path):
    """Without texts, so that a batch has no tokens at all."""
    records = []
    for number, sound in enumerate(spoken[:2]):
        audio.write(tmp_path / f"{number}.wav", sound, 16000)
        records.append(Record(f"u{number}", "", len(sound) / 16000, (Segment(str(tmp_path / f"{number}.wav")),)))
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.local_devices()[:1])
    labeler = Labeler(task, jax.device_put(params, jax.local_devices()[0]), Pieces(records), mesh, batch_seconds=4.0)
    batches = dict(labeler.labels(range(len(labeler))))
    labels = [batches[b][p] for b, p in zip(*labeler.places())]
    batch = task.collate([[task.load(record, None)] for record in records], Shape(2, 25600, 0))
    logits = jax.jit(model.Ctc(task.config).apply)({"params": params}, batch["audio"], batch["audio_length"])
    best = np.asarray(jax.nn.log_softmax(logits)).max(axis=-1)
    for row, found in enumerate(labels):
        frames = int(model.frames(batch["audio_length"])[row])
        assert found.logprob == pytest.approx(best[row, :frames].mean(), abs=1e-4)
