"""Manifests of small sound files, and commands run as from the shell."""

import argparse
import importlib
import json

import numpy as np
import pytest
import soundfile

RATE = 16000


class Folder:
    """A folder that is filled with sound and manifests."""

    def __init__(self, path):
        self.path = path

    def sound(self, name, seconds=1.0, seed=0, rate=RATE, pauses=()):
        """Noise, different for every seed, silent within `pauses` [(start, end) in seconds]; its path."""
        samples = 0.1 * np.random.default_rng(seed).normal(size=round(seconds * rate))
        for start, end in pauses:
            samples[round(start * rate) : round(end * rate)] *= 1e-3
        soundfile.write(self.path / name, (32767 * samples.clip(-1, 1)).astype(np.int16), rate)
        return self.path / name

    def manifest(self, name, rows):
        """A manifest of rows, or of raw lines."""
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        (self.path / name).write_text("".join(line + "\n" for line in lines), "utf-8")
        return self.path / name

    def rows(self, name):
        path = self.path / name
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    def run(self, module, *words):
        """`run` of a command of `jaxspeech.cleaning`; checks that its totals add up."""
        command = importlib.import_module(f"jaxspeech.cleaning.{module}")
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        parser.add_argument("--json", action="store_true")
        result = command.run(parser.parse_args([str(word) for word in words]))
        assert result["read"] == result["kept"] + sum(result["filtered"].values()) + sum(result["failed"].values())
        return result


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)
