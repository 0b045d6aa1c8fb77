"""Training from shards gives the losses of training from the files, to the last bit."""

import json

import numpy as np
import pytest
from drill import Training, make_corpus, metrics

from jaxspeech.corpora.encoding import Encoding
from jaxspeech.corpora.shards import pack
from jaxspeech.data import audio
from jaxspeech.data.manifest import Manifest

QUICK = {"train.steps": 12, "eval.every": 0}
LETTERS = {"data.tokenizer": "characters:abcdefghijklmnopqrstuvwxyz' "}


def some_digits(speech_data, folder):
    """48 utterances of real speech at 8 kHz, each put together from several files with gaps."""
    source = speech_data / "digits"
    rows = [json.loads(line) for line in (source / "dev.jsonl").read_text("utf-8").splitlines()[:48]]
    for row in rows:
        for piece in row["segments"]:
            piece["audio"] = str(source / piece["audio"])
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder / "train.jsonl"


def packed(manifest, folder):
    """The manifests of its FLAC and PCM16 shards, several of each."""
    found = {}
    for kind in ("flac", "pcm16"):
        result = pack(manifest, folder / kind, Encoding(kind), 0.1, processes=1)
        assert result["kept"] == len(Manifest.open(manifest))
        assert result["shards"] > 2
        found[kind] = result["manifest"]
    return found


def test_shards_of_digits_hold_the_samples_that_training_hears(speech_data, tmp_path):
    manifest = some_digits(speech_data, tmp_path / "corpus")
    files = Manifest.open(manifest)
    assert max(len(files[place].segments) for place in range(len(files))) > 3
    for path in packed(manifest, tmp_path).values():
        shards = Manifest.open(path)
        for place in range(len(files)):
            for rate in (16000, 8000, 11025):
                np.testing.assert_array_equal(audio.read(shards[place], rate), audio.read(files[place], rate))


@pytest.mark.slow
@pytest.mark.parametrize("speech", ["tones", "digits"])
def test_training_from_shards_gives_the_losses_of_the_files(request, tmp_path, speech):
    if speech == "tones":
        manifest, config = make_corpus(tmp_path / "corpus"), QUICK
    else:
        manifest = some_digits(request.getfixturevalue("speech_data"), tmp_path / "corpus")
        config = QUICK | LETTERS
    lines = {}
    for name, path in {"files": manifest, **packed(manifest, tmp_path / "shards")}.items():
        Training(tmp_path / name, path, tmp_path / "cache", config=config).finish()
        lines[name] = metrics(tmp_path / name)
        for line in lines[name]:
            line.pop("set", None)  # of an evaluation: the name of the manifest
    losses = [line["loss"] for line in lines["files"] if line["split"] == "train"]
    assert len(losses) == QUICK["train.steps"]
    assert len(set(losses)) > 1
    assert lines["flac"] == lines["files"]
    assert lines["pcm16"] == lines["files"]
