"""Reverberation: an echo comes when the room says so, and the direct sound does not move."""

import numpy as np
import pytest

from jaxspeech.data.audio import AudioError
from jaxspeech.data.noise import power
from jaxspeech.data.room import decay_time, reverberate

RATE = 16000


def noise(samples=8000, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("taps", [50, 3000])
def test_a_room_with_nothing_but_direct_sound_changes_nothing(taps):
    response = np.zeros(taps, np.float32)
    response[40] = -0.3
    np.testing.assert_allclose(reverberate(noise(), response), -noise(), atol=1e-6)


def test_an_echo_is_as_late_and_as_loud_as_the_room_says():
    response = np.zeros(2000, np.float32)
    response[100], response[1700] = 0.5, 0.2
    want = noise().astype(np.float64)
    want[1600:] += 0.4 * noise()[:-1600]
    want *= np.sqrt(power(noise()) / np.mean(want**2))
    np.testing.assert_allclose(reverberate(noise(), response), want, atol=1e-5)


def test_speech_stays_where_it_is_and_as_loud_and_as_long():
    decay = np.exp(-np.arange(6000) / 900) * np.random.default_rng(2).standard_normal(6000)
    decay[:700] = 0.0
    decay[700] = 4.0
    heard = reverberate(noise(), decay.astype(np.float32))
    assert heard.dtype == np.float32
    assert len(heard) == 8000
    assert power(heard) == pytest.approx(power(noise()), rel=1e-4)
    assert np.argmax(np.correlate(heard, noise(), "full")) - 7999 == 0


def test_silence_stays_silent_and_a_silent_room_is_named():
    assert not reverberate(np.zeros(100, np.float32), noise(50)).any()
    with pytest.raises(AudioError, match="silent impulse response"):
        reverberate(noise(), np.zeros(50, np.float32))


@pytest.mark.parametrize("rt60", [0.2, 0.5, 1.0])
def test_the_decay_time_of_a_known_decay_is_found(rt60):
    time = np.arange(round(1.5 * rt60 * RATE)) / RATE
    response = 10 ** (-3 * time / rt60) * np.random.default_rng(3).standard_normal(len(time))
    assert decay_time(response, RATE) == pytest.approx(rt60, rel=0.05)
    assert np.isnan(decay_time(np.ones(100), RATE))
