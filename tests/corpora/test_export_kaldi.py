"""Kaldi folders from manifests, and the way back."""

import argparse
import io
import json
import pathlib
import tarfile

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import export_kaldi, kaldi
from jaxspeech.data import audio, record
from jaxspeech.data.manifest import Manifest, write_manifest
from jaxspeech.errors import UserError


def export(*words: object) -> dict:
    parser = argparse.ArgumentParser()
    export_kaldi.add_arguments(parser)
    return export_kaldi.run(parser.parse_args([*map(str, words), "--processes", "1"]))


def read(folder: pathlib.Path, *words: object) -> list[dict]:
    parser = argparse.ArgumentParser()
    kaldi.add_arguments(parser)
    opened = kaldi.source(parser.parse_args([str(folder), *map(str, words)]))
    return [item.row for split in opened.splits() for item in opened.items(split)]


def noise(path: pathlib.Path, seconds: float, seed: int, channels: int = 1) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(-32768, 32767, (round(seconds * 16000), channels), np.int16)
    soundfile.write(path, samples, 16000)
    return str(path)


def heard(row: dict) -> np.ndarray:
    return audio.read(record.build(row, row["duration"], ""))


@pytest.fixture
def manifest(tmp_path):
    call = noise(tmp_path / "a" / "call.wav", 3, 1, channels=2)
    rows = [
        {
            "id": "b-2",
            "audio": call,
            "offset": 0.5,
            "duration": 1.25,
            "channel": 1,
            "text": "Yes, it has.",
            "speaker": "b",
        },
        {
            "id": "a-1",
            "audio": noise(tmp_path / "b" / "call.flac", 1, 2),
            "text": "你好",
            "duration": 1.0,
            "speaker": "a",
        },
        {"id": "a-10", "audio": noise(tmp_path / "x y.wav", 2, 3), "text": "", "duration": 2.0, "speaker": "a"},
        {"id": "Z", "audio": call, "offset": 2.0, "duration": 1.0, "text": "two\nlines", "language": "en"},
    ]
    write_manifest(tmp_path / "train.jsonl", rows)
    return tmp_path / "train.jsonl"


def test_files_are_sorted_by_bytes_and_complete(manifest, tmp_path):
    out = tmp_path / "kaldi"
    totals = export(manifest, "--out", out)
    assert {key: totals[key] for key in ("read", "kept", "filtered", "failed")} == {
        "read": 4,
        "kept": 4,
        "filtered": {},
        "failed": {},
    }
    assert totals["hours"] == pytest.approx(5.25 / 3600, abs=1e-6)
    content = {path.name: path.read_text("utf-8").splitlines() for path in out.iterdir()}
    assert content == {
        "wav.scp": [f"call {tmp_path}/a/call.wav", f"call-2 {tmp_path}/b/call.flac", f"x_y {tmp_path}/x y.wav"],
        "segments": ["Z call 2.0 3.0", "a-1 call-2 0.0 1.0", "a-10 x_y 0.0 2.0", "b-2 call 0.5 1.75 1"],
        "text": ["Z two lines", "a-1 你好", "a-10", "b-2 Yes, it has."],
        "utt2spk": ["Z Z", "a-1 a", "a-10 a", "b-2 b"],
        "spk2utt": ["Z Z", "a a-1 a-10", "b b-2"],
        "utt2dur": ["Z 1.0", "a-1 1.0", "a-10 2.0", "b-2 1.25"],
        "utt2lang": ["Z en"],
    }


def test_there_and_back_nothing_changes(manifest, tmp_path):
    export(manifest, "--out", tmp_path / "kaldi")
    opened = Manifest.open(manifest)
    before = {opened[n].id: opened[n] for n in range(len(opened))}
    back = read(tmp_path / "kaldi")
    assert {row["id"] for row in back} == set(before)
    for row in back:
        own = before[row["id"]]
        assert row["text"] == own.text.replace("\n", " ")
        assert row["duration"] == pytest.approx(own.duration, abs=1e-6)
        np.testing.assert_array_equal(heard(row), audio.read(own))


