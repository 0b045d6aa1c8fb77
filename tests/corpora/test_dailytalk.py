"""DailyTalkContiguous: stereo dialogues with the times of words."""

import argparse
import json
import tarfile

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import dailytalk
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.data import audio, record
from jaxspeech.errors import UserError

ALIGNMENTS = [
    ["hello", [0.02, 0.08], "SPEAKER_MAIN"],
    ["there.", [0.15, 0.19], "SPEAKER_MAIN"],
    ["hi", [0.1, 0.14], "SPEAKER_01"],
]


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "daily-talk-contiguous"
    (root / "data_stereo").mkdir(parents=True)
    left = 0.5 * np.ones(8820, np.float32)
    for number in range(3):
        soundfile.write(root / "data_stereo" / f"{number}.wav", np.stack([left, 0.2 * left], 1), 44100)
        (root / "data_stereo" / f"{number}.json").write_text(json.dumps({"alignments": ALIGNMENTS}))
    lines = [json.dumps({"path": f"data_stereo/{number}.wav", "duration": 0.2}) + "\n" for number in range(3)]
    (root / "dailytalk.jsonl").write_text("".join(lines))
    return root


def opened(path, mono=False):
    return dailytalk.source(argparse.Namespace(path=str(path), mono=mono))


def test_a_dialogue_has_both_channels_and_the_words_of_its_main_speaker(corpus):
    source = opened(corpus)
    assert source.splits() == ["train"]
    assert source.official("train") == Official(2541)
    items = list(source.items("train"))
    assert [item.row["id"] for item in items] == ["0", "1", "2"]
    row = items[0].row
    record.check(row)
    assert row["words"] == [["hello", 0.02, 0.08], ["there.", 0.15, 0.19]]
    assert row["text"] == "hello there."
    assert row["others"] == [["hi", 0.1, 0.14, "SPEAKER_01"]]
    assert row["duration"] == 0.2
    assert "channel" not in row
    assert soundfile.info(row["audio"]).channels == 2
    assert items[1].where == "daily-talk-contiguous/dailytalk.jsonl:2"


def test_mono_is_the_channel_of_the_words(corpus):
    row = next(iter(opened(corpus, mono=True).items("train"))).row
    assert row["channel"] == 0
    assert audio.read(record.build(row, 0.2, "/"))[1600] == pytest.approx(0.5, abs=0.02)


def test_words_are_put_in_order(corpus):
    (corpus / "data_stereo" / "0.json").write_text(json.dumps({"alignments": ALIGNMENTS[::-1]}))
    items = list(opened(corpus).items("train"))
    assert items[0].row["words"] == items[1].row["words"]


def test_what_does_not_fit_is_rejected_and_stops_nothing(corpus):
    (corpus / "data_stereo" / "0.json").unlink()
    (corpus / "data_stereo" / "1.json").write_text('{"alignments": [["hello", [0.9, 0.1], "SPEAKER_MAIN"]]}')
    with open(corpus / "dailytalk.jsonl", "a") as file:
        file.write('{"duration": 1}\n[]\n')
    items = list(opened(corpus).items("train"))
    reasons = [(item.where.rpartition(":")[2], item.reason) for item in items if isinstance(item, Rejected)]
    assert reasons == [("1", "no transcript"), ("2", "bad transcript"), ("4", "bad line"), ("5", "bad line")]
    assert [item.row["id"] for item in items if isinstance(item, Found)] == ["2"]


def test_a_plain_tar_is_read_in_place(corpus, tmp_path):
    archive = tmp_path / "dialogues.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(corpus, ".")
    rows = [item.row for item in opened(archive).items("train")]
    assert rows[0]["audio"] == f"{archive}#data_stereo/0.wav"
    assert [row["words"] for row in rows] == [item.row["words"] for item in opened(corpus).items("train")]


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no dailytalk\.jsonl"):
        opened(tmp_path)
