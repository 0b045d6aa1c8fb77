"""Overload, bandwidth and codecs: what is lost is what should be, and nothing moves in time."""

import numpy as np
import pytest
import soundfile

from jaxspeech.data import channel

RATE = 16000


def speech(samples: int = 32000) -> np.ndarray:
    """A buzz of changing pitch with formants and pauses: what codecs of speech are made for, with one place to fit."""
    rng = np.random.default_rng(0)
    time = np.arange(samples) / RATE
    phase = np.cumsum(110 + 25 * np.sin(2 * np.pi * 0.7 * time) + 8 * rng.standard_normal(samples).cumsum() / 300)
    buzz = sum(np.cos(2 * np.pi * k * phase / RATE) * np.exp(-(((k * 120 - 700) / 900) ** 2)) for k in range(1, 30))
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * time) + 0.4, 0, 1)
    return (0.05 * buzz * syllables + 0.002 * rng.standard_normal(samples)).astype(np.float32)


def lag(before: np.ndarray, after: np.ndarray) -> int:
    """Samples that `after` is later than `before`, where the two fit best."""
    size = 1 << (2 * len(before)).bit_length()
    product = np.fft.rfft(after.astype(np.float64), size) * np.conj(np.fft.rfft(before.astype(np.float64), size))
    best = int(np.argmax(np.fft.irfft(product, size)))
    return best if best < size // 2 else best - size


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5])
def test_clipping_meets_the_share_asked_for_and_nothing_else(share):
    audio = np.random.default_rng(0).standard_normal(50000).astype(np.float32)
    clipped = channel.clip(audio, share)
    changed = clipped != audio
    assert changed.mean() == pytest.approx(share, abs=1 / 50000)
    ceiling = np.abs(clipped).max()
    np.testing.assert_array_equal(np.abs(clipped[changed]), ceiling)
    np.testing.assert_array_equal(np.sign(clipped[changed]), np.sign(audio[changed]))


def test_clipping_nothing_and_clipping_all():
    audio = speech(1000)
    np.testing.assert_array_equal(channel.clip(audio, 0.0), audio)
    assert not channel.clip(audio, 1.0).any()


@pytest.mark.parametrize("rate", [16000, 24000])
def test_nothing_is_left_above_four_kilohertz_and_all_below(rate):
    audio = np.random.default_rng(0).standard_normal(4 * rate).astype(np.float32)
    narrow = channel.narrow(audio, rate)
    assert len(narrow) == len(audio)
    hertz = np.fft.rfftfreq(len(audio), 1 / rate)
    window = np.hanning(len(audio))  # without it the ends of the noise leak into all of the spectrum
    before, after = (np.abs(np.fft.rfft(sound * window)) ** 2 for sound in (audio, narrow))

    def kept(low, high):
        band = (hertz > low) & (hertz < high)
        return 10 * np.log10(after[band].sum() / before[band].sum())

    assert kept(4000, rate / 2) < -80
    assert kept(0, 3400) == pytest.approx(0.0, abs=0.1)
    assert lag(audio, narrow) == 0


def test_what_is_narrow_already_stays_as_it_is():
    audio = speech(1000)
    assert channel.narrow(audio, 8000) is audio


@pytest.mark.parametrize("rate", [16000, 24000, 22050])
@pytest.mark.parametrize("codec", channel.CODECS)
def test_a_codec_keeps_length_and_time(codec, rate):
    for compression in (0.0, 1.0):
        for samples in (32000, 32123):
            audio = speech(samples)
            decoded = channel.encode_decode(audio, rate, codec, compression)
            assert decoded.shape == audio.shape
            assert decoded.dtype == np.float32
            assert abs(lag(audio, decoded)) <= 1
            assert np.corrcoef(audio, decoded)[0, 1] > 0.8
            assert not np.array_equal(decoded, audio)


@pytest.mark.parametrize("codec", channel.CODECS)
@pytest.mark.parametrize("samples", [0, 1, 2, 159, 161, 700])
def test_even_the_shortest_audio_passes(codec, samples):
    assert channel.encode_decode(speech(samples), RATE, codec).shape == (samples,)


@pytest.mark.parametrize(("codec", "least", "most"), [("mulaw", 30, 45), ("alaw", 30, 45), ("gsm", 3, 25)])
def test_telephone_codecs_distort_as_much_as_they_should(codec, least, most):
    """Against the same audio at 8 kHz; G.711 has about 38 dB for loud speech, GSM is far coarser."""
    audio = speech()
    assert 0.4 < np.abs(audio).max() < 0.8  # loud, and nothing is clipped
    narrow = channel.narrow(audio, RATE)
    lost = channel.encode_decode(audio, RATE, codec) - narrow
    assert least < 10 * np.log10(np.mean(narrow**2) / np.mean(lost**2)) < most


@pytest.mark.parametrize("codec", ["mp3", "opus"])
def test_more_compression_loses_more(codec):
    audio = speech()
    lost = [np.mean((channel.encode_decode(audio, RATE, codec, c) - audio) ** 2) for c in (0.0, 1.0)]
    assert lost[1] > 1.5 * lost[0]


@pytest.mark.parametrize("codec", channel.CODECS)
def test_the_same_audio_gives_the_same_samples(codec):
    np.testing.assert_array_equal(*(channel.encode_decode(speech(9000), RATE, codec, 0.3) for _ in range(2)))


def test_too_loud_audio_is_clipped_and_does_not_wrap_around():
    for codec in channel.CODECS:
        decoded = channel.encode_decode(40 * speech(), RATE, codec)
        assert np.corrcoef(np.clip(40 * speech(), -1, 1), decoded)[0, 1] > 0.8


def test_real_speech_stays_in_time(speech_data):
    audio, rate = soundfile.read(speech_data / "samples" / "beckett.wav", dtype="float32")
    audio = audio[: 3 * rate]
    for codec in channel.CODECS:
        for compression in (0.0, 0.5, 1.0):
            assert abs(lag(audio, channel.encode_decode(audio, rate, codec, compression))) <= 1
