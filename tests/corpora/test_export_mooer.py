"""MooER's shards from manifests; MooER ↔ ours ↔ Kaldi."""

import argparse
import hashlib
import json
import pathlib
import tarfile
from types import ModuleType

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import export_kaldi, export_mooer, kaldi, mooer
from jaxspeech.corpora.export_mooer import normalise
from jaxspeech.corpora.source import Found
from jaxspeech.data import audio
from jaxspeech.data.manifest import Manifest, write_manifest
from jaxspeech.data.record import Record
from jaxspeech.errors import UserError


def run(module: ModuleType, *words: object, processes: int = 1) -> dict:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([*map(str, words), "--processes", str(processes)]))


def rows(module: ModuleType, *words: object) -> list[dict]:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    opened = module.source(parser.parse_args([str(word) for word in words]))
    items = [item for split in opened.splits() for item in opened.items(split)]
    assert all(isinstance(item, Found) for item in items), items
    return [item.row for item in items]


def records(manifest: pathlib.Path) -> dict[str, Record]:
    opened = Manifest.open(manifest)
    return {opened[n].id: opened[n] for n in range(len(opened))}


def assert_same(one: dict[str, Record], other: dict[str, Record]) -> None:
    assert one.keys() == other.keys()
    for name, own in one.items():
        assert own.text == other[name].text
        assert own.duration == pytest.approx(other[name].duration, abs=1e-6)
        np.testing.assert_array_equal(audio.read(own, 16000), audio.read(other[name], 16000))


@pytest.fixture
def manifest(tmp_path):
    """Whole files of several kinds, a stretch of one channel, and segments with a gap."""
    folder = tmp_path / "own"
    folder.mkdir()
    generator = np.random.default_rng(7)

    def noise(name: str, seconds: float, rate: int = 16000, channels: int = 1) -> str:
        samples = generator.integers(-32768, 32767, (round(seconds * rate), channels), np.int16)
        soundfile.write(folder / name, samples, rate)
        return name

    long = noise("long.flac", 4, channels=2)
    lines = [
        {"id": "utt-b", "audio": noise("b.wav", 1), "text": "hello world", "duration": 1.0},
        {"id": "utt-a.1", "audio": noise("a.flac", 0.5), "text": "打开 iphone 的 siri 功能", "duration": 0.5},
        {"id": "piece", "audio": long, "offset": 1.25, "duration": 2.0, "channel": 1, "text": "it's 5 pm"},
        {"id": "narrow", "audio": noise("8k.wav", 1, rate=8000), "text": "telephone", "duration": 1.0},
        {
            "id": "两",
            "segments": [{"audio": "b.wav"}, {"audio": "a.flac", "gap": 0.25}],
            "text": "joined",
            "duration": 1.75,
        },
    ]
    write_manifest(folder / "train.jsonl", lines)
    return folder / "train.jsonl"


def test_a_shard_is_what_mooer_packs(manifest, tmp_path):
    totals = run(export_mooer, manifest, "--out", tmp_path / "m", "--num-utts-per-shard", 2)
    assert (totals["read"], totals["kept"], totals["filtered"], totals["failed"]) == (5, 5, {}, {})
    listed = (tmp_path / "m" / "data.list").read_text().splitlines()
    assert listed == [f"{tmp_path}/m/shards_{n:09d}.tar" for n in range(3)]
    members = []
    for path in listed:
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
                members.append((member.name, tar.extractfile(member).read()))
    names = ["narrow.wav", "piece.flac", "utt-a.1.flac", "utt-b.wav", "两.flac"]
    assert [name for name, _ in members] == [
        each for name in names for each in (f"{name.rpartition('.')[0]}.txt", name)
    ]
    content = dict(members)
    assert content["utt-b.wav"] == (manifest.parent / "b.wav").read_bytes()
    assert content["utt-a.1.txt"].decode() == "打开 iphone 的 siri 功能"


def test_mooer_ours_kaldi_and_back_nothing_changes(manifest, tmp_path):
    before = records(manifest)
    run(export_mooer, manifest, "--out", tmp_path / "mooer" / "train", "--num-utts-per-shard", 2)
    from_mooer = tmp_path / "from_mooer.jsonl"
    write_manifest(from_mooer, rows(mooer, tmp_path / "mooer" / "train" / "data.list"))
    assert_same(before, records(from_mooer))
    run(export_kaldi, from_mooer, "--out", tmp_path / "kaldi", "--extract")
    from_kaldi = tmp_path / "from_kaldi.jsonl"
    write_manifest(from_kaldi, rows(kaldi, tmp_path / "kaldi"))
    assert_same(before, records(from_kaldi))
    run(export_mooer, from_kaldi, "--out", tmp_path / "again", "--num-utts-per-shard", 2)
    assert shards(tmp_path / "again") == shards(tmp_path / "mooer" / "train")


