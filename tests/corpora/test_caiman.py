"""Manifests of CAIMAN-ASR."""

import argparse
import json

import pytest

from jaxspeech.corpora import caiman
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data import record
from jaxspeech.errors import UserError


def source(*words: object) -> caiman.Caiman:
    parser = argparse.ArgumentParser()
    caiman.add_arguments(parser)
    return caiman.source(parser.parse_args([str(word) for word in words]))


def entry(fname: str, transcript: str, seconds: float, **more: object) -> dict:
    file = {"channels": 1, "sample_rate": 16000.0, "bitdepth": 16, "duration": seconds, "fname": fname, "speed": 1}
    return {
        "transcript": transcript,
        "files": [file],
        "original_duration": seconds,
        "original_num_samples": round(16000 * seconds),
    } | more


def test_a_manifest_becomes_rows(tmp_path):
    entries = [
        entry("dev-clean/84/84-121123-0001.flac", "hello there", 2.5),
        entry("b.wav", "one <EOS> two <EOS>", 0.0, eos_count=2),
    ]
    path = tmp_path / "librispeech-dev-clean-flac.json"
    path.write_text(json.dumps(entries, indent=2))
    opened = source(path, "--data-dir", "/datasets/LibriSpeech")
    assert opened.splits() == ["librispeech-dev-clean-flac"]
    found = list(opened.items("librispeech-dev-clean-flac"))
    assert [item.row for item in found] == [
        {
            "id": "dev-clean/84/84-121123-0001",
            "audio": "/datasets/LibriSpeech/dev-clean/84/84-121123-0001.flac",
            "text": "hello there",
            "duration": 2.5,
        },
        {"id": "b", "audio": "/datasets/LibriSpeech/b.wav", "text": "one <EOS> two <EOS>", "eos_count": 2},
    ]
    assert [item.where for item in found] == [f"{path.name}:2", f"{path.name}:17"]
    for item in found:
        record.check(item.row)
    beside = next(iter(source(path).items("librispeech-dev-clean-flac")))
    assert beside.row["audio"] == f"{tmp_path}/dev-clean/84/84-121123-0001.flac"


def test_bad_entries_are_named_and_the_rest_is_kept(tmp_path):
    good = entry("a.wav", "x", 1.0)
    entries = [
        good,
        {"transcript": "x"},
        good | {"files": [{"fname": "a.wav"}, {"fname": "a-0.9.wav"}]},
        good | {"files": [{"duration": 1.0}]},
        good | {"transcript": None},
        good | {"files": []},
        "text",
    ]
    (tmp_path / "t.json").write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "]")
    found = list(source(tmp_path / "t.json").items("t"))
    assert [item.where for item in found if isinstance(item, Found)] == ["t.json:2"]
    assert [(item.where, item.reason) for item in found if isinstance(item, Rejected)] == [
        ("t.json:3", "no audio"),
        ("t.json:4", "several audio files"),
        ("t.json:5", "no audio"),
        ("t.json:6", "no transcript"),
        ("t.json:7", "no audio"),
        ("t.json:8", "bad JSON"),
    ]


def test_json_lines_are_told_where_to_go(tmp_path):
    (tmp_path / "t.json").write_text('{"audio": "a.wav"}\n')
    with pytest.raises(UserError, match=r"no JSON list; give a manifest of CAIMAN-ASR \(for JSON lines: "):
        source(tmp_path / "t.json")
