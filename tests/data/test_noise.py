"""Noise and babble: the ratio that is measured is the one that was asked for, and the speech keeps its level."""

import math

import numpy as np
import pytest

from jaxspeech.data import audio as audio_files
from jaxspeech.data.manifest import write_manifest
from jaxspeech.data.noise import babble, background, mix, power
from jaxspeech.data.sounds import Sounds

RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(1)
    rows = []
    for number, (seconds, loudness) in enumerate([(0.7, 0.02), (3.0, 0.3), (20.0, 0.1)]):
        sound = (loudness * rng.standard_normal(round(seconds * RATE))).clip(-1, 1).astype(np.float32)
        audio_files.write(folder / f"{number}.wav", sound, RATE)
        rows.append({"id": str(number), "audio": f"{number}.wav", "text": "", "duration": seconds})
    write_manifest(folder / "noise.jsonl", rows)
    return folder


@pytest.fixture
def sounds(folder):
    return Sounds(str(folder / "noise.jsonl"), "key", RATE)


def speech() -> np.ndarray:
    """Bursts with pauses."""
    time = np.arange(4 * RATE) / RATE
    return (0.2 * np.sin(2 * np.pi * 300 * time) * (np.sin(2 * np.pi * 1.5 * time) > 0)).astype(np.float32)


def measured_snr(before: np.ndarray, after: np.ndarray) -> float:
    noise = after.astype(np.float64) - before
    return 10 * math.log10(np.mean(before.astype(np.float64) ** 2) / np.mean(noise**2))


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5, 30.0, 60.0])
def test_recorded_noise_has_the_ratio_asked_for(sounds, snr):
    for seed in range(6):
        noise, _ = background(sounds, 4 * RATE, np.random.default_rng(seed))
        assert measured_snr(speech(), mix(speech(), noise, snr)) == pytest.approx(snr, abs=0.2)


@pytest.mark.parametrize("talkers", [1, 3])
def test_babble_has_the_ratio_asked_for(sounds, talkers):
    for seed in range(6):
        noise, ids = babble(sounds, 4 * RATE, np.random.default_rng(seed), talkers=talkers)
        assert 1 <= len(ids) <= talkers
        assert measured_snr(speech(), mix(speech(), noise, 15.0)) == pytest.approx(15.0, abs=0.2)


def test_those_who_babble_are_equally_loud(sounds):
    """Three independent voices of power 1 have about power 3 together, however loud their recordings are."""
    sums = []
    for seed in range(40):
        noise, ids = babble(sounds, 4 * RATE, np.random.default_rng(seed), talkers=3)
        if len(set(ids)) == len(ids):
            sums.append(power(noise) / len(ids))
    assert len(sums) > 10
    np.testing.assert_allclose(sums, 1.0, atol=0.05)


def test_silence_gets_no_noise_and_silent_noise_changes_nothing():
    silence = np.zeros(100, np.float32)
    assert not mix(silence, np.ones(100, np.float32), 0.0).any()
    np.testing.assert_array_equal(mix(speech()[:100], silence, 0.0), speech()[:100])


def test_the_only_utterance_there_is_babbles_with_nobody(tmp_path, folder):
    row = {"id": "1", "audio": str(folder / "1.wav"), "text": "", "duration": 3.0}
    write_manifest(tmp_path / "one.jsonl", [row])
    alone = Sounds(str(tmp_path / "one.jsonl"), "key", RATE)
    noise, ids = babble(alone, 1000, np.random.default_rng(0), talkers=3, other_than="1")
    assert ids == []
    assert not noise.any()
