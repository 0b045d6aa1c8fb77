"""WebDataset tars: samples are found where they are, and every one is accounted for."""

import argparse
import io
import json
import pathlib
import tarfile

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import webdataset
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.corpora.tar_shards import TarShards
from jaxspeech.data import audio, record
from jaxspeech.errors import UserError


def tone(hertz: float, ending: str = "FLAC") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(8000) * 2 * np.pi * hertz / 16000), 16000, format=ending)
    return file.getvalue()


def pack(path: pathlib.Path, members: list[tuple[str, bytes | str]]) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def source(*words: object) -> TarShards:
    parser = argparse.ArgumentParser()
    webdataset.add_arguments(parser)
    return webdataset.source(parser.parse_args([str(word) for word in words]))


def items(*words: object) -> list[Found | Rejected]:
    opened = source(*words)
    return [item for split in opened.splits() for item in opened.items(split)]


def reasons(found: list[Found | Rejected]) -> list[tuple[str, str]]:
    return [(item.where, item.reason) for item in found if isinstance(item, Rejected)]


def test_samples_become_rows_that_can_be_heard(tmp_path):
    about = {"text": "in json", "speaker": "s1", "duration": 0.5, "language": 7, "dnsmos": 3.1}
    tar = pack(
        tmp_path / "train-000.tar",
        [
            ("./a/one.flac", tone(300)),
            ("./a/one.txt", "hello  there\n"),
            ("two.cls", "3"),
            ("two.wav", tone(500, "WAV")),
            ("two.json", json.dumps(about)),
        ],
    )
    found = items(tar)
    assert [item.where for item in found] == ["train-000.tar#a/one.flac", "train-000.tar#two.wav"]
    assert [item.row for item in found] == [
        {"id": "a/one", "audio": f"{tar}#a/one.flac", "text": "hello  there"},
        {"id": "two", "audio": f"{tar}#two.wav", "text": "in json", "speaker": "s1", "duration": 0.5},
    ]
    for item, hertz in zip(found, (300, 500)):
        heard = audio.read(record.build(item.row, 0.5, ""))
        assert len(heard) == 8000
        assert np.argmax(np.abs(np.fft.rfft(heard))) == hertz / 2


def test_a_key_ends_at_the_first_dot_of_the_file_name(tmp_path):
    tar = pack(tmp_path / "t.tar", [("v1.0/a.mic1.wav", tone(300, "WAV")), ("v1.0/a.txt", "x")])
    # "mic1.wav" is no ending of audio; but it is audio, and is not lost without a word.
    assert reasons(items(tar)) == [("t.tar#v1.0/a.mic1.wav", "no usable name"), ("t.tar#v1.0/a", "no audio")]
    tar = pack(tmp_path / "u.tar", [("v1.0/a.wav", b"x"), ("v1.0/a.norm.txt", "normalised"), ("v1.0/a.txt", "As said")])
    assert [item.row["text"] for item in items(tar)] == ["As said"]
    assert [item.row["text"] for item in items(tar, "--text-ending", "norm.txt")] == ["normalised"]


def test_each_bad_sample_is_named_and_none_stops_the_rest(tmp_path):
    tar = pack(
        tmp_path / "t.tar",
        [
            ("a.txt", "no audio"),
            ("b.wav", b"x"),
            ("c.wav", b"x"),
            ("c.flac", b"x"),
            ("c.txt", "two"),
            ("d.wav", b"x"),
            ("d.txt", b"\xff"),
            ("e#1.wav", b"x"),
            ("e#1.txt", "mark"),
            ("f.wav", b"x"),
            ("f.json", "[1"),
            ("g.wav", b"x"),
            ("g.txt", "first of two"),
            ("h.wav", b"x"),
            ("h.txt", "good"),
            ("g.wav", b"y"),
            ("g.txt", "second of two"),
            ("._h.wav", b"of macOS"),
        ],
    )
    found = items(tar)
    assert [item.row["text"] for item in found if isinstance(item, Found)] == ["good"]
    assert reasons(found) == [
        ("t.tar#a", "no audio"),
        ("t.tar#b.wav", "no transcript"),
        ("t.tar#c.wav", "several audio files"),
        ("t.tar#d.wav", "bad UTF-8"),
        ("t.tar#e#1.wav", "no usable name"),
        ("t.tar#f.wav", "bad JSON"),
        ("t.tar#g.wav", "duplicate id"),
        ("t.tar#g.wav", "duplicate id"),
    ]


