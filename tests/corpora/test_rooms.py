"""Simulated rooms: physics of the impulse responses, the same from the same seed, and fit to augment with."""

import argparse
import dataclasses
import json

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import rooms
from jaxspeech.data.manifest import Manifest
from jaxspeech.data.room import decay_time
from jaxspeech.errors import UserError

RATE = 16000


def words(out, *more):
    parser = argparse.ArgumentParser()
    rooms.add_arguments(parser)
    return parser.parse_args([f"--out={out}", *more])


def test_without_the_simulator_its_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(rooms.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'jaxspeech\[rooms\]'"):
        rooms.run(words(tmp_path))


@pytest.mark.parametrize("asked", [("--rt60", "0.8", "0.1"), ("--rt60", "0", "0.1"), ("--count=0",)])
def test_rooms_that_cannot_be_are_refused(monkeypatch, tmp_path, asked):
    monkeypatch.setattr(rooms.importlib.util, "find_spec", lambda name: True)
    with pytest.raises(UserError, match=r"give 0\.05 ≤ LOW ≤ HIGH ≤ 2"):
        rooms.run(words(tmp_path, *asked))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    pytest.importorskip("pyroomacoustics")
    folder = tmp_path_factory.mktemp("rooms")
    return folder, rooms.run(words(folder, "--count=6", "--rt60", "0.2", "0.5", "--processes=1"))


def test_a_manifest_of_responses_is_written(simulated):
    folder, found = simulated
    manifest = Manifest.open(folder / "rooms.jsonl")
    assert found["rooms"] == len(manifest) == 6
    rows = [json.loads(line) for line in (folder / "rooms.jsonl").read_text("utf-8").splitlines()]
    for row, record in zip(rows, (manifest[i] for i in range(6))):
        response, rate = soundfile.read(record.segments[0].audio, dtype="float32")
        assert rate == RATE
        assert len(response) == round(row["duration"] * RATE)
        assert np.abs(response).max() == pytest.approx(0.9, abs=1e-3)
        assert row["rt60"] == pytest.approx(decay_time(response, RATE), abs=0.03)
        assert 0.05 < row["rt60"] < 1.0
        assert np.argmax(np.abs(response)) <= 40 + 2  # the direct sound comes first


def test_a_room_that_rings_longer_has_a_longer_response(simulated):
    pytest.importorskip("pyroomacoustics")
    dry, wet = (rooms.draw(np.random.default_rng(3), (rt60, rt60)) for rt60 in (0.15, 0.6))
    times = [decay_time(rooms.simulate(room, RATE), RATE) for room in (dry, wet)]
    assert times[1] > 2 * times[0]


def test_the_direct_sound_falls_as_the_distance_grows():
    pytest.importorskip("pyroomacoustics")
    room = dataclasses.replace(rooms.draw(np.random.default_rng(3), (0.3, 0.3)), source=(1.0, 1.0, 1.2))
    shares = []
    for metres in (0.3, 1.5):
        response = rooms.simulate(dataclasses.replace(room, microphone=(1.0 + metres, 1.0, 1.2)), RATE)
        direct = int(np.argmax(np.abs(response)))
        near = response[max(direct - 20, 0) : direct + 20]
        shares.append(float(np.sum(near**2) / np.sum(response**2)))
    assert shares[0] > 1.5 * shares[1]


def test_the_same_seed_gives_the_same_rooms_with_any_number_of_processes(simulated, tmp_path):
    folder, _ = simulated
    rooms.run(words(tmp_path, "--count=6", "--rt60", "0.2", "0.5", "--processes=2"))
    for path in sorted(folder.rglob("*.wav")):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes()
    other = rooms.draw(np.random.default_rng((1, 0)), (0.2, 0.5))
    assert other != rooms.draw(np.random.default_rng((0, 0)), (0.2, 0.5))
