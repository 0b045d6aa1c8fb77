"""Moshi's lists of stereo files with the words beside them."""

import argparse
import gzip
import json

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import moshi
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data import audio, record
from jaxspeech.errors import UserError


def source(*words: object) -> moshi.Moshi:
    parser = argparse.ArgumentParser()
    moshi.add_arguments(parser)
    return moshi.source(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def data(tmp_path):
    (tmp_path / "stereo").mkdir()
    time = np.arange(24000) / 24000
    sides = np.stack([np.sin(2 * np.pi * 300 * time), np.sin(2 * np.pi * 700 * time)], 1)
    soundfile.write(tmp_path / "stereo" / "0.wav", 0.3 * sides, 24000)
    content = {
        "alignments": [
            ["there", [0.5, 0.7], "SPEAKER_MAIN"],
            [" hello", [0.1, 0.4], "SPEAKER_MAIN"],
            ["yes", [0.75, 0.9], "SPEAKER_1"],
        ],
        "text_conditions": {"mood": "calm"},
    }
    (tmp_path / "stereo" / "0.json").write_text(json.dumps(content))
    (tmp_path / "talk.jsonl").write_text('{"path": "stereo/0.wav", "duration": 1.0}\n')
    return tmp_path


def test_a_file_is_one_utterance_with_both_channels(data):
    (item,) = source(data / "talk.jsonl").items("talk")
    assert item.where == "talk.jsonl:1"
    assert item.row == {
        "id": "stereo/0",
        "audio": f"{data}/stereo/0.wav",
        "duration": 1.0,
        "text": "hello there",
        "words": [["hello", 0.1, 0.4], ["there", 0.5, 0.7]],
        "others": [["yes", 0.75, 0.9, "SPEAKER_1"]],
        "text_conditions": {"mood": "calm"},
    }
    record.check(item.row)


def test_each_side_has_its_own_words_and_sound(data):
    left, right = source(data / "talk.jsonl", "--channels", "each").items("talk")
    assert (left.row["id"], left.row["text"], left.row["channel"]) == ("stereo/0-left", "hello there", 0)
    assert (right.row["id"], right.row["text"], right.row["channel"]) == ("stereo/0-right", "yes", 1)
    for item, hertz in ((left, 300), (right, 700)):
        heard = audio.read(record.build(item.row, 1.0, ""), 24000)
        assert np.argmax(np.abs(np.fft.rfft(heard))) == hertz
    (main,) = source(data / "talk.jsonl", "--channels", "main").items("talk")
    assert (main.row["text"], main.row["channel"]) == ("hello there", 0)


def test_a_folder_and_packed_lists_are_taken(data):
    (data / "more").mkdir()
    (data / "more" / "eval.jsonl").write_text('{"path": "../stereo/0.wav", "duration": 1.0}\n')
    opened = source(data)
    assert opened.splits() == ["eval", "talk"]
    (item,) = opened.items("eval")
    assert item.row["audio"] == f"{data}/stereo/0.wav"
    packed = data / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress((data / "talk.jsonl").read_bytes()))
    assert [found.row["id"] for found in source(packed).items("packed")] == ["stereo/0"]


def test_bad_lines_and_transcripts_are_named_and_the_rest_is_kept(data):
    for name, content in (
        ("cut", '{"alignments": ['),
        ("keys", '{"words": []}'),
        ("backwards", '{"alignments": [["a", [2, 1], "SPEAKER_MAIN"]]}'),
        ("shape", '{"alignments": [["a", 1, 2]]}'),
        ("list", "[]"),
    ):
        (data / "stereo" / f"{name}.json").write_text(content)
    (data / "stereo" / "annotated.json.err").write_text("")
    names = ["cut", "keys", "backwards", "shape", "list", "absent", "annotated"]
    lines = [json.dumps({"path": f"stereo/{name}.wav", "duration": 1.0}) for name in names]
    lines += ['{"duration": 1.0}', "[1]", "{", '{"path": "stereo/0.wav", "duration": 1.0}']
    (data / "talk.jsonl").write_text("\n".join(lines))
    found = list(source(data / "talk.jsonl").items("talk"))
    assert [item.row["id"] for item in found if isinstance(item, Found)] == ["stereo/0"]
    assert [(item.where, item.reason) for item in found if isinstance(item, Rejected)] == [
        *((f"talk.jsonl:{n}", "bad transcript") for n in (1, 2, 3, 4, 5)),
        *((f"talk.jsonl:{n}", "no transcript") for n in (6, 7)),
        *((f"talk.jsonl:{n}", "bad line") for n in (8, 9, 10)),
    ]
    assert "annotating it failed" in found[6].detail


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.jsonl"):
        source(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        source(tmp_path / "absent.jsonl")
