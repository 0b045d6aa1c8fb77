"""Audio comes out as 16 kHz mono, the same whichever way a stretch is reached, or as an error with a reason."""

import pickle

import numpy as np
import pytest
import soundfile
import soxr

from jaxspeech.data import audio
from jaxspeech.data.audio import AudioError
from jaxspeech.data.record import Record, Segment


def speechlike(rate: int, seconds: float, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A modulated chirp in noise, below half of `rate`; float32[samples, channels], channels differ in level."""
    t = np.arange(round(rate * seconds)) / rate
    chirp = 0.3 * np.sin(2 * np.pi * (150 + 40 * t) * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
    noise = 0.02 * np.random.default_rng(seed).standard_normal(len(t))
    return np.stack([(chirp + noise) * (1 - 0.4 * c) for c in range(channels)], 1).astype(np.float32)


def whole(path, duration: float, channel: int | None = None) -> Record:
    return Record("u", "", duration, (Segment(str(path), channel=channel),))


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "opus", "mp3"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_becomes_16_khz_mono(tmp_path, extension, rate, channels):
    if extension == "opus" and rate == 44100:
        pytest.skip("Opus has no such rate")
    path = tmp_path / f"a.{extension}"
    original = speechlike(rate, 1.5, channels)
    audio.write(path, original, rate)
    duration, found_rate, found_channels = audio.probe(path)
    assert (found_rate, found_channels) == (rate, channels)
    assert duration == pytest.approx(1.5, abs=1e-3)
    read = audio.read(whole(path, 1.5))
    assert read.dtype == np.float32
    assert read.shape == (24000,)
    expected = soxr.resample(original.mean(1), rate, 16000)
    inner = slice(1600, -1600)  # lossy codecs take a moment to begin and end
    error = np.sqrt(np.mean((read[inner] - expected[inner]) ** 2) / np.mean(expected[inner] ** 2))
    assert error < (0.25 if extension in ("ogg", "opus", "mp3") else 1e-3)


@pytest.mark.parametrize(
    ("format", "subtype", "rate", "channels", "stays"),
    [
        ("WAV", "PCM_16", 16000, 1, True),
        ("FLAC", "PCM_16", 16000, 1, True),
        ("WAV", "PCM_16", 16000, 2, False),  # the mean of two is no integer
        ("WAV", "PCM_16", 8000, 1, False),
        ("WAV", "PCM_24", 16000, 1, False),
        ("WAV", "FLOAT", 16000, 1, False),
        ("WAV", "ULAW", 16000, 1, False),
    ],
)
def test_integers_are_the_same_samples_before_they_are_floats(tmp_path, format, subtype, rate, channels, stays):
    path = tmp_path / "a"
    sound = speechlike(rate, 1.0, channels)
    sound[:4, 0] = -1, 1, 1 / 32768, -1 / 32768
    soundfile.write(path, sound, rate, subtype, format=format)
    for record in (
        whole(path, 1.0),
        whole(path, 1.0, channel=0),
        Record("u", "", 0.5, (Segment(str(path), 0.2, 0.5),)),
    ):
        plain = audio.read(record)
        stored = audio.read(record, integers=True)
        assert plain.dtype == np.float32
        if record.segments[0].channel is None:
            assert stored.dtype == (np.int16 if stays else np.float32)
        np.testing.assert_array_equal(audio.floats(stored), plain)
        floats, integers = np.full(len(plain), np.nan, np.float32), np.full(len(plain), 99, np.int16)
        audio.put(stored, floats)
        np.testing.assert_array_equal(floats, plain)
        audio.put(plain, integers)
        if stored.dtype == np.int16:
            np.testing.assert_array_equal(integers, stored)
        np.testing.assert_allclose(audio.floats(integers), np.clip(plain, -1, 32767 / 32768), atol=0.5001 / 32768)
    if rate == 16000:
        theirs = soundfile.read(path, dtype="float32", always_2d=True)[0]
        np.testing.assert_array_equal(audio.read(whole(path, 1.0, channel=0)), theirs[:, 0])


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "opus", "mp3"])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_a_stretch_equals_the_slice_of_the_whole_file(tmp_path, extension, rate):
    if extension == "opus" and rate in (11025, 44100):
        pytest.skip("Opus has no such rate")
    path = tmp_path / f"a.{extension}"
    seconds = 26.0 if extension == "ogg" else 9.0
    audio.write(path, speechlike(rate, seconds), rate)
    entire = audio.read_segment(Segment(str(path)))
    rng = np.random.default_rng(3)
    tail = seconds - rng.uniform(0.05, 2.0, 8)
    for offset in [0.0, 0.0131, *rng.uniform(0, seconds - 1, 6), *tail]:
        length = float(rng.uniform(0.02, min(1.0, seconds - offset)))
        stretch = audio.read_segment(Segment(str(path), float(offset), length))
        begin = round(offset * 16000)
        expected = entire[begin : begin + round(length * 16000)]
        assert stretch.shape == expected.shape
        # Opus decoders carry noise and prediction from before: 40 dB below this signal, and no shift.
        assert np.abs(stretch - expected).max() < (1e-2 if extension == "opus" else 1e-5)


def worst_of_stretches(path, offsets) -> float:
    entire = audio.read_segment(Segment(str(path)))
    worst = 0.0
    for offset in offsets:
        stretch = audio.read_segment(Segment(str(path), float(offset), 0.05))
        begin = round(offset * 16000)
        worst = max(worst, float(np.abs(stretch - entire[begin : begin + 800]).max()))
    return worst


def test_the_end_of_a_vorbis_file_is_not_misplaced(tmp_path):
    """libsndfile 1.2 reads displaced samples after a seek into the last Ogg page."""
    t = np.arange(98400) / 8000
    tone = 0.3 * np.sin(2 * np.pi * 200 * t) + 0.001 * np.random.default_rng(0).standard_normal(len(t))
    audio.write(tmp_path / "a.ogg", tone.astype(np.float32), 8000)
    assert worst_of_stretches(tmp_path / "a.ogg", np.linspace(11.0, 12.2, 40)) < 1e-5


def test_an_mp3_is_exact_after_a_seek(tmp_path):
    """Without a run-up the first frames after a seek lack what the bit reservoir held before."""
    rng = np.random.default_rng(0)
    audio.write(tmp_path / "a.mp3", (0.1 * rng.standard_normal(16000 * 20)).astype(np.float32), 16000)
    assert worst_of_stretches(tmp_path / "a.mp3", rng.uniform(1.2, 19.0, 300)) < 1e-5


def test_a_stretch_is_read_without_decoding_what_lies_before_it(tmp_path, monkeypatch):
    path = tmp_path / "a.flac"
    audio.write(path, speechlike(44100, 30.0), 44100)
    decoded = []
    read = soundfile.SoundFile.read

    def counting(self, frames=-1, **kwargs):
        result = read(self, frames, **kwargs)
        decoded.append(len(result))
        return result

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    audio.read_segment(Segment(str(path), 25.0, 1.0))
    assert sum(decoded) < 1.2 * 44100


def test_the_channel_asked_for_is_taken_and_otherwise_the_mean(tmp_path):
    path = tmp_path / "a.wav"
    stereo = speechlike(16000, 0.5, 2)
    soundfile.write(path, stereo, 16000, subtype="FLOAT")
    np.testing.assert_array_equal(audio.read(whole(path, 0.5, channel=1)), stereo[:, 1])
    np.testing.assert_allclose(audio.read(whole(path, 0.5)), stereo.mean(1), atol=1e-7)


def test_segments_are_joined_with_their_gaps_before_them(tmp_path):
    one, two = speechlike(16000, 0.5)[:, 0], speechlike(16000, 0.3, seed=1)[:, 0]
    for name, samples in (("1.wav", one), ("2.wav", two)):
        soundfile.write(tmp_path / name, samples, 16000, subtype="FLOAT")
    first = Segment(str(tmp_path / "1.wav"), 0.1, 0.2, gap=0.25)
    second = Segment(str(tmp_path / "2.wav"), gap=0.05)
    read = audio.read(Record("u", "", 0.8, (first, second)))
    expected = np.concatenate([np.zeros(4000), one[1600:4800], np.zeros(800), two]).astype(np.float32)
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_segments_of_another_rate_sound_as_the_one_file_that_holds_them(tmp_path, rate):
    pieces = [speechlike(rate, seconds, seed=seed)[:, 0] for seed, seconds in enumerate((0.5, 0.3, 0.4))]
    segments = []
    for number, piece in enumerate(pieces):
        soundfile.write(tmp_path / f"{number}.wav", piece, rate, subtype="FLOAT")
        segments.append(Segment(str(tmp_path / f"{number}.wav"), gap=0.1 * number))
    gaps = [np.zeros(round(0.1 * number * rate)) for number in range(3)]
    joined = np.concatenate([part for pair in zip(gaps, pieces) for part in pair])
    soundfile.write(tmp_path / "joined.wav", joined, rate, subtype="FLOAT")
    read = audio.read(Record("u", "", 1.5, tuple(segments)))
    np.testing.assert_array_equal(read, audio.read(whole(tmp_path / "joined.wav", 1.5)))
    assert len(read) == 24000


def test_segments_of_several_rates_are_joined_at_the_rate_asked_for(tmp_path):
    segments = []
    for number, rate in enumerate((8000, 44100, 16000)):
        soundfile.write(tmp_path / f"{number}.wav", speechlike(rate, 0.5)[:, 0], rate, subtype="FLOAT")
        segments.append(Segment(str(tmp_path / f"{number}.wav"), gap=0.25))
    read = audio.read(Record("u", "", 2.25, tuple(segments)))
    assert len(read) == 36000
    for number, segment in enumerate(segments):
        begin = number * 12000
        assert not read[begin : begin + 4000].any()
        np.testing.assert_array_equal(read[begin + 4000 : begin + 12000], audio.read_segment(segment))


@pytest.mark.parametrize("extension", ["wav", "flac"])
def test_blocks_are_the_stretch_at_the_rate_of_its_file(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    audio.write(path, speechlike(44100, 3.0, 2), 44100)
    for segment in (Segment(str(path)), Segment(str(path), 0.4321, 1.7), Segment(str(path), 1.0, channel=1)):
        parts = list(audio.blocks(segment, seconds=0.5))
        assert len(parts) > 3
        np.testing.assert_array_equal(np.concatenate(parts), audio.read_segment(segment, 44100))
    with pytest.raises(AudioError, match="segment beyond the end"):
        list(audio.blocks(Segment(str(path), 1.0, 2.5), seconds=0.5))


def test_silence_at_the_end_is_kept(tmp_path):
    samples = np.concatenate([speechlike(16000, 0.5)[:, 0], np.zeros(16000, np.float32)])
    audio.write(tmp_path / "a.flac", samples, 16000)
    assert len(audio.read(whole(tmp_path / "a.flac", 1.5))) == 24000


def test_never_more_samples_than_planned(tmp_path):
    audio.write(tmp_path / "a.wav", speechlike(16000, 1.0), 16000)
    for duration in (0.95, 0.99997, 1.0, 1.00003, 1.08):
        read = audio.read(whole(tmp_path / "a.wav", duration))
        assert len(read) == min(audio.samples(duration, 16000), 16000)


def test_the_planning_rule_is_the_same_for_one_and_for_many():
    durations = np.random.default_rng(0).uniform(0, 40, 2000).round(4)
    durations[:2] = (0.5 / 16000, 1.5 / 16000)  # halves
    one_by_one = [audio.samples(float(d), 16000) for d in durations]
    np.testing.assert_array_equal(audio.samples(durations, 16000), one_by_one)


def refused(record: Record) -> str:
    with pytest.raises(AudioError) as caught:
        audio.read(record)
    assert record.segments[0].audio in caught.value.detail
    return caught.value.reason


def test_a_missing_file_is_named(tmp_path):
    assert refused(whole(tmp_path / "none.wav", 1.0)) == "missing file"
    assert refused(whole("/a\0b.wav", 1.0)) in ("missing file", "corrupt audio")


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "opus", "mp3"])
def test_damaged_files_are_refused_not_shortened(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    audio.write(path, speechlike(16000, 6.0), 16000)
    content = path.read_bytes()
    damaged = tmp_path / f"b.{extension}"
    damaged.write_bytes(content[: len(content) // 2])
    assert refused(whole(damaged, 6.0)) in ("corrupt audio", "shorter than the manifest says")
    damaged.write_bytes(b"\x81\x17" * 2000)
    assert refused(whole(damaged, 6.0)) == "corrupt audio"
    damaged.write_bytes(b"")
    assert refused(whole(damaged, 6.0)) == "empty audio"
    with pytest.raises(AudioError, match="empty audio"):
        audio.probe(damaged)


def test_a_folder_and_a_file_without_samples_are_refused(tmp_path):
    audio.write(tmp_path / "a.wav", np.zeros(0, np.float32), 16000)
    assert refused(whole(tmp_path / "a.wav", 1.0)) == "empty audio"
    assert refused(whole(tmp_path, 1.0)) == "corrupt audio"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path, bad):
    samples = speechlike(16000, 0.5)
    samples[77] = bad
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    assert refused(whole(tmp_path / "a.wav", 0.5)) == "not a number"


def test_what_disagrees_with_the_manifest_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    audio.write(path, speechlike(16000, 2.0), 16000)
    assert refused(whole(path, 1.5)) == "longer than the manifest says"
    assert refused(whole(path, 2.5)) == "shorter than the manifest says"
    assert refused(whole(path, 2.0, channel=1)) == "channel out of range"
    for offset, length in ((1.5, 1.0), (2.0, 0.1), (7.0, 1.0)):
        assert refused(Record("u", "", length, (Segment(str(path), offset, length),))) == "segment beyond the end"
    # A stretch of a longer file is no disagreement, nor is an end that a tool rounded.
    assert len(audio.read(Record("u", "", 0.5, (Segment(str(path), 1.0, 0.5),)))) == 8000
    assert len(audio.read(Record("u", "", 0.55, (Segment(str(path), 1.5, 0.55),)))) == 8000


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(AudioError("missing file", "a.wav")))
    assert (error.reason, error.detail, str(error)) == ("missing file", "a.wav", "missing file: a.wav")


def test_long_vorbis_can_be_written(tmp_path):
    audio.write(tmp_path / "a.ogg", np.full(44100 * 60, 0.01, np.float32), 44100)
    assert audio.probe(tmp_path / "a.ogg")[0] == pytest.approx(60.0)


def test_loud_audio_is_clipped_and_not_wrapped(tmp_path):
    audio.write(tmp_path / "a.wav", np.array([0.5, 1.5, -1.5, -0.5], np.float32).repeat(800), 16000)
    read = audio.read(whole(tmp_path / "a.wav", 0.2))
    assert read[1200] > 0.99
    assert read[2000] < -0.99
    assert list(tmp_path.iterdir()) == [tmp_path / "a.wav"]


def test_real_digits_are_as_long_as_their_manifest_says(speech_data):
    from jaxspeech.data.manifest import Manifest

    manifest = Manifest.open(speech_data / "digits" / "dev.jsonl")
    for index in range(0, len(manifest), 20):
        record = manifest[index]
        assert abs(len(audio.read(record)) - audio.samples(record.duration, 16000)) <= len(record.segments)