def shards(folder: pathlib.Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tar"))}


def test_the_same_input_gives_the_same_bytes(manifest, tmp_path):
    lines = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    lines += [lines[0] | {"id": f"more-{number}"} for number in range(45)]  # enough for several processes to have some
    many = manifest.with_name("many.jsonl")
    write_manifest(many, lines)
    for name, processes in (("one", 1), ("two", 2)):
        run(export_mooer, many, "--out", tmp_path / name, "--num-utts-per-shard", 7, processes=processes)
    assert len(shards(tmp_path / "one")) == 8
    assert shards(tmp_path / "one") == shards(tmp_path / "two")
    write_manifest(many, reversed(lines))
    run(export_mooer, many, "--out", tmp_path / "reversed", "--num-utts-per-shard", 7)
    assert shards(tmp_path / "reversed") == shards(tmp_path / "one")


def test_a_shuffle_keeps_all_and_depends_on_its_seed(manifest, tmp_path):
    orders = {}
    for seed in (1, 1, 2):
        run(export_mooer, manifest, "--out", tmp_path / "s", "--shuffle", seed)
        ids = [row["id"] for row in rows(mooer, tmp_path / "s" / "data.list")]
        assert orders.setdefault(seed, ids) == ids
    assert sorted(orders[1]) == sorted(orders[2])
    assert orders[1] != orders[2]


def test_all_audio_can_be_made_16_khz_mono(manifest, tmp_path):
    run(export_mooer, manifest, "--out", tmp_path / "m", "--sample-rate", 16000)
    before = records(manifest)
    write_manifest(tmp_path / "back.jsonl", rows(mooer, tmp_path / "m" / "data.list"))
    for name, own in records(tmp_path / "back.jsonl").items():
        assert audio.probe(own.segments[0].audio)[1:] == (16000, 1)
        wanted = audio.read(before[name], 16000)
        close = 0 if name != "narrow" else 1 / 32768  # what is resampled is rounded to 16 bits
        np.testing.assert_allclose(audio.read(own, 16000), np.clip(wanted, -1, 32767 / 32768), rtol=0, atol=close)


@pytest.mark.parametrize(
    ("text", "true", "fixed"),
    [
        ("我 爱 北京", "我爱北京", "我爱北京"),
        ("hello world a b c", "HELLO▁WORLD▁A▁B▁C", "HELLO▁WORLD▁A▁B▁C"),
        ("打开 iphone 的 siri 功能", "打开IPHONE的SIRI功能", "打开IPHONE的SIRI功能"),
        ("it's 5 pm", "IT'S5PM", "IT'S▁5▁PM"),
        ("well,  yes", "WELL,YES", "WELL,▁YES"),
        ("\ufeffüber alles\n", "üBER▁ALLES", "üBER▁ALLES"),
        ("", "", ""),
    ],
)
def test_texts_are_normalised_as_mooer_does_or_better(text, true, fixed):
    assert normalise(text, "true") == true
    assert normalise(text, "fixed") == fixed
    assert normalise(text, "false") == text.strip("\ufeff\n")


def test_normalised_texts_come_back_with_spaces(manifest, tmp_path):
    run(export_mooer, manifest, "--out", tmp_path / "m", "--text-norm")
    texts = {row["id"]: row["text"] for row in rows(mooer, tmp_path / "m" / "data.list")}
    assert (texts["utt-b"], texts["utt-a.1"], texts["piece"]) == ("HELLO WORLD", "打开IPHONE的SIRI功能", "IT'S5PM")


def test_bad_utterances_are_named_and_the_rest_is_packed(manifest, tmp_path):
    cut = manifest.parent / "cut.wav"
    cut.write_bytes((manifest.parent / "b.wav").read_bytes()[:12000])
    lines = [
        {"id": "cut", "audio": "cut.wav", "text": "x", "duration": 1.0},
        {"id": "gone", "audio": "gone.wav", "text": "x", "duration": 1.0},
        {"id": "utt-b", "audio": "b.wav", "text": "again", "duration": 1.0},
        {"id": "/etc/x", "audio": "b.wav", "text": "x", "duration": 1.0},
        {"id": "a#b", "audio": "b.wav", "text": "x", "duration": 1.0},
    ]
    with open(manifest, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    totals = run(export_mooer, manifest, "--out", tmp_path / "m")
    assert (totals["read"], totals["kept"]) == (10, 5)
    assert totals["failed"] == {
        "duplicate id": 1,
        "missing file": 1,
        "no usable name": 2,
        "shorter than the manifest says": 1,
    }
    rejected = [json.loads(line) for line in (tmp_path / "m" / "rejected.jsonl").read_text().splitlines()]
    assert {(line["where"], line["reason"]) for line in rejected} >= {
        ("train.jsonl:6", "shorter than the manifest says"),
        ("train.jsonl:8", "duplicate id"),
    }
    assert len(rows(mooer, tmp_path / "m" / "data.list")) == 5


def test_an_export_in_the_place_of_a_larger_one_leaves_no_tar_of_it(manifest, tmp_path):
    run(export_mooer, manifest, "--out", tmp_path / "m", "--num-utts-per-shard", 1)
    (tmp_path / "m" / "shards_of_mine.tar").write_bytes(b"mine")
    run(export_mooer, manifest, "--out", tmp_path / "m", "--num-utts-per-shard", 3)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "data.list",
        "shards_000000000.tar",
        "shards_000000001.tar",
        "shards_of_mine.tar",
    ]


def test_no_list_is_left_where_it_stops(manifest, tmp_path):
    lines = [{"id": f"{n}", "audio": "gone.wav", "text": "x", "duration": 1.0} for n in range(30)]
    with open(manifest, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    with pytest.raises(UserError, match="30 of 35 utterances failed"):
        run(export_mooer, manifest, "--out", tmp_path / "m")
    assert not (tmp_path / "m" / "data.list").exists()
    assert not list((tmp_path / "m").glob("*.tmp"))
    with pytest.raises(UserError, match="give 1 or more"):
        run(export_mooer, manifest, "--out", tmp_path / "m", "--num-utts-per-shard", 0)
