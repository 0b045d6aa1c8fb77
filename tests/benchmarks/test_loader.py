"""The comparison of the loader with bare decoding."""

import argparse

import pytest
import soundfile

from jaxspeech.benchmarks import loader
from jaxspeech.data.manifest import Collection


@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_its_files_are_what_their_manifest_says(tmp_path, suffix):
    collection = Collection.open(str(loader.files(tmp_path, suffix, 3)))
    assert collection.durations.tolist() == [loader.SECONDS] * 3
    for number in range(3):
        info = soundfile.info(collection[number].segments[0].audio)
        assert (info.frames, info.samplerate, info.format) == (192_000, 16_000, suffix.upper())
        assert info.subtype == "PCM_16"


def test_flac_has_something_to_compress(tmp_path):
    loader.files(tmp_path, "flac", 1)
    share = (tmp_path / "0.flac").stat().st_size / (2 * 192_000)
    assert 0.4 < share < 0.9  # speech has about 0.6; silence or noise at full scale would have next to nothing or all


def test_of_one_round_the_ratio_is_that_of_the_two_speeds():
    found = loader.run(argparse.Namespace(files=20, rounds=1))
    assert set(found) == {"flac", "pcm16", "flac_shard", "pcm16_shard", "pcm16_shard_int16"}
    for numbers in found.values():
        assert numbers["ratio"] == pytest.approx(numbers["realtime_per_core"] / numbers["bare_realtime_per_core"])
    assert found["pcm16"]["bare_realtime_per_core"] > found["flac"]["bare_realtime_per_core"]
