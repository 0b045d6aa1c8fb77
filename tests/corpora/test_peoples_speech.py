"""The People's Speech: a JSON line a source with many clips, unpacked or in tars."""

import argparse
import json
import tarfile

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import peoples_speech
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data import audio, record
from jaxspeech.errors import UserError

SOURCES = {
    "07282016HFUUforum": ["i wanted this to share a few things", "but i'm going to not share as much"],
    "gov_DOT_uscourts": ["may it please the court"],
}


def clips(source):
    return [f"{source}_SLASH_a_DOT_mp3_{number:05d}.flac" for number in range(len(SOURCES[source]))]


def write(root, split, set_):
    folder = root / split / set_
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, 3200).astype(np.float32)
    with open(root / split / f"{set_}.json", "w") as file:
        for source, texts in SOURCES.items():
            for name in clips(source):
                soundfile.write(folder / name, noise, 16000)
            data = {"duration_ms": [200] * len(texts), "label": texts, "name": clips(source)}
            file.write(json.dumps({"identifier": source, "training_data": data}) + "\n")


@pytest.fixture
def corpus(tmp_path):
    write(tmp_path, "train", "clean")
    write(tmp_path, "test", "test")
    return tmp_path


def opened(path):
    return peoples_speech.source(argparse.Namespace(path=str(path)))


def test_every_clip_of_every_source_is_found(corpus):
    source = opened(corpus)
    assert source.splits() == ["clean", "test"]
    items = list(source.items("clean"))
    assert [item.row["text"] for item in items] == [text for texts in SOURCES.values() for text in texts]
    assert [item.where for item in items] == [f"{corpus.name}/train/clean.json:{n}" for n in ("1:0", "1:1", "2:0")]
    assert items[0].row["id"] == "07282016HFUUforum_SLASH_a_DOT_mp3_00000"
    assert items[0].row["identifier"] == "07282016HFUUforum"
    for item in items:
        record.check(item.row)
        assert soundfile.info(item.row["audio"]).duration == item.row["duration"] == 0.2


@pytest.mark.parametrize("prefix", ["", "./"])
def test_clips_in_tars_stay_there(corpus, prefix):
    folder = corpus / "train" / "clean"
    for number, source in enumerate(SOURCES):
        with tarfile.open(folder / f"clean_{number:06d}.tar", "w") as tar:
            for name in clips(source):
                tar.add(folder / name, prefix + name)
                (folder / name).unlink()
    items = list(opened(corpus).items("clean"))
    assert items[2].row["audio"] == f"{folder}/clean_000001.tar#{clips('gov_DOT_uscourts')[0]}"
    for item in items:
        assert audio.probe(item.row["audio"]) == (0.2, 16000, 1)


def test_bad_lines_are_rejected_and_stop_nothing(corpus):
    path = corpus / "train" / "clean.json"
    uneven = {"identifier": "x", "training_data": {"duration_ms": [1], "label": ["a", "b"], "name": ["c", "d"]}}
    odd = {"identifier": "x", "training_data": {"duration_ms": [1], "label": [None], "name": ["c.flac"]}}
    path.write_text("{\n" + json.dumps(uneven) + "\n" + json.dumps(odd) + "\n" + path.read_text())
    items = list(opened(corpus).items("clean"))
    reasons = [(item.where.partition("json:")[2], item.reason) for item in items if isinstance(item, Rejected)]
    assert reasons == [("1", "bad line"), ("2", "bad line"), ("3:0", "bad clip")]
    assert sum(isinstance(item, Found) for item in items) == 3


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no train/clean\.json"):
        opened(tmp_path).splits()
