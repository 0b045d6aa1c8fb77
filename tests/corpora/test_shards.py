"""Shards hold what the manifest names, sample by sample; killed, cut off and damaged ones are mended or named."""

import argparse
import dataclasses
import io
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import soxr

from jaxspeech.corpora import shards
from jaxspeech.corpora.encoding import Encoding
from jaxspeech.corpora.shard_check import verify
from jaxspeech.data import audio, containers
from jaxspeech.data.manifest import Manifest, write_manifest
from jaxspeech.data.record import Segment
from jaxspeech.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = """
import argparse, json, sys
from jaxspeech.corpora import shards
from jaxspeech.errors import run_or_explain
parser = argparse.ArgumentParser()
shards.add_arguments(parser)
if __name__ == "__main__":
    sys.exit(run_or_explain(lambda: print(json.dumps(shards.run(parser.parse_args())))))
"""


def noise(seconds, rate, channels=1, seed=0):
    t = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(seed)
    tone = 0.4 * np.sin(2 * np.pi * (150 + 20 * t) * t)
    return np.stack([tone * (c + 1) / channels + 0.02 * rng.standard_normal(len(t)) for c in range(channels)], 1)


def make_corpus(folder, count=40, seconds=1.0):
    """Whole files of 16 bits, in order, of lengths that differ."""
    rows = []
    for i in range(count):
        length = seconds * (0.5 + (i * 7 % 10) / 10)
        audio.write(folder / f"audio/{i}.{('wav', 'flac')[i % 2]}", noise(length, 16000, seed=i)[:, 0], 16000)
        rows.append({"id": f"u{i}", "audio": f"audio/{i}.{('wav', 'flac')[i % 2]}", "text": f"text {i}"})
        rows[-1] |= {"duration": round(length * 16000) / 16000, "speaker": f"s{i % 3}", "mine": [i, {"a": None}]}
    write_manifest(folder / "train.jsonl", rows)
    return folder / "train.jsonl"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def start(*words):
    words = [sys.executable, "-c", COMMAND, *map(str, words)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ledger(out):
    """What a command printed, but for where it wrote."""
    return json.loads(out.splitlines()[-1]) | {"manifest": None}


@pytest.mark.parametrize("kind", ["pcm16", "flac", "source"])
def test_shards_give_the_samples_of_the_files(corpus, tmp_path, kind):
    result = shards.pack(corpus, tmp_path / "out", Encoding(kind), 0.25, processes=1)
    assert result["read"] == result["kept"] == 40
    assert result["failed"] == result["filtered"] == {}
    assert result["shards"] == len(list((tmp_path / "out").glob("*.array_record"))) > 2
    before, after = Manifest.open(corpus), Manifest.open(result["manifest"])
    assert result["hours"] == pytest.approx(before.durations.sum() / 3600)
    np.testing.assert_array_equal(after.durations, before.durations)
    for place in range(40):
        old, new = before[place], after[place]
        assert (new.id, new.text, new.speaker, new.extra["mine"]) == (old.id, old.text, old.speaker, old.extra["mine"])
        assert ".array_record#" in new.segments[0].audio
        for rate in (16000, 8000):
            np.testing.assert_array_equal(audio.read(new, rate), audio.read(old, rate))
    # The folder can be moved.
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    moved = Manifest.open(tmp_path / "elsewhere/manifest.jsonl")
    np.testing.assert_array_equal(audio.read(moved[7]), audio.read(before[7]))
    if kind == "source":
        assert containers.read_bytes(moved[7].segments[0].audio) == (corpus.parent / "audio/7.flac").read_bytes()


@pytest.mark.parametrize("kind", ["pcm16", "flac", "source"])
def test_stretches_channels_and_pieces_become_one_piece_at_their_rate(tmp_path, kind):
    soundfile.write(tmp_path / "stereo.wav", noise(6, 44100, 2), 44100)
    soundfile.write(tmp_path / "mono.flac", noise(6, 16000), 16000)
    soundfile.write(tmp_path / "phone.wav", noise(6, 8000), 8000)
    rows = [
        {"id": "whole", "audio": "stereo.wav", "duration": 6.0},
        {"id": "channel", "audio": "stereo.wav", "channel": 1, "duration": 6.0},
        {"id": "stretch", "audio": "mono.flac", "offset": 1.2345, "duration": 2.0},
        {"id": "stereo stretch", "audio": "stereo.wav", "offset": 2.0, "duration": 1.5},
        {"id": "pieces", "segments": [{"audio": "mono.flac", "offset": 4.0, "duration": 1.0},
                                      {"audio": "phone.wav", "duration": 6.0, "gap": 0.5}]},
    ]  # fmt: skip
    write_manifest(tmp_path / "m.jsonl", [row | {"text": ""} for row in rows])
    result = shards.pack(tmp_path / "m.jsonl", tmp_path / "out", Encoding(kind), processes=1)
    before, after = Manifest.open(tmp_path / "m.jsonl"), Manifest.open(result["manifest"])
    for place, (rate, channels) in enumerate([(44100, 2), (44100, 1), (16000, 1), (44100, 2), (16000, 1)]):
        new = after[place]
        assert new.segments == (Segment(new.segments[0].audio),)
        assert audio.probe(new.segments[0].audio)[1:] == (rate, channels)
        found, expected = audio.read(new, rate), audio.read(before[place], rate)
        assert len(found) == len(expected)
        # The pieces hold resampled audio, which is rounded to 16 bits; all else is what it was.
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.6 / 32768 if place == 4 else 0)


