"""Nothing that is read is written over, and nothing that is there goes without a word."""

import argparse
import io
import json
import os
import pathlib
import tarfile

import numpy as np
import pytest
import soundfile

from jaxspeech.cleaning.outcome import Outcome
from jaxspeech.corpora import export_kaldi, export_nemo, moshi, table
from jaxspeech.corpora.checks import Limits
from jaxspeech.corpora.exports import Account
from jaxspeech.corpora.folder import AudioFolder
from jaxspeech.corpora.jsonl import JsonLines
from jaxspeech.corpora.preparation import prepare
from jaxspeech.data.manifest import Manifest
from jaxspeech.data.rows import Rows
from jaxspeech.errors import UserError
from jaxspeech.observe import inspection


def sound(path: pathlib.Path, seed: int = 0, seconds: float = 1.0, channels: int = 1) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal((int(8000 * seconds), channels))
    soundfile.write(path, samples, 8000)
    return path


def lines(path: pathlib.Path, *rows: dict) -> pathlib.Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def arguments(module, *words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args([*map(str, words)])


@pytest.mark.parametrize("export", [export_nemo, export_kaldi])
def test_an_export_beside_its_manifest_leaves_the_recordings_as_they_are(tmp_path, export):
    call = sound(tmp_path / "audio" / "call.flac", channels=2)
    before = call.read_bytes()
    rows = []
    for name, offset in (("call", 0.0), ("other", 0.5)):
        piece = {"audio": "audio/call.flac", "offset": offset, "duration": 0.25, "gap": 0.1}
        rows.append({"id": name, "segments": [piece], "text": name, "duration": 0.35})
    manifest = lines(tmp_path / "train.jsonl", *rows)
    found = export.run(arguments(export, manifest, "--out", tmp_path, "--extract", "--processes", 1))
    assert (found["kept"], found["failed"]) == (1, {"another file is there": 1})
    assert call.read_bytes() == before


def test_an_extracted_file_never_replaces_another_one(tmp_path):
    sound(tmp_path / "in.wav")
    mine = sound(tmp_path / "audio" / "a.flac", seed=1)
    before = mine.read_bytes()
    piece = {"audio": "in.wav", "offset": 0.0, "duration": 0.5, "gap": 0.1}
    manifest = lines(
        tmp_path / "m.jsonl",
        *({"id": name, "segments": [piece], "text": "x", "duration": 0.6} for name in ("a", "b")),
    )
    args = arguments(export_nemo, manifest, "--out", tmp_path, "--extract", "--processes", 1)
    for _ in range(2):  # again: what this export wrote itself may stay
        assert export_nemo.run(args)["failed"] == {"another file is there": 1}
        assert mine.read_bytes() == before
        assert (tmp_path / "audio" / "b.flac").exists()


def test_lists_pages_and_rejects_do_not_replace_what_is_read(tmp_path):
    sound(tmp_path / "a.wav")
    (tmp_path / "a.json").write_text('{"alignments": [["zero", [0.1, 0.4], "SPEAKER_MAIN"]]}')
    calls = lines(tmp_path / "calls.jsonl", {"path": "a.wav"})
    with pytest.raises(UserError, match="would be overwritten"):
        prepare(moshi.source(arguments(moshi, calls)), tmp_path, processes=1)
    manifest = lines(tmp_path / "clean.rejected.jsonl", {"id": "a", "audio": "a.wav", "text": "z", "duration": 1.0})
    with pytest.raises(UserError, match=r"would replace .*clean\.rejected\.jsonl"):
        Outcome(tmp_path / "clean.jsonl", str(manifest))
    with pytest.raises(UserError, match="give the page another name"):
        inspection.run(arguments(inspection, manifest, "--out", manifest))
    nemo = lines(tmp_path / "m.json", {"id": "a", "audio": "a.wav", "text": "z", "duration": 1.0})
    with pytest.raises(UserError, match="is the manifest that is read"):
        export_nemo.run(arguments(export_nemo, nemo, "--out", tmp_path))
    with pytest.raises(UserError, match="is the manifest that is read"):
        Account(tmp_path, str(tmp_path / "rejected.jsonl"), 0.01)
    assert len(manifest.read_text().splitlines()) == len(calls.read_text().splitlines()) == 1


def test_two_splits_do_not_write_one_file(tmp_path):
    row = {"id": "a", "audio": str(sound(tmp_path / "a.wav")), "text": "z"}
    files = [lines(tmp_path / name, row) for name in ("train.jsonl", "train.rejected.jsonl")]
    with pytest.raises(UserError, match=r"'train' and 'train\.rejected' would both write"):
        prepare(JsonLines([str(file) for file in files]), tmp_path / "out", processes=1)


@pytest.mark.parametrize("read", [Rows, Manifest.open, lambda path: JsonLines([path]), lambda path: table.source(
    arguments(table, path, "--audio", "path", "--text", "text"))])  # fmt: skip
def test_a_pipe_is_refused_because_lists_are_read_twice(read, tmp_path):
    os.mkfifo(tmp_path / "list.tsv")
    with pytest.raises(UserError, match="a pipe or device, which can be read only once; write it to a file first"):
        read(str(tmp_path / "list.tsv"))


def test_a_file_that_was_replaced_since_is_checked_anew(tmp_path):
    rows = [{"id": f"u{i}", "audio": str(sound(tmp_path / f"{i}.wav", i)), "text": "ten"} for i in range(64)]
    listed = lines(tmp_path / "train.jsonl", *rows)

    how = {"processes": 1, "decode": True, "limits": Limits(speaking_rate=False)}

    def stop(split, read, rejected, total):
        if read > 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(JsonLines([str(listed)]), tmp_path / "out", progress=stop, **how)
    longer = sound(tmp_path / "longer.wav", 99, seconds=2.5)
    os.utime(longer, (0, 0))  # it may well be older than what it replaces
    os.replace(longer, rows[3]["audio"])
    prepare(JsonLines([str(listed)]), tmp_path / "out", **how)
    durations = [json.loads(line)["duration"] for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert durations[3] == 2.5
    assert set(durations[:3] + durations[4:]) == {1.0}


def test_a_split_that_is_done_leaves_the_progress_of_others(tmp_path):
    rows = [{"id": f"u{i}", "audio": str(sound(tmp_path / f"{i}.wav", i)), "text": "ten"} for i in range(3)]
    big, small = (lines(tmp_path / name, *rows) for name in ("big.jsonl", "small.jsonl"))

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(JsonLines([str(big)]), tmp_path / "out", processes=1, progress=stop)
    prepare(JsonLines([str(small)]), tmp_path / "out", processes=1)
    assert [path.name for path in (tmp_path / "out" / ".prepare").iterdir()] == ["big.journal"]
    prepare(JsonLines([str(big)]), tmp_path / "out", processes=1)
    assert not (tmp_path / "out" / ".prepare").exists()


def test_null_counts_as_missing_whatever_the_key(tmp_path):
    audio = str(sound(tmp_path / "a.wav"))
    other = str(sound(tmp_path / "b.wav", 1))
    rows = [
        {"id": "a", "audio": audio, "text": "z", "duration": 1.0, "segments": None, "words": None, "offset": None},
        {"id": "b", "audio": None, "segments": [{"audio": other, "duration": 1.0}], "text": "z", "duration": 1.0},
    ]
    manifest = lines(tmp_path / "m.jsonl", *rows)
    assert [record.segments[0].audio for record in map(Manifest.open(manifest).__getitem__, (0, 1))] == [audio, other]
    assert [row.problem for row in map(Rows(manifest).__getitem__, (0, 1))] == [None, None]
    rows[0] = {"audio_filepath": audio, "text": "z", "segments": None}
    found = prepare(JsonLines([str(lines(tmp_path / "n.jsonl", *rows))]), tmp_path / "out", processes=1)
    assert found["kept"] == 2


def test_no_failure_is_one_too_many_where_none_is_allowed(tmp_path):
    rows = [
        {"id": "a", "audio": str(sound(tmp_path / "a.wav")), "text": "z"},
        {"id": "b", "audio": "/n.wav", "text": "z"},
    ]
    source = JsonLines([str(lines(tmp_path / "m.jsonl", *rows))])
    assert prepare(source, tmp_path / "out", processes=1)["failed"] == {"missing file": 1}
    with pytest.raises(UserError, match="1 of 2 utterances of m failed"):
        prepare(source, tmp_path / "out", processes=1, max_failed=0)
    with pytest.raises(UserError, match="between 0 and 1"):
        prepare(source, tmp_path / "out", processes=1, max_failed=float("nan"))


def test_what_belongs_to_no_split_and_what_cannot_be_read_is_told(tmp_path):
    for name in ("train/a.wav", "loose.wav"):
        sound(tmp_path / "in" / name).with_suffix(".txt").write_text("z")
    found = prepare(AudioFolder(str(tmp_path / "in"), by_folder=True), tmp_path / "out", processes=1)
    assert found["notes"] == {f"audio files directly in {tmp_path / 'in'}, in no split": 1}

    (tmp_path / "in" / "b.m4a").write_bytes(b"x")
    found = prepare(AudioFolder(str(tmp_path / "in"), no_text=True), tmp_path / "noises", processes=1)
    assert (found["read"], found["failed"]) == (3, {"corrupt audio": 1})

    for name in ("a.normalized.txt", "b.normalized.txt"):
        (tmp_path / "in" / "train" / name).write_text("z")
    source = AudioFolder(str(tmp_path / "in" / "train"), text_suffix=".normalized.txt")
    assert prepare(source, tmp_path / "libri", processes=1)["failed"] == {"text without audio": 1}


def test_a_manifest_is_relative_also_where_the_way_to_it_goes_up(tmp_path, monkeypatch):
    row = {"id": "a", "audio": str(sound(tmp_path / "data" / "wav" / "a.wav")), "text": "z"}
    listed = lines(tmp_path / "m.jsonl", row)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    prepare(JsonLines([str(listed)]), "../data", processes=1)
    assert json.loads((tmp_path / "data" / "m.jsonl").read_text())["audio"] == "wav/a.wav"


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1" + "0" * 5000])
def test_a_number_that_no_float_holds_fails_its_line_alone(tmp_path, number):
    good = json.dumps({"id": "a", "audio": str(sound(tmp_path / "a.wav")), "text": "z"})
    bad = json.dumps({"id": "b", "audio": str(tmp_path / "a.wav"), "text": "z", "duration": 0}).replace(
        "0}", f"{number}}}"
    )
    (tmp_path / "m.jsonl").write_text(f"{good}\n{bad}\n")
    found = prepare(JsonLines([str(tmp_path / "m.jsonl")]), tmp_path / "out", processes=1)
    assert (found["kept"], sum(found["failed"].values())) == (1, 1)


def test_members_that_a_tar_has_under_an_odd_name_are_told(tmp_path):
    from jaxspeech.corpora import webdataset

    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in ("a.wav", "a.txt", "b.v2.wav", "b.v2.txt"):
            content = sound(tmp_path / "x.wav").read_bytes() if name.endswith("wav") else b"z"
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    found = prepare(webdataset.source(arguments(webdataset, tmp_path / "t.tar")), tmp_path / "out", processes=1)
    assert (found["read"], found["kept"], found["failed"]) == (2, 1, {"no usable name": 1})
