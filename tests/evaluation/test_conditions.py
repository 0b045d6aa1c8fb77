"""Conditions: what is heard is what was asked for, exactly; the same each time; and the clean result stays as it is."""

import dataclasses
import math
import pathlib

import jax
import numpy as np
import pytest
import soundfile
from jax.sharding import AxisType

from jaxspeech import config as configs
from jaxspeech.data.augment import generator
from jaxspeech.data.channel import CODECS, encode_decode, narrow
from jaxspeech.data.manifest import Collection, Manifest, write_manifest
from jaxspeech.errors import UserError
from jaxspeech.evaluation import conditions
from jaxspeech.evaluation.evaluate import Evaluator
from jaxspeech.observe.compilations import CompilationCounter
from jaxspeech.task import task_class

RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set of four utterances, noises of which one is silent at first, and a room with an echo."""
    folder = tmp_path_factory.mktemp("conditions")
    rng = np.random.default_rng(0)
    time = np.arange(2 * RATE) / RATE
    bursts = 0.4 * np.sin(2 * np.pi * 300 * time) * (np.sin(2 * np.pi * 1.5 * time) > 0)
    echo = np.zeros(4000)
    echo[10], echo[2010] = 0.5, 0.25
    half = np.concatenate([np.zeros(5 * RATE), 0.1 * rng.standard_normal(RATE)])
    lengths = [RATE * (n + 2) // 3 for n in range(4)]
    sounds = {
        "set": [bursts[:n] * n / (2 * RATE) + 0.001 * rng.standard_normal(n) for n in lengths],
        "noises": [0.3 * rng.standard_normal(8000), half],
        "rooms": [echo],
        "silence": [np.zeros(RATE)],
    }
    for name, group in sounds.items():
        rows = []
        for number, sound in enumerate(group):
            soundfile.write(folder / f"{name}{number}.wav", sound, RATE, subtype="FLOAT")
            rows.append(
                {"id": f"{name}{number}", "audio": f"{name}{number}.wav", "text": "", "duration": len(sound) / RATE}
            )
        write_manifest(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture
def heard(level_task, folder):
    """The utterances of the set as they are, and as a family loads them under a condition."""

    def heard(text, **manifests):
        given = {"manifest": "set", "noises": "noises", "rooms": "rooms"} | manifests
        paths = {key: str(folder / f"{name}.jsonl") for key, name in given.items()}
        task = level_task.Levels()
        changed = conditions.under(task, conditions.parse(text, **paths))
        records = [Manifest.open(folder / "set.jsonl")[i] for i in range(4)]
        clean = [task.load(record, None)["audio"] for record in records]
        return list(zip(clean, [changed.load(record, generator(0, 0, record.id))["audio"] for record in records]))

    return heard


def decibels(ratio: float) -> float:
    return 10 * math.log10(ratio)


def power(audio: np.ndarray) -> float:
    return float(np.mean(audio.astype(np.float64) ** 2))


@pytest.mark.parametrize("snr", [-5.0, 0.0, 10.0, 30.0])
@pytest.mark.parametrize("part", ["noise", "background", "babble"])
def test_the_ratio_is_the_one_that_was_asked_for(heard, part, snr):
    for clean, changed in heard(f"{part}={snr}"):
        assert len(changed) == len(clean)
        assert decibels(power(clean) / power(changed.astype(np.float64) - clean)) == pytest.approx(snr, abs=0.01)


@pytest.mark.parametrize("gain", [-30.0, 0.0, 12.0])
def test_the_gain_is_exact_and_cut_at_full_scale_as_in_a_file_of_16_bits(heard, gain, tmp_path):
    cut = []
    for clean, changed in heard(f"gain={gain:+g}"):
        wanted = np.clip(clean.astype(np.float64) * 10 ** (gain / 20), -1, 32767 / 32768)
        np.testing.assert_allclose(changed, wanted, atol=0.51 / 32768)
        np.testing.assert_array_equal(changed * 32768, np.rint(changed * 32768))
        soundfile.write(tmp_path / "a.wav", changed, RATE, subtype="PCM_16")
        np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav", dtype="float32")[0], changed)
        cut.append(np.abs(changed).max() > 0.999)
        if not cut[-1]:
            assert decibels(power(changed) / power(clean)) == pytest.approx(gain, abs=0.05)
    assert cut == ([False, False, True, True] if gain == 12.0 else [False] * 4)


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_is_that_codec_and_narrowband_is_telephone_bandwidth(heard, codec):
    for clean, changed in heard(f"codec={codec}"):
        np.testing.assert_array_equal(changed, encode_decode(clean, RATE, codec))
    for clean, changed in heard("narrowband"):
        np.testing.assert_array_equal(changed, narrow(clean, RATE))


def test_a_share_is_clipped_and_a_room_echoes(heard):
    for clean, changed in heard("clipping=0.1"):
        assert np.mean(changed != clean) == pytest.approx(0.1, abs=1e-3)
    for clean, changed in heard("room"):
        wanted = clean.astype(np.float64)
        wanted[2000:] += 0.5 * clean[:-2000]
        np.testing.assert_allclose(changed, wanted * math.sqrt(power(clean) / power(wanted)), atol=1e-5)


def test_several_parts_apply_in_the_order_of_sound_however_they_are_written(heard):
    for (_, one), (_, other), (_, noisy) in zip(
        heard("background=5,codec=gsm"), heard("codec=gsm, background=5"), heard("background=5")
    ):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, encode_decode(noisy, RATE, "gsm"))


def test_two_utterances_hear_other_noises_and_two_ratios_the_same_one(heard):
    loud, soft = ([(c, h.astype(np.float64) - c) for c, h in heard(f"background={snr}")] for snr in (0, 10))
    for (_, one), (_, other) in zip(loud, soft):
        np.testing.assert_allclose(one, other * math.sqrt(10), atol=1e-5)
    shapes = [noise[:9000] / math.sqrt(power(noise)) for _, noise in loud]
    assert not any(np.allclose(shapes[i], shapes[j], atol=1e-2) for i in range(4) for j in range(i))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nosie=10", "no condition 'nosie'; did you mean noise?"),
        ("zzzz", "no condition 'zzzz'; there are room, babble"),
        ("noise", "noise is a number of dB"),
        ("noise=ten", "noise is a number of dB"),
        ("gain=nan", "gain is a number of dB"),
        ("clipping=3", "clipping is a share"),
        ("codec=amr", "codec is one of mp3, opus, mulaw, alaw, gsm"),
        ("narrowband=4", "narrowband takes no value"),
        ("noise=1,noise=2", "noise is there twice"),
        ("room", "give --rooms"),
        ("background=3", "give --noises"),
        ("", "no condition ''"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(folder, text, said):
    with pytest.raises(UserError) as error:
        conditions.parse(text, manifest=str(folder / "set.jsonl"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_sounds_that_are_missing_or_too_few_are_refused_at_once(folder):
    with pytest.raises(UserError, match=r"--noises: manifest .*gone.jsonl does not exist"):
        conditions.parse("background=3", manifest="", noises=str(folder / "gone.jsonl"))
    with pytest.raises(UserError, match="too few utterances to draw babble from"):
        conditions.parse("babble=3", manifest=str(folder / "silence.jsonl"))


def test_a_noise_that_cannot_be_used_is_no_fault_of_the_utterance(heard, folder):
    with pytest.raises(UserError, match="--noises: 20 sounds drawn from it were silent"):
        heard("background=3", noises="silence")
    write_manifest(folder / "lost.jsonl", [{"id": "x", "audio": "lost.wav", "text": "", "duration": 3.0}])
    with pytest.raises(UserError, match=r"condition background=3: .*missing file: .*lost.wav; mend --noises"):
        heard("background=3", noises="lost")


def test_a_family_that_does_not_augment_is_named(folder):
    @dataclasses.dataclass
    class Plain:
        sample_rate: int = RATE

    with pytest.raises(UserError, match="Plain does not augment"):
        conditions.under(Plain(), conditions.parse("noise=1", manifest=str(folder / "set.jsonl")))


FAMILIES = pathlib.Path(__file__).parents[1] / "families"


@pytest.mark.parametrize("path", ["jaxspeech.tasks.moonshine.Moonshine", "ctc_family.task.Ctc"])
def test_a_family_hears_a_condition_although_it_was_trained_with_augmentation(folder, monkeypatch, path):
    monkeypatch.syspath_prepend(str(FAMILIES))
    config = configs.base(path)
    config.data.tokenizer = "characters:abc "
    if "vocab_size" in config.model:
        config.model.vocab_size = 0  # the tokenizer's
    config.data.augment.speed = 0.1
    config.data.augment.gain_db = 6.0
    task = task_class(path).from_config(config)
    changed = conditions.under(task, conditions.parse("noise=10", manifest=str(folder / "set.jsonl")))
    record = Manifest.open(folder / "set.jsonl")[2]
    clean, noisy = (t.load(record, rng)["audio"] for t, rng in ((task, None), (changed, generator(0, 0, "x"))))
    assert decibels(power(clean) / power(noisy.astype(np.float64) - clean)) == pytest.approx(10, abs=0.2)
    assert dataclasses.replace(changed, augmentation=task.augmentation) == task


@pytest.fixture
def evaluator(level_task, tmp_path):
    manifest = level_task.write_set(tmp_path, [(text, text) for text in ("abc de", "fgh", "the quick brown fox", "z")])
    mesh = jax.make_mesh(
        (1, 1, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:1]
    )
    collection = Collection.open(str(manifest))
    evaluator = Evaluator(level_task.Levels(), "dev", collection, level_task.config().eval, mesh)
    return lambda text=None: evaluator.run(
        level_task.params(), condition=text and conditions.parse(text, manifest=str(manifest))
    )


def test_a_condition_changes_what_is_heard_and_not_the_clean_result(evaluator):
    before = evaluator()
    noisy = evaluator("noise=-10")
    after = evaluator()
    assert before.wer == 0.0
    assert noisy.wer > 0.5
    assert [row["reference"] for row in noisy.records] == [row["reference"] for row in before.records]
    assert [row["hypothesis"] for row in after.records] == [row["hypothesis"] for row in before.records]
    assert (before.condition, after.condition, noisy.condition) == ("", "", "noise=-10")
    assert "condition" not in before.summary()
    assert noisy.summary()["condition"] == "noise=-10"


def test_an_evaluation_under_a_condition_can_be_repeated(evaluator):
    one, two = evaluator("noise=-5"), evaluator("noise=-5")
    assert [row["hypothesis"] for row in one.records] == [row["hypothesis"] for row in two.records]
    assert one.wer == two.wer > 0


def test_twice_as_loud_is_heard_as_twice_as_high(evaluator):
    texts = [row["hypothesis"] for row in evaluator(f"gain={20 * math.log10(2)}").records]
    ids = lambda text: ["abcdefghijklmnopqrstuvwxyz".index(letter) for letter in text]  # noqa: E731
    assert texts[1] != "fgh"
    assert np.diff(ids(texts[1])).tolist() == [2, 2]


def test_conditions_compile_nothing(evaluator):
    evaluator()
    with CompilationCounter() as counter:
        evaluator("noise=0")
        evaluator("codec=mulaw")
    assert counter.names == []
