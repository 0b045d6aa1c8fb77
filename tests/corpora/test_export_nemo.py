"""NeMo's JSON lines from manifests, and the way back."""

import argparse
import json

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import export_nemo, jsonl
from jaxspeech.data import audio, record
from jaxspeech.data.manifest import Manifest, write_manifest
from jaxspeech.errors import UserError


def export(*words: object) -> dict:
    parser = argparse.ArgumentParser()
    export_nemo.add_arguments(parser)
    return export_nemo.run(parser.parse_args([*map(str, words), "--processes", "1"]))


@pytest.fixture
def manifest(tmp_path):
    samples = np.random.default_rng(1).integers(-32768, 32767, (48000, 2), np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    rows = [
        {
            "id": "z",
            "audio": "a.wav",
            "text": 'Say "é".',
            "duration": 3.0,
            "language": "fr",
            "words": [["Say", 0.1, 0.5]],
        },
        {"id": "y", "audio": "a.wav", "text": "cut", "offset": 1.5, "duration": 0.75, "speaker": "s", "own": {"k": 1}},
        {"id": "x", "audio": "a.wav", "text": "right", "duration": 3.0, "channel": 1},
    ]
    write_manifest(tmp_path / "dev.jsonl", rows)
    return tmp_path / "dev.jsonl"


def test_lines_have_the_keys_of_nemo_and_the_rest_of_ours(manifest, tmp_path):
    totals = export(manifest, "--out", tmp_path / "n")
    assert (totals["read"], totals["kept"], totals["failed"]) == (3, 2, {"no file of its own": 1})
    lines = [json.loads(line) for line in (tmp_path / "n" / "dev.json").read_text("utf-8").splitlines()]
    path = str(tmp_path / "a.wav")
    assert lines == [
        {
            "audio_filepath": path,
            "text": 'Say "é".',
            "duration": 3.0,
            "lang": "fr",
            "id": "z",
            "words": [["Say", 0.1, 0.5]],
        },
        {
            "audio_filepath": path,
            "text": "cut",
            "duration": 0.75,
            "offset": 1.5,
            "id": "y",
            "speaker": "s",
            "own": {"k": 1},
        },
    ]


def test_there_and_back_nothing_changes(manifest, tmp_path):
    assert export(manifest, "--out", tmp_path / "n", "--extract")["kept"] == 3
    opened = jsonl.JsonLines([str(tmp_path / "n" / "dev.json")])
    back = [item.row for item in opened.items("dev")]
    before = Manifest.open(manifest)
    assert [row["id"] for row in back] == ["z", "y", "x"]
    for place, row in enumerate(back):
        again = record.build(row, row["duration"], "")
        own = before[place]
        assert (again.text, again.duration, again.speaker, again.language) == (
            own.text,
            own.duration,
            own.speaker,
            own.language,
        )
        np.testing.assert_array_equal(audio.read(again), audio.read(own))


def test_too_many_failures_leave_the_older_file(tmp_path):
    lines = [{"id": f"{n}", "audio": "gone.wav", "text": "x", "duration": 1.0} for n in range(30)]
    write_manifest(tmp_path / "m.jsonl", lines)
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / "m.json").write_text("older\n")
    with pytest.raises(UserError, match=r"30 of 30 utterances failed; the first is m\.jsonl:1: missing file"):
        export(tmp_path / "m.jsonl", "--out", tmp_path / "n")
    assert [path.name for path in sorted((tmp_path / "n").iterdir())] == ["m.json", "rejected.jsonl"]
    assert (tmp_path / "n" / "m.json").read_text() == "older\n"