def test_whole_files_need_no_segments_and_older_ones_go(tmp_path):
    rows = [{"id": n, "audio": noise(tmp_path / f"{n}.wav", 1, 1), "text": n, "duration": 1.0} for n in "ba"]
    write_manifest(tmp_path / "m.jsonl", rows)
    out = tmp_path / "kaldi"
    out.mkdir()
    (out / "segments").write_text("of an older export\n")
    export(tmp_path / "m.jsonl", "--out", out)
    assert not (out / "segments").exists()
    assert (out / "wav.scp").read_text() == f"a {tmp_path}/a.wav\nb {tmp_path}/b.wav\n"
    assert [row["id"] for row in read(out)] == ["a", "b"]


def test_audio_in_no_plain_file_is_lost_or_extracted(tmp_path):
    plain = noise(tmp_path / "plain.wav", 1, 1)
    content = pathlib.Path(noise(tmp_path / "in.flac", 1, 2)).read_bytes()
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("in.flac")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    rows = [
        {"id": "tar", "audio": f"{tmp_path}/x.tar#in.flac", "text": "one", "duration": 1.0},
        {"id": "joined", "segments": [{"audio": plain}, {"audio": plain, "gap": 0.5}], "text": "two", "duration": 2.5},
        {"id": "plain", "audio": plain, "text": "three", "duration": 1.0},
    ]
    write_manifest(tmp_path / "m.jsonl", rows)
    out = tmp_path / "kaldi"
    assert export(tmp_path / "m.jsonl", "--out", out)["failed"] == {"no file of its own": 2}
    lost = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert [(line["where"], line["kind"]) for line in lost] == [("m.jsonl:1", "failed"), ("m.jsonl:2", "failed")]
    assert "--extract" in lost[0]["detail"]
    assert export(tmp_path / "m.jsonl", "--out", out, "--extract")["kept"] == 3
    assert not (out / "rejected.jsonl").exists()
    assert (out / "audio" / "tar.flac").read_bytes() == content
    opened = Manifest.open(tmp_path / "m.jsonl")
    for row in read(out):
        own = next(opened[n] for n in range(3) if opened[n].id == row["id"])
        np.testing.assert_array_equal(heard(row), audio.read(own))


def test_speakers_can_begin_ids(manifest, tmp_path):
    export(manifest, "--out", tmp_path / "k", "--speaker-prefix")
    assert (tmp_path / "k" / "utt2spk").read_text().splitlines() == ["Z Z", "a-a-1 a", "a-a-10 a", "b-b-2 b"]


def test_what_cannot_be_written_is_named(tmp_path):
    good = noise(tmp_path / "g.wav", 1, 1)
    lines = [
        {"id": "good", "audio": good, "text": "x", "duration": 1.0},
        {"id": "white space", "audio": good, "text": "x", "duration": 1.0},
        {"id": "gone", "audio": "gone.wav", "text": "x", "duration": 1.0},
        {"id": "good", "audio": good, "text": "again", "duration": 1.0},
        {"id": "../up", "audio": good, "text": "x", "duration": 1.0},
        {"id": "negative", "audio": good, "text": "x", "duration": -1.0},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{broken\n")
    totals = export(tmp_path / "m.jsonl", "--out", tmp_path / "k")
    assert totals["read"] == 7
    assert totals["kept"] == 1
    assert totals["failed"] == {"no usable name": 2, "missing file": 1, "duplicate id": 1, "bad line": 2}


def test_many_failures_stop_it_before_anything_is_replaced(tmp_path):
    good = noise(tmp_path / "g.wav", 1, 1)
    lines = [{"id": f"{n}", "audio": good if n % 2 else "gone.wav", "text": "x", "duration": 1.0} for n in range(50)]
    write_manifest(tmp_path / "m.jsonl", lines)
    with pytest.raises(
        UserError, match=r"25 of 50 utterances failed, more than --max-failed=0.01 allows; the first is m"
    ):
        export(tmp_path / "m.jsonl", "--out", tmp_path / "k")
    assert not (tmp_path / "k" / "wav.scp").exists()
    assert export(tmp_path / "m.jsonl", "--out", tmp_path / "k", "--max-failed", "0.5")["kept"] == 25