@pytest.mark.parametrize("kind", ["pcm16", "flac", "source"])
def test_rate_resamples(tmp_path, kind):
    sound = audio.integers(noise(3, 44100, 2))
    soundfile.write(tmp_path / "a.wav", sound, 44100)
    write_manifest(tmp_path / "m.jsonl", [{"id": "a", "audio": "a.wav", "text": "", "duration": 3.0}])
    result = shards.pack(tmp_path / "m.jsonl", tmp_path / "out", Encoding(kind, 16000), processes=1)
    assert json.dumps(result["shards"]) == "1"
    name = Manifest.open(result["manifest"])[0].segments[0].audio
    assert audio.probe(name) == (3.0, 16000, 2)
    expected = soxr.resample(sound[:, 1] / np.float32(32768), 44100, 16000)
    np.testing.assert_allclose(audio.read_segment(Segment(name, channel=1)), expected, atol=0.6 / 32768)


def test_24_bits_and_floats_are_rounded_and_clipped(tmp_path):
    sound = np.array([0.0, 0.4 / 32768, 0.6 / 32768, -1.0, 1.0, 1.7, -2.0] * 100)
    soundfile.write(tmp_path / "a.wav", sound, 16000, "FLOAT")
    write_manifest(tmp_path / "m.jsonl", [{"id": "a", "audio": "a.wav", "text": "", "duration": 700 / 16000}])
    result = shards.pack(tmp_path / "m.jsonl", tmp_path / "out", Encoding("pcm16"), processes=1)
    content = containers.read_bytes(Manifest.open(result["manifest"])[0].segments[0].audio)
    found, _ = soundfile.read(io.BytesIO(content), dtype="int16")
    assert found[:7].tolist() == [0, 0, 1, -32768, 32767, 32767, -32768]


def test_any_number_of_processes_writes_the_same_bytes(corpus, tmp_path):
    for processes in (1, 2):
        shards.pack(corpus, tmp_path / str(processes), Encoding("flac"), 0.25, processes=processes)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def test_killed_again_and_again_it_finishes_as_if_undisturbed(tmp_path):
    manifest = make_corpus(tmp_path, count=150, seconds=3.0)
    words = ("--encoding=flac", "--shard-mib=0.5", "--processes=2")
    undisturbed = start(manifest, "--out", tmp_path / "whole", *words)
    out, err = undisturbed.communicate(timeout=100)
    assert undisturbed.returncode == 0, err
    expected = ledger(out)
    assert expected["shards"] > 10
    moments = random.Random(0)
    killed, lives = 0, []
    for _ in range(3):
        process = start(manifest, "--out", tmp_path / "killed", *words)
        finished = len(list((tmp_path / "killed").glob(".shard-*.json")))
        deadline = time.monotonic() + 60
        # It lives until a few more shards are done, and dies anywhere in the next.
        while process.poll() is None and time.monotonic() < deadline:
            if len(list((tmp_path / "killed").glob(".shard-*.json"))) > finished + 1:
                break
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        process.stdout.close(), process.stderr.close()
        lives.append(len(list((tmp_path / "killed").glob(".shard-*.json"))))
    assert killed >= 2
    assert lives[0] < lives[1]  # what was done is kept
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "killed").glob("*.array_record")}
    process = start(manifest, "--out", tmp_path / "killed", *words)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    kept = [p for p, stamp in stamps.items() if p.stat().st_mtime_ns == stamp]
    assert len(kept) >= len(stamps) - 2  # two processes may have died between a shard and its note
    assert ledger(out) == expected


