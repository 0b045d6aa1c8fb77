"""AISHELL-1: one transcript for all splits, spaces of no language, recordings without a line and lines without one."""

import argparse

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import aishell
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data import record
from jaxspeech.errors import UserError

LINES = {
    "BAC009S0002W0122": "而 对 楼市 成交 抑制 作用 最 大 的 限 购",
    "BAC009S0002W0123": "也 成为 地方 政府 的 眼中 钉",
    "BAC009S0724W0121": "广州市 房地产 中介 协会 分析",
    "BAC009S0764W0121": "甚至 出现 交易 几乎 停滞 的 情况",
}
SPLITS = {"S0002": "train", "S0724": "dev", "S0764": "test"}


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "data_aishell"
    (root / "transcript").mkdir(parents=True)
    lines = "".join(f"{name} {text} \n" for name, text in LINES.items())
    (root / "transcript" / "aishell_transcript_v0.8.txt").write_text(lines, encoding="utf-8")
    noise = np.random.default_rng(0).normal(0, 0.1, 3200).astype(np.float32)
    for name in LINES:
        path = root / "wav" / SPLITS[name[6:11]] / name[6:11] / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise, 16000)
    return root


def opened(path, keep_spaces=False):
    return aishell.source(argparse.Namespace(path=str(path), keep_spaces=keep_spaces))


def test_each_split_has_its_speakers_and_no_spaces(corpus):
    source = opened(corpus.parent)
    assert source.splits() == ["train", "dev", "test"]
    train = list(source.items("train"))
    assert [item.row["text"] for item in train] == ["而对楼市成交抑制作用最大的限购", "也成为地方政府的眼中钉"]
    assert [item.row["speaker"] for item in train] == ["S0002", "S0002"]
    assert [item.where for item in train] == [
        f"data_aishell/transcript/aishell_transcript_v0.8.txt:{n}" for n in (1, 2)
    ]
    assert soundfile.info(train[0].row["audio"]).frames == 3200
    record.check(train[0].row)
    assert [item.row["id"] for item in source.items("dev")] == ["BAC009S0724W0121"]
    assert train[0].row["language"] == "zh"


def test_spaces_are_kept_when_asked_for(corpus):
    assert next(iter(opened(corpus, keep_spaces=True).items("train"))).row["text"] == LINES["BAC009S0002W0122"]


def test_a_recording_without_a_line_is_filtered_and_a_line_without_one_is_told(corpus):
    folder = corpus / "wav" / "train" / "S0002"
    (folder / "BAC009S0002W0122.wav").rename(folder / "BAC009S0002W0200.wav")
    items = list(opened(corpus).items("train"))
    assert [(item.where, item.kind, item.reason) for item in items if isinstance(item, Rejected)] == [
        ("wav/train/S0002/BAC009S0002W0200.wav", "filtered", "no transcript")
    ]
    # Its audio is missing: that is said by who opens it.
    assert [item.row["id"] for item in items if isinstance(item, Found)] == ["BAC009S0002W0123", "BAC009S0002W0122"]


def test_broken_lines_are_told_once(corpus):
    with open(corpus / "transcript" / "aishell_transcript_v0.8.txt", "ab") as file:
        file.write(b"BAC009S0002W0124 \xe4\xbd\n" + "你 好\n".encode() + b"BAC009S0002W0122 again\n")
    source = opened(corpus)
    items = [item for split in source.splits() for item in source.items(split)]
    assert [item.reason for item in items if isinstance(item, Rejected)] == ["bad UTF-8", "bad line", "duplicate id"]
    assert sum(isinstance(item, Found) for item in items) == len(LINES)


def test_what_is_still_packed_is_said(corpus, tmp_path):
    (corpus / "wav").rename(tmp_path / "gone")
    (corpus / "wav").mkdir()
    (corpus / "wav" / "S0002.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"for f in \*\.tar\.gz; do tar xzf"):
        opened(corpus).splits()
    with pytest.raises(UserError, match="give the folder data_aishell"):
        opened(tmp_path / "gone")


def test_official_figures_are_the_178_hours():
    assert sum(part.hours for part in aishell.OFFICIAL.values()) == pytest.approx(179, abs=1)
