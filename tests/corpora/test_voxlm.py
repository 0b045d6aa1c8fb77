"""VoxLM's two kinds of manifests."""

import argparse
import json

import pytest

from jaxspeech.corpora import voxlm
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data import record
from jaxspeech.errors import UserError


def source(*words: object) -> voxlm.VoxLM:
    parser = argparse.ArgumentParser()
    voxlm.add_arguments(parser)
    return voxlm.source(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def data(tmp_path):
    """The folder that its tools leave: times of words for one split, a plain manifest of another."""
    entry = {
        "id": "84-121123-0001",
        "audio": "/data/LibriSpeech/84-121123-0001.flac",
        "text": "mister quilter",
        "text_whisper": "Mr. Quilter",
        "wer": 0.0833,
        "timestamps": [{"word": " Mr.", "start": 0.12, "end": 0.45}, {"word": " Quilter", "start": 0.45, "end": 0.89}],
    }
    folder = tmp_path / "data"
    (folder / "timestamps" / "train-clean-100").mkdir(parents=True)
    times = folder / "timestamps" / "train-clean-100" / "timestamps_manifest.json"
    times.write_text(json.dumps([entry], indent=2))
    (folder / "dev-clean_manifest.json").write_text(json.dumps([{"audio": "d/a.flac", "text": "plain", "id": "a"}]))
    return folder


def test_times_of_words_are_kept(data):
    path = data / "timestamps" / "train-clean-100" / "timestamps_manifest.json"
    opened = source(path)
    assert opened.splits() == ["train-clean-100"]
    (item,) = opened.items("train-clean-100")
    assert item.where == "timestamps_manifest.json:2"
    assert item.row == {
        "id": "84-121123-0001",
        "audio": "/data/LibriSpeech/84-121123-0001.flac",
        "text": "mister quilter",
        "words": [["Mr.", 0.12, 0.45], ["Quilter", 0.45, 0.89]],
        "text_whisper": "Mr. Quilter",
        "wer": 0.0833,
    }
    record.check(item.row)
    (item,) = source(path, "--text-key", "text_whisper").items("train-clean-100")
    assert item.row["text"] == "Mr. Quilter"


def test_a_folder_gives_all_its_manifests(data):
    opened = source(data)
    assert opened.splits() == ["dev-clean", "train-clean-100"]
    (item,) = opened.items("dev-clean")
    assert item.row == {"id": "a", "audio": f"{data}/d/a.flac", "text": "plain"}


def test_bad_entries_are_named_and_the_rest_is_kept(tmp_path):
    good = {"id": "a", "audio": "a.wav", "text": "x"}
    entries = [
        good,
        good | {"timestamps": [{"word": "x", "start": 2.0, "end": 1.0}]},
        good | {"timestamps": [{"word": "x", "start": 2.0}]},
        good | {"timestamps": None},
        good | {"timestamps": [{"word": None, "start": 1.0, "end": 2.0}]},
        {"id": "a", "text": "x"},
        {"id": "a", "audio": "a.wav"},
    ]
    (tmp_path / "t_manifest.json").write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "]")
    found = list(source(tmp_path / "t_manifest.json").items("t"))
    assert isinstance(found[0], Found)
    assert [(item.where.partition(":")[2], item.reason) for item in found if isinstance(item, Rejected)] == [
        ("3", "bad words"),
        ("4", "bad words"),
        ("5", "bad words"),
        ("6", "bad words"),
        ("7", "no audio"),
        ("8", "no transcript"),
    ]


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match="holds no timestamps_manifest"):
        source(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        source(tmp_path / "absent_manifest.json")