def test_failures_are_counted_and_named_and_tried_again(corpus, tmp_path):
    shutil.copytree(corpus.parent, tmp_path / "corpus")
    manifest = tmp_path / "corpus/train.jsonl"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(["", *lines[:5], "", *lines[5:]]) + "\n")  # blank lines count as lines
    (tmp_path / "corpus/audio/3.flac").unlink()
    path = tmp_path / "corpus/audio/7.flac"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    whole = path.read_bytes()
    result = shards.pack(manifest, tmp_path / "out", Encoding("pcm16"), 0.25, processes=2)
    assert result["failed"]["missing file"] == 1
    assert sum(result["failed"].values()) == 2
    assert result["read"] == 40 == result["kept"] + sum(result["failed"].values())
    rejected = [json.loads(line) for line in (tmp_path / "out/manifest.rejected.jsonl").read_text().splitlines()]
    assert [(entry["where"], entry["id"]) for entry in rejected] == [("train.jsonl:5", "u3"), ("train.jsonl:10", "u7")]
    assert rejected[0]["reason"] == "missing file"
    assert rejected[0]["detail"].endswith("audio/3.flac")
    assert {entry["kind"] for entry in rejected} == {"failed"}
    stamps = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.array_record")}
    again = shards.pack(manifest, tmp_path / "out", Encoding("pcm16"), 0.25, processes=1)
    assert again == result
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.array_record")} == stamps
    shutil.copy(corpus.parent / "audio/3.flac", tmp_path / "corpus/audio/3.flac")  # mended
    shutil.copy(corpus.parent / "audio/7.flac", path)
    assert path.read_bytes() != whole
    mended = shards.pack(manifest, tmp_path / "out", Encoding("pcm16"), 0.25, processes=1)
    assert (mended["kept"], mended["failed"]) == (40, {})
    assert not (tmp_path / "out/manifest.rejected.jsonl").exists()
    shards.pack(manifest, tmp_path / "fresh", Encoding("pcm16"), 0.25, processes=1)
    assert tree(tmp_path / "fresh") == tree(tmp_path / "out")


def test_too_many_failures_stop_the_run(corpus, tmp_path):
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    for i in range(0, 40, 2):
        rows[i]["audio"] = f"gone/{i}.wav"
    manifest = corpus.with_name("half.jsonl")
    write_manifest(manifest, rows)
    with pytest.raises(
        UserError, match=r"20 of 4?\d utterances .* mostly 'missing file' \(20\), first u0: .*gone/0.wav"
    ):
        shards.pack(manifest, tmp_path / "out", Encoding("pcm16"), processes=1)
    result = shards.pack(manifest, tmp_path / "out", Encoding("pcm16"), processes=1, max_failed=0.5)
    assert result["kept"] == 20


def test_a_folder_of_other_shards_or_in_use_is_refused(corpus, tmp_path):
    shards.pack(corpus, tmp_path / "out", Encoding("pcm16"), 0.25, processes=1)
    with pytest.raises(UserError, match=r"holds other shards \(encoding pcm16, not flac; shard_mib 0.25, not 1\)"):
        shards.pack(corpus, tmp_path / "out", Encoding("flac"), 1, processes=1)
    with pytest.raises(UserError, match="is where the manifest of the shards goes"):
        shards.pack(tmp_path / "out/manifest.jsonl", tmp_path / "out", Encoding("flac"), processes=1)
    lock = shards._lock(tmp_path / "out")
    try:
        with pytest.raises(UserError, match="another process writes shards"):
            shards.pack(corpus, tmp_path / "out", Encoding("pcm16"), 0.25, processes=1)
    finally:
        os.close(lock)


def test_a_shard_that_is_gone_or_cut_off_is_made_again(corpus, tmp_path):
    shards.pack(corpus, tmp_path / "out", Encoding("pcm16"), 0.25, processes=1)
    before = tree(tmp_path / "out")
    (tmp_path / "out/shard-00000.array_record").unlink()
    os.truncate(tmp_path / "out/shard-00001.array_record", 1000)
    shards.pack(corpus, tmp_path / "out", Encoding("pcm16"), 0.25, processes=1)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("kind", ["pcm16", "flac", "source"])