@pytest.mark.parametrize("cut", ["in a member", "at a border", "by zero bytes", "by other bytes"])
def test_a_damaged_tar_loses_nothing_in_silence(tmp_path, cut):
    whole = pack(tmp_path / "a.tar", [(f"{n}.{e}", b"x" * 700) for n in range(5) for e in ("wav", "txt")])
    pack(tmp_path / "b.tar", [("z.wav", b"x"), ("z.txt", "last")])
    data = whole.read_bytes()
    size = 512 + 1024  # a header, and 700 bytes filled up
    content = {
        "in a member": data[: 6 * size + 600],
        "at a border": data[: 6 * size],
        "by zero bytes": b"",
        "by other bytes": data[: 6 * size] + b"\x01" * 512 + data[6 * size + 512 :],
    }[cut]
    whole.write_bytes(content)
    (tmp_path / "all.list").write_text("a.tar\nmissing.tar\nb.tar\n")
    found = items(tmp_path / "all.list")
    kept = [item.row["id"] for item in found if isinstance(item, Found)]
    assert kept == ([] if cut == "by zero bytes" else ["0", "1", "2"]) + ["z"]
    assert reasons(found) == [("all.list:1", "broken tar"), ("all.list:2", "missing file")]


def test_lists_and_patterns_become_splits(tmp_path):
    for n in range(3):
        pack(tmp_path / f"train-{n:02d}.tar", [(f"{n}.wav", b"x"), (f"{n}.txt", f"text {n}")])
    pack(tmp_path / "other" / "dev.tar", [("0.wav", b"x"), ("0.txt", "dev")])
    (tmp_path / "dev.list").write_bytes(b"\xef\xbb\xbfother/dev.tar\r\n\r\n")
    opened = source(tmp_path / "train-{00..02}.tar", tmp_path / "dev.list")
    assert opened.splits() == ["dev", "train"]
    assert [item.row["text"] for item in opened.items("train")] == ["text 0", "text 1", "text 2"]
    assert [item.row["text"] for item in items(tmp_path / "train-*.tar")] == ["text 0", "text 1", "text 2"]
    assert [item.row["id"] for item in items(tmp_path / "train-{00,02}.tar", "--tar-in-id")] == [
        "train-00/0",
        "train-02/2",
    ]
    with pytest.raises(UserError, match="matches no file"):
        source(tmp_path / "none-*.tar")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("pipe:aws s3 cp s3://b/a.tar -", "is a command"),
        ("a.tar.gz", "is compressed"),
        ("a.zip", "is compressed"),
        ("a.bin", "does not end in"),
        ("/gone/a.tar", "if they have moved, give --root"),
    ],
)
def test_what_cannot_be_read_at_random_is_refused_with_its_line(tmp_path, line, told):
    (tmp_path / "all.list").write_text(line)
    with pytest.raises(UserError, match=f"all.list:1: .*{told}"):
        source(tmp_path / "all.list").splits()


def test_tars_behind_urls_are_read(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    tar = pack(tmp_path / "a.tar", [("a.flac", tone(300)), ("a.txt", "far away")])
    fsspec.filesystem("memory").pipe_file("/webdataset/a.tar", tar.read_bytes())
    (item,) = items("memory://webdataset/a.tar")
    assert item.row == {"id": "a", "audio": "memory://webdataset/a.tar#a.flac", "text": "far away"}


def test_a_tar_of_many_samples_is_read_in_one_pass(tmp_path):
    members = [(f"{n:05d}.{e}", b"0" * 100) for n in range(2000) for e in ("wav", "txt")]
    found = items(pack(tmp_path / "many.tar", members))
    assert [item.row["id"] for item in found] == [f"{n:05d}" for n in range(2000)]
