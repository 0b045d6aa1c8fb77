"""Which utterances are the same, whatever file they are in, and however long it is."""

import tracemalloc

import numpy as np
import soundfile

from jaxspeech.cleaning import duplicates
from jaxspeech.data.record import Record, Segment

RATE = 8000


def key(*segments: Segment) -> int:
    return duplicates.audio_key(Record("u", "", 1.0, segments))


def noise(seconds: float) -> np.ndarray:
    return (3000 * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.int16)


def test_audio_has_one_key_in_any_lossless_file_and_as_a_stretch_of_another(tmp_path):
    sound = noise(130)  # more than is read at a time
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, sound, RATE)
    soundfile.write(tmp_path / "longer.flac", np.concatenate([sound[:777], sound, sound[:99]]), RATE)
    soundfile.write(tmp_path / "other.wav", sound[::-1], RATE)
    whole = key(Segment(str(tmp_path / "a.wav")))
    assert key(Segment(str(tmp_path / "a.flac"))) == whole
    assert key(Segment(str(tmp_path / "longer.flac"), 777 / RATE, 130.0)) == whole
    halves = [Segment(str(tmp_path / "a.wav"), 0.0, 64.5), Segment(str(tmp_path / "a.flac"), 64.5, 65.5)]
    assert key(*halves) == whole
    assert key(Segment(str(tmp_path / "other.wav"))) != whole


def test_a_recording_of_hours_takes_no_memory(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.tile(noise(60), 30), RATE)

    def peak(seconds: float) -> int:
        tracemalloc.start()
        try:
            key(Segment(str(tmp_path / "long.wav"), 0.0, seconds))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(1800.0) < 1.2 * peak(120.0)