def test_verify_names_each_damaged_record(corpus, tmp_path, capfd, kind):
    result = shards.pack(corpus, tmp_path / "out", Encoding(kind), 0.5, processes=1)
    checked = verify(result["manifest"], processes=1)
    assert (checked["read"], checked["kept"], checked["without_checksum"]) == (40, 40, 0)
    manifest = Manifest.open(result["manifest"])
    shard, _, number = manifest[11].segments[0].audio.rpartition("#")
    damaged = bytearray(pathlib.Path(shard).read_bytes())
    content = containers.read_bytes(manifest[11].segments[0].audio)
    damaged[damaged.index(content[500:540]) + len(content) // 2] ^= 0x10
    os.utime(shard, (1e9, 1e9))
    pathlib.Path(shard).write_bytes(damaged)
    capfd.readouterr()
    with pytest.raises(UserError, match=r"1 of 40 records .* are bad: 1 corrupt audio"):
        verify(result["manifest"], processes=2)
    assert f"manifest.jsonl:12: u11: corrupt audio: {shard}#{number}" in capfd.readouterr().err


def test_verify_tells_a_record_from_a_sound_one_in_its_place(corpus, tmp_path, capfd):
    result = shards.pack(corpus, tmp_path / "out", Encoding("pcm16"), 0.25, processes=1)
    first, second = (tmp_path / f"out/shard-0000{n}.array_record" for n in (0, 1))
    first.rename(tmp_path / "x"), second.rename(first), (tmp_path / "x").rename(second)
    with pytest.raises(UserError, match="wrong checksum"):
        verify(result["manifest"], processes=1)
    assert "manifest.jsonl:1: u0: wrong checksum" in capfd.readouterr().err


def test_a_full_disk_is_one_clear_line(corpus, tmp_path):
    """A limit on the size of files stands in for the disk: the writer is told that no more fits."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    words = [sys.executable, "-c", COMMAND, str(corpus), "--out", str(tmp_path / "out"), "--encoding=pcm16"]
    for processes in (1, 2):
        done = subprocess.run(
            [*words, f"--processes={processes}"], cwd=ROOT, capture_output=True, text=True, preexec_fn=limit, timeout=60
        )
        assert done.returncode == 2, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert "shard-00000.array_record cannot be written: File too large; " in line
        assert "Traceback" not in done.stderr
        assert not list((tmp_path / "out").glob("*.array_record"))
        assert not list((tmp_path / "out").glob(".*.tmp"))


def test_the_command_packs_verifies_and_prints_a_ledger(corpus, tmp_path):
    parser = argparse.ArgumentParser()
    shards.add_arguments(parser)
    words = ["--out", str(tmp_path / "out"), "--encoding=pcm16", "--processes=1", "--verify"]
    result = shards.run(parser.parse_args([str(corpus), *words]))
    assert json.loads(json.dumps(result)) == result
    assert result["verified"]["kept"] == result["kept"] == result["read"] == 40
    assert shards.run(parser.parse_args([result["manifest"], "--verify"]))["kept"] == 40
    assert shards.run(parser.parse_args([str(corpus), "--verify"]))["without_checksum"] == 40
    with pytest.raises(UserError, match="no --out"):
        shards.run(parser.parse_args([str(corpus)]))


def test_shards_are_packed_from_shards_and_read_behind_a_url(corpus, tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shards.pack(corpus, tmp_path / "flac", Encoding("flac"), 0.25, processes=1)
    shards.pack(tmp_path / "flac/manifest.jsonl", tmp_path / "pcm16", Encoding("pcm16"), processes=1)
    memory = fsspec.filesystem("memory")
    for path in (tmp_path / "pcm16").iterdir():
        memory.pipe_file(f"/shards/{path.name}", path.read_bytes())
    before, after = Manifest.open(corpus), Manifest.open("memory://shards/manifest.jsonl")
    for place in range(40):
        np.testing.assert_array_equal(audio.read(after[place]), audio.read(before[place]))
    assert verify("memory://shards/manifest.jsonl", processes=1)["kept"] == 40
    again = shards.pack("memory://shards/manifest.jsonl", tmp_path / "again", Encoding("flac"), 0.25, processes=1)
    records = [dataclasses.replace(Manifest.open(m)[3], segments=()) for m in (again["manifest"], corpus)]
    assert records[0].extra["mine"] == records[1].extra["mine"]
