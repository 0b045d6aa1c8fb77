"""Sounds to draw from: chosen by weight, read where they are needed only, long enough without a seam."""

import json
import pickle

import numpy as np
import pytest

from jaxspeech.data import audio as audio_files
from jaxspeech.data.manifest import write_manifest
from jaxspeech.data.noise import power
from jaxspeech.data.sounds import Sounds, lengthen
from jaxspeech.errors import UserError

RATE = 16000


def make(folder, name, count, samples=16000, channels=1):
    """Sounds whose samples count up, so that a stretch tells where it is from."""
    rows = []
    for number in range(count):
        ramp = (np.arange(samples) / (2 * samples)).astype(np.float32)
        sound = np.stack([ramp * (-1) ** c for c in range(channels)], axis=1) if channels > 1 else ramp
        audio_files.write(folder / f"{name}{number}.wav", sound, RATE)
        row = {"id": f"{name}{number}", "audio": f"{name}{number}.wav", "text": "", "duration": samples / RATE}
        rows.append(row)
    write_manifest(folder / f"{name}.jsonl", rows)
    return str(folder / f"{name}.jsonl")


def test_sounds_are_drawn_in_proportion_to_their_weights(tmp_path):
    spec = {"3.0": make(tmp_path, "a", 2, 100), "1.0": make(tmp_path, "b", 2, 100)}
    sounds, rng = Sounds(spec, "key", RATE), np.random.default_rng(0)
    ids = [sounds.draw(rng).id for _ in range(2000)]
    shares = [sum(id.startswith(name) for id in ids) / 2000 for name in ("a/a0", "a/a1", "b/b0", "b/b1")]
    np.testing.assert_allclose(shares, [0.375, 0.375, 0.125, 0.125], atol=0.04)


def test_nothing_is_opened_before_the_first_draw_and_a_copy_draws_the_same(tmp_path):
    sounds = Sounds(str(tmp_path / "later.jsonl"), "config.key", RATE)
    with pytest.raises(UserError, match=r"config\.key: manifest .*later.jsonl does not exist"):
        sounds.draw(np.random.default_rng(0))
    make(tmp_path, "later", 5, 100)
    draws = [sounds.draw(np.random.default_rng(n)).id for n in range(9)]
    assert [pickle.loads(pickle.dumps(sounds)).draw(np.random.default_rng(n)).id for n in range(9)] == draws


def test_a_stretch_of_a_long_sound_is_a_slice_of_it(tmp_path):
    sounds = Sounds(make(tmp_path, "a", 1, 32000), "key", RATE)
    whole = audio_files.read(sounds.collection[0])
    begins = []
    for seed in range(40):
        piece = sounds.stretch(sounds.collection[0], 4000, np.random.default_rng(seed))
        alike = [i for i in np.flatnonzero(whole == piece[0]) if np.array_equal(piece, whole[i : i + 4000])]
        assert len(alike) == 1
        begins += alike
    assert min(begins) < 4000
    assert max(begins) > 24000


@pytest.mark.parametrize("samples", [16000, 16001, 40000, 100000])
def test_a_stretch_has_the_length_asked_for(tmp_path, samples):
    sounds = Sounds(make(tmp_path, "a", 1), "key", RATE)
    for seed in range(5):
        assert len(sounds.stretch(sounds.collection[0], samples, np.random.default_rng(seed))) == samples


def test_a_recording_in_pieces_is_read_too(tmp_path):
    make(tmp_path, "a", 2)
    pieces = [{"audio": "a0.wav", "duration": 1.0}, {"audio": "a1.wav", "duration": 1.0, "gap": 0.5}]
    write_manifest(tmp_path / "m.jsonl", [{"id": "both", "segments": pieces, "text": ""}])
    sounds = Sounds(str(tmp_path / "m.jsonl"), "key", RATE)
    assert len(sounds.stretch(sounds.collection[0], 20000, np.random.default_rng(0))) == 20000


def test_of_several_channels_one_is_taken(tmp_path):
    """Their mean would be silence."""
    sounds = Sounds(make(tmp_path, "a", 1, channels=2), "key", RATE)
    signs = {float(np.sign(sounds.whole(sounds.collection[0], np.random.default_rng(n))[-1])) for n in range(20)}
    assert signs == {-1.0, 1.0}
    row = json.loads((tmp_path / "a.jsonl").read_text())
    write_manifest(tmp_path / "a.jsonl", [row | {"channel": 1}])
    named = Sounds(str(tmp_path / "a.jsonl"), "key", RATE)
    assert {float(np.sign(named.whole(named.collection[0], np.random.default_rng(n))[-1])) for n in range(20)} == {-1.0}


def test_repeated_noise_neither_dips_nor_jumps():
    sound = np.random.default_rng(0).standard_normal(12000).astype(np.float32)
    long = lengthen(sound, 100000, RATE)
    assert len(long) == 100000
    np.testing.assert_array_equal(long[:8000], sound[:8000])
    levels = [power(part) for part in np.array_split(long, 50)]
    np.testing.assert_allclose(levels, 1.0, atol=0.15)
    tone = np.sin(2 * np.pi * 50 * np.arange(8000) / RATE).astype(np.float32)
    assert np.abs(np.diff(lengthen(tone, 50000, RATE))).max() < 1.5 * np.abs(np.diff(tone)).max()


@pytest.mark.parametrize("samples", [1, 2, 3, 7])
def test_even_the_shortest_sound_fills_any_length(samples):
    long = lengthen(np.ones(samples, np.float32), 1000, RATE)
    assert len(long) == 1000
    assert (long > 0.5).all()
