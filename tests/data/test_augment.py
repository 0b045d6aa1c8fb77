"""What augmentation does to a signal, measured; and that it is the same wherever it runs."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from jaxspeech import config as configs
from jaxspeech.data import audio as audio_files
from jaxspeech.data import augment
from jaxspeech.data.augment import Augmentation, generator
from jaxspeech.data.manifest import write_manifest
from jaxspeech.data.noise import add_noise
from jaxspeech.errors import UserError

EVERYTHING = {
    "speed": 0.1, "noise_db": 20.0, "gain_db": 6.0, "time_mask": 0.1, "room.probability": 1.0,
    "babble.probability": 1.0, "background.probability": 1.0, "clipping.probability": 1.0,
    "narrowband.probability": 1.0, "codec.probability": 1.0,
}  # fmt: skip


def augmentation(**values) -> Augmentation:
    """Keys of `data.augment`; of its subsections as `{"room.manifest": …}`, of `data` as `train=…`."""
    data = configs.base("jaxspeech.tasks.moonshine.Moonshine").data
    data.train = values.pop("train", None)
    for name, value in values.items():
        *part, key = name.split(".")
        (data.augment[part[0]] if part else data.augment)[key] = value
    return Augmentation.from_config(data, 16000)


def tone(frequency: float = 400.0, seconds: float = 2.0) -> np.ndarray:
    return (0.2 * np.sin(2 * np.pi * frequency * np.arange(round(16000 * seconds)) / 16000)).astype(np.float32)


def test_the_generator_is_a_function_of_seed_epoch_and_id():
    golden = np.array([0.632572129787612, 0.40335940272926407, 0.1908358219797186])
    np.testing.assert_array_equal(generator(7, 3, "dev-00001").random(3), golden)
    others = [generator(8, 3, "dev-00001"), generator(7, 4, "dev-00001"), generator(7, 3, "dev-00002")]
    assert all(other.random() != golden[0] for other in others)


def test_further_turns_in_an_epoch_have_other_numbers_and_steps_do_not():
    first, second, third = (generator(7, 3, "a", turn=turn).random(4) for turn in range(3))
    assert not np.isin(first, second).any()
    assert not np.isin(second, third).any()
    np.testing.assert_array_equal(generator(7, 3, "a", step=9).random(4), first)


def test_the_generator_is_the_same_in_another_process():
    code = "from jaxspeech.data.augment import generator; print(repr(generator(1, 2, 'ü/3').random()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == f"{generator(1, 2, 'ü/3').random()!r}\n"


def test_nothing_asked_for_is_nothing_done():
    audio = tone()
    changed, drawn = augmentation().explain(audio, generator(0, 0, "a"))
    np.testing.assert_array_equal(changed, audio)
    assert drawn == {}
    assert not augmentation().active


@pytest.mark.parametrize("values", [{"speed": 0.1}, {"gain_db": 3.0}, {"noise_db": 20.0}, {"time_mask": 0.1}] + [
    {f"{part}.probability": 0.5} for part in ("room", "babble", "background", "clipping", "narrowband", "codec")
])  # fmt: skip
def test_every_part_counts_as_active(values):
    assert augmentation(**values).active


@pytest.mark.parametrize("factor", [0.9, 0.97, 1.03, 1.1])
def test_speed_changes_pitch_and_length_by_the_factor(factor):
    changed = augment.change_speed(tone(400.0, 4.0), factor)
    assert len(changed) == pytest.approx(64000 / factor, rel=1e-3)
    inner = changed[2000:-2000]
    spectrum = np.abs(np.fft.rfft(inner * np.hanning(len(inner)), 1 << 20))
    assert np.argmax(spectrum) * 16000 / (1 << 20) == pytest.approx(400.0 * factor, rel=1e-3)
    assert np.abs(inner).max() == pytest.approx(0.2, rel=0.01)


@pytest.mark.parametrize("snr", [0.0, 10.0, 35.0])
def test_noise_has_the_ratio_asked_for(snr):
    audio = tone()
    noise = add_noise(audio, snr, generator(0, 0, "a")) - audio
    measured = 10 * np.log10(np.mean(audio**2) / np.mean(noise.astype(np.float64) ** 2))
    assert measured == pytest.approx(snr, abs=0.2)
    shares = np.abs(np.fft.rfft(noise)) ** 2  # white: each quarter of the band holds a quarter of it
    np.testing.assert_allclose([part.sum() / shares.sum() for part in np.array_split(shares, 4)], 0.25, atol=0.02)


def test_noise_on_silence_is_silence():
    assert not add_noise(np.zeros(100, np.float32), 10.0, generator(0, 0, "a")).any()


def test_masks_silence_at_most_the_share_and_touch_nothing_else():
    audio = np.ones(10000, np.float32)
    shares = []
    for index in range(200):
        masked = augment.mask_time(audio, 0.2, generator(0, 0, str(index)))
        assert set(np.unique(masked)) <= {0.0, 1.0}
        shares.append(np.mean(masked == 0))
        edges = np.count_nonzero(np.diff(np.concatenate([[1.0], masked, [1.0]])))
        assert edges <= 6
    assert max(shares) <= 0.2
    assert 0.05 < np.mean(shares) < 0.15
    assert audio.all()


def test_draws_stay_within_their_ranges_and_the_plan_holds():
    audio = tone(seconds=0.5)
    four = augmentation(speed=0.1, gain_db=6.0, noise_db=20.0, time_mask=0.1)
    loud = augmentation(gain_db=6.0)
    lengths, levels = [], []
    for index in range(100):
        changed = four(audio, generator(0, 0, str(index)))
        assert changed.dtype == np.float32
        lengths.append(len(changed))
        gain = loud(audio, generator(0, 0, str(index)))
        levels.append(20 * np.log10(np.abs(gain).max() / np.abs(audio).max()))
    assert max(lengths) <= four.longest(8000) <= 8000 / 0.9 + 1
    assert min(lengths) >= 8000 / 1.1 - 1
    assert max(lengths) - min(lengths) > 1000
    assert -6.001 <= min(levels) < -3 < 3 < max(levels) <= 6.001


def test_the_longest_is_the_same_for_one_and_for_many():
    lengths = np.arange(0, 400000, 997)
    fast = augmentation(speed=0.15)
    np.testing.assert_array_equal(fast.longest(lengths), [fast.longest(int(n)) for n in lengths])
    np.testing.assert_array_equal(augmentation(noise_db=10.0).longest(lengths), lengths)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Manifests of two noises, three utterances and two rooms."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    sounds = {
        "noise": [rng.standard_normal(n) for n in (8000, 48000)],
        "speech": [np.sin(np.arange(24000) * pitch) for pitch in (0.05, 0.09, 0.13)],
        "room": [np.exp(-np.arange(4000) / tau) * rng.standard_normal(4000) for tau in (300.0, 800.0)],
    }
    for name, group in sounds.items():
        rows = []
        for number, sound in enumerate(group):
            path = folder / f"{name}{number}.wav"
            audio_files.write(path, (0.3 * sound / np.abs(sound).max()).astype(np.float32), 16000)
            rows.append({"id": f"{name}{number}", "audio": str(path), "text": "", "duration": len(sound) / 16000})
        write_manifest(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture
def everything(folder):
    manifests = {"room.manifest": str(folder / "room.jsonl"), "background.manifest": str(folder / "noise.jsonl")}
    return augmentation(train=str(folder / "speech.jsonl"), **EVERYTHING, **manifests)


def test_all_parts_together_keep_to_the_plan_and_say_what_was_drawn(everything):
    audio = tone(seconds=0.7)
    for index in range(20):
        changed, drawn = everything.explain(audio, generator(0, 0, str(index)))
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert len(changed) == min(round(len(audio) / drawn["speed"]), everything.longest(len(audio)))
        order = "speed room babble background noise_db gain_db clipping narrowband codec time_mask"
        assert list(drawn) == order.split()
        assert drawn["room"]["id"] in ("room0", "room1")
        assert drawn["background"]["ids"][0] in ("noise0", "noise1")
        assert 0 <= drawn["background"]["snr_db"] <= 30
        assert 15 <= drawn["babble"]["snr_db"] <= 30


def test_the_same_utterance_sounds_the_same_in_a_copy_that_travelled(everything):
    audio = tone(seconds=0.7)
    want = everything(audio, generator(3, 1, "u"))
    np.testing.assert_array_equal(everything(audio, generator(3, 1, "u")), want)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(everything))(audio, generator(3, 1, "u")), want)
    assert not np.array_equal(everything(audio, generator(3, 1, "u", turn=1))[: len(want)], want)


def decibels(ratio: float) -> float:
    return 10 * np.log10(ratio)


@pytest.mark.parametrize("part", ["babble", "background", "noise_db"])
def test_the_ratio_that_is_heard_is_the_one_that_was_drawn(folder, part):
    """Whichever noise and stretch is drawn, over the whole utterance."""
    if part == "noise_db":
        noisy = augmentation(noise_db=5.0)
    else:
        name = {"babble": "speech", "background": "noise"}[part]
        noisy = augmentation(**{f"{part}.probability": 1.0, f"{part}.manifest": str(folder / f"{name}.jsonl")})
    audio = tone(seconds=1.3) * np.linspace(0, 1, 20800, dtype=np.float32)
    drawn_before = set()
    for index in range(25):
        changed, drawn = noisy.explain(audio, generator(0, 0, str(index)))
        snr = drawn[part] if part == "noise_db" else drawn[part]["snr_db"]
        noise = changed.astype(np.float64) - audio
        assert decibels(np.mean(audio.astype(np.float64) ** 2) / np.mean(noise**2)) == pytest.approx(snr, abs=0.2)
        drawn_before.add(snr)
    assert max(drawn_before) - min(drawn_before) > 10


def test_the_speed_and_the_gain_that_are_heard_are_those_that_were_drawn():
    fast, loud = augmentation(speed=0.1), augmentation(gain_db=12.0)
    audio = tone(400.0, 3.0)
    for index in range(8):
        changed, drawn = fast.explain(audio, generator(0, 0, str(index)))
        assert len(changed) == pytest.approx(48000 / drawn["speed"], rel=1e-3)
        inner = changed[2000:-2000]
        spectrum = np.abs(np.fft.rfft(inner * np.hanning(len(inner)), 1 << 20))
        assert np.argmax(spectrum) * 16000 / (1 << 20) == pytest.approx(400.0 * drawn["speed"], rel=1e-3)
        changed, drawn = loud.explain(audio, generator(0, 0, str(index)))
        assert 2 * decibels(np.abs(changed).max() / np.abs(audio).max()) == pytest.approx(drawn["gain_db"], abs=1e-4)


@pytest.mark.parametrize(
    "parts", [{"narrowband.probability": 1.0}, {"codec.probability": 1.0, "codec.kinds": "mulaw gsm"}]
)
def test_a_telephone_leaves_nothing_above_four_kilohertz(parts):
    audio = np.random.default_rng(0).standard_normal(32000).astype(np.float32) * 0.1
    window = np.hanning(len(audio))
    high = np.fft.rfftfreq(len(audio), 1 / 16000) > 4000
    for index in range(4):
        changed = augmentation(**parts)(audio, generator(0, 0, str(index)))
        spectrum = np.abs(np.fft.rfft(changed * window)) ** 2
        assert decibels(spectrum[high].sum() / spectrum.sum()) < -70


def test_nobody_babbles_beside_himself(folder):
    babbling = augmentation(**{"train": str(folder / "speech.jsonl"), "babble.probability": 1.0})
    for index in range(30):
        rng = generator(0, index, "speech1")
        assert set(babbling.explain(tone(), rng)[1]["babble"]["ids"]) <= {"speech0", "speech2"}


def test_a_probability_is_the_share_of_the_utterances():
    some = augmentation(**{"narrowband.probability": 0.3})
    met = sum("narrowband" in some.explain(tone(seconds=0.01), generator(0, 0, str(n)))[1] for n in range(1000))
    assert 250 < met < 350


def test_probabilities_and_strengths_come_in_with_the_step():
    scheduled = augmentation(
        **{"narrowband.probability": 0.8, "narrowband.delay": 100, "narrowband.ramp": 100},
        gain_db=12.0, noise_db=10.0, delay=40, ramp=20,
    )  # fmt: skip

    def met(step):
        return [scheduled.explain(tone(seconds=0.01), generator(0, 0, str(n), step=step))[1] for n in range(400)]

    assert all(drawn == {} for drawn in met(40))
    half = met(50)
    assert 5.5 < max(abs(drawn["gain_db"]) for drawn in half) <= 6.0
    assert 25.0 <= min(drawn["noise_db"] for drawn in half) < max(drawn["noise_db"] for drawn in half) <= 55.0
    assert 11 < max(abs(drawn["gain_db"]) for drawn in met(60)) <= 12.0
    shares = [sum("narrowband" in drawn for drawn in met(step)) / 400 for step in (100, 150, 200, 10**9, None)]
    np.testing.assert_allclose(shares, [0.0, 0.4, 0.8, 0.8, 0.8], atol=0.07)


def test_the_snr_moves_from_the_initial_range_to_its_own(folder):
    part = {"probability": 1.0, "manifest": str(folder / "noise.jsonl"), "delay": 4896, "ramp": 4896}
    noisy = augmentation(**{f"background.{name}": value for name, value in part.items()})
    for step, low, high in ((0, 30, 60), (4896, 30, 60), (7344, 15, 45), (9792, 0, 30), (None, 0, 30)):
        draws = (generator(0, 0, str(n), step=step) for n in range(200))
        found = [noisy.explain(tone(seconds=0.1), rng)[1]["background"]["snr_db"] for rng in draws]
        assert low <= min(found) < low + 2
        assert high - 2 < max(found) <= high


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"speed": 0.6}, "augment.speed = 0.6: it is a share from 0 to 0.5"),
        ({"codec.kinds": "mp3 amr"}, "codec.kinds = 'mp3 amr': give one or more of mp3, opus, mulaw, alaw, gsm"),
        ({"codec.kinds": "", "codec.probability": 0.5}, "give one or more of"),
    ],
)
def test_what_cannot_work_is_refused(values, said):
    with pytest.raises(UserError, match=said):
        augmentation(**values)


def test_a_noise_that_is_gone_is_a_failure_that_names_it(tmp_path):
    row = {"id": "n", "audio": "gone.wav", "text": "", "duration": 5.0}
    write_manifest(tmp_path / "noise.jsonl", [row])
    noisy = augmentation(**{"background.probability": 1.0, "background.manifest": str(tmp_path / "noise.jsonl")})
    with pytest.raises(audio_files.AudioError, match=r"augmentation: missing file: .*background.manifest: .*gone.wav"):
        noisy(tone(), generator(0, 0, "a"))


def test_the_input_is_left_alone(everything):
    audio = tone()
    before = audio.copy()
    everything(audio, generator(0, 0, "a"))
    np.testing.assert_array_equal(audio, before)
