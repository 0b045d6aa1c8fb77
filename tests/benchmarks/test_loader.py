"""The comparison of the loader with bare decoding."""

import argparse

from jaxspeech.benchmarks import loader


def test_it_compares_flac_and_pcm16():
    found = loader.run(argparse.Namespace(files=20, rounds=1))
    assert set(found) == {"flac", "pcm16"}
    for numbers in found.values():
        assert numbers["realtime_per_core"] > 0
        assert numbers["bare_realtime_per_core"] > 0
