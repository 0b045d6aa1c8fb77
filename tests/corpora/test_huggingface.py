"""Datasets of Hugging Face on disk: arrow files of `save_to_disk`, parquet files of the hub."""

import argparse
import io
import json
import pathlib

import numpy as np
import pytest
import soundfile

pytest.importorskip("pyarrow")

import pyarrow
from pyarrow import ipc, parquet

from jaxspeech.corpora import huggingface
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data import audio, record
from jaxspeech.errors import UserError

AUDIO = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def source(out: pathlib.Path, *words: object) -> huggingface.HuggingFace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out")
    huggingface.add_arguments(parser)
    return huggingface.source(parser.parse_args([*map(str, words), "--out", str(out)]))


def items(out: pathlib.Path, *words: object) -> list[Found | Rejected]:
    opened = source(out, *words)
    return [item for split in opened.splits() for item in opened.items(split)]


def noise(seed: int, kind: str = "FLAC") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(seed).uniform(-0.5, 0.5, 4000), 16000, format=kind)
    return file.getvalue()


def table(rows: list[tuple], names: tuple[str, ...] = ("audio", "text")) -> pyarrow.Table:
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    return pyarrow.table(
        {name: pyarrow.array(cells, AUDIO if name == "audio" else None) for name, cells in columns.items()}
    )


def save_to_disk(folder: pathlib.Path, parts: list, split: str | None = "train") -> pathlib.Path:
    """The files that `Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05d}-of-{len(parts):05d}.arrow" for n in range(len(parts))]
    for name, part in zip(names, parts):
        with pyarrow.OSFile(str(folder / name), "wb") as file, ipc.new_stream(file, part.schema) as writer:
            writer.write_table(part, 2)
    state = {"_data_files": [{"filename": name} for name in names], "_format_type": None, "_split": split}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_rows_that_name_files_are_taken_as_they_are(tmp_path):
    rows = [({"bytes": None, "path": f"clips/{n}.wav"}, f"text {n}", f"s{n}", 1.5 * n) for n in range(1, 6)]
    names = ("audio", "sentence", "client", "seconds")
    save_to_disk(tmp_path / "ds", [table(rows[:3], names), table(rows[3:], names)])
    found = items(tmp_path / "out", tmp_path / "ds", "--speaker", "client", "--duration", "seconds", "--root", "/data")
    assert [item.where for item in found[2:4]] == [
        "data-00000-of-00002.arrow:row 3",
        "data-00001-of-00002.arrow:row 1",
    ]
    assert [item.row for item in found] == [
        {
            "id": f"train-{n - 1:08d}",
            "audio": f"/data/clips/{n}.wav",
            "text": f"text {n}",
            "speaker": f"s{n}",
            "duration": 1.5 * n,
        }
        for n in range(1, 6)
    ]
    record.check(found[0].row)
    assert not (tmp_path / "out").exists()


def test_audio_in_the_files_is_refused_or_extracted(tmp_path):
    kinds = ["FLAC", "WAV", "OGG", "MP3"]
    rows = [({"bytes": noise(n, kind), "path": "x"}, f"text {n}", 100 + n) for n, kind in enumerate(kinds)]
    part = table(rows, ("audio", "text", "id"))
    for split in ("train", "test"):
        save_to_disk(tmp_path / "ds" / split, [part], split)
    (tmp_path / "ds" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(UserError, match=r"\.arrow holds the audio itself \(column 'audio'\); --extract writes it"):
        source(tmp_path / "out", tmp_path / "ds").splits()
    opened = source(tmp_path / "out", tmp_path / "ds", "--extract", "--id", "id")
    assert opened.splits() == ["train", "test"]
    for attempt in range(2):
        found = list(opened.items("train"))
        assert [item.row["id"] for item in found] == ["100", "101", "102", "103"]
        for item, (cell, *_), kind in zip(found, rows, ("flac", "wav", "ogg", "mp3")):
            path = pathlib.Path(item.row["audio"])
            assert path.is_relative_to(tmp_path / "out" / "audio" / "train" / "00000")
            assert path.suffix == f".{kind}"
            assert path.read_bytes() == cell["bytes"]
            assert len(audio.read(record.build(item.row, audio.probe(path)[0], ""))) > 3900
        if attempt == 0:  # what an earlier start left half is written again
            pathlib.Path(found[0].row["audio"]).write_bytes(b"half")


def test_parquet_files_of_the_hub_become_splits(tmp_path):
    def put(name: str, rows: list[tuple]) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table(rows), tmp_path / name, row_group_size=2)

    def rows(prefix: str, count: int) -> list[tuple]:
        return [({"bytes": None, "path": f"{prefix}{n}.wav"}, f"{prefix}{n}") for n in range(count)]

    put("hub/data/train-00000-of-00002.parquet", rows("a", 3))
    put("hub/data/train-00001-of-00002-0123abcd.parquet", rows("b", 2))
    put("hub/data/dev.clean-00000-of-00001.parquet", rows("c", 1))
    opened = source(tmp_path, tmp_path / "hub")
    assert opened.splits() == ["dev.clean", "train"]
    assert [item.row["text"] for item in opened.items("train")] == ["a0", "a1", "a2", "b0", "b1"]
    put("auto/en/train/0000.parquet", rows("e", 1))
    put("auto/en/train/0001.parquet", rows("f", 1))
    put("auto/de/train/0000.parquet", rows("d", 1))
    opened = source(tmp_path, tmp_path / "auto")
    assert opened.splits() == ["de-train", "en-train"]
    assert [item.row["text"] for item in opened.items("en-train")] == ["e0", "f0"]
    two = [tmp_path / "hub" / "data" / f"train-0000{n}-of-00002{end}.parquet" for n, end in ((0, ""), (1, "-0123abcd"))]
    assert len(items(tmp_path, *two)) == 5


def test_rows_that_cannot_be_used_are_named_and_the_rest_is_kept(tmp_path):
    rows = [
        ({"bytes": None, "path": "a.wav"}, "good"),
        ({"bytes": None, "path": "a.wav"}, None),
        ({"bytes": None, "path": None}, "no audio"),
        (None, "no audio"),
        ({"bytes": b"no sound at all", "path": None}, "unknown"),
        ({"bytes": noise(1), "path": "a.flac"}, "embedded"),
    ]
    parquet.write_table(table(rows), tmp_path / "t.parquet")
    expected = [("2", "no transcript"), ("3", "no audio"), ("4", "no audio")]
    found = items(tmp_path / "out", tmp_path / "t.parquet")
    assert [(item.where.rpartition(" ")[2], item.reason) for item in found if isinstance(item, Rejected)] == [
        *expected,
        ("5", "no file of its own"),
        ("6", "no file of its own"),
    ]
    found = items(tmp_path / "out", tmp_path / "t.parquet", "--extract")
    assert [item.row["text"] for item in found if isinstance(item, Found)] == ["good", "embedded"]
    assert [(item.where.rpartition(" ")[2], item.reason) for item in found if isinstance(item, Rejected)] == [
        *expected,
        ("5", "unknown kind of audio"),
    ]


def test_a_damaged_file_does_not_stop_the_others(tmp_path):
    rows = [({"bytes": None, "path": f"{n}.wav"}, f"{n}") for n in range(6)]
    folder = save_to_disk(tmp_path / "ds", [table(rows[:2]), table(rows[2:5]), table(rows[5:])])
    second = folder / "data-00001-of-00003.arrow"
    second.write_bytes(second.read_bytes()[:-200])
    found = items(tmp_path, folder)
    texts = [item.row["text"] for item in found if isinstance(item, Found)]
    assert texts[:2] == ["0", "1"]
    assert texts[-1] == "5"
    (broken,) = (item for item in found if isinstance(item, Rejected))
    assert broken.reason == "broken file"
    assert broken.where.startswith("data-00001-of-00003.arrow:row ")


def test_what_is_missing_is_said(tmp_path):
    rows = [("a.wav", "x")]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(("file", "words"))}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    path = tmp_path / "t.parquet"
    with pytest.raises(UserError, match="has the columns file, words; give --audio"):
        source(tmp_path, path).splits()
    with pytest.raises(UserError, match="has the columns file, words; give --text"):
        source(tmp_path, path, "--audio", "file").splits()
    with pytest.raises(UserError, match=r"--speaker: .* has no column 'who', but file, words"):
        source(tmp_path, path, "--audio", "file", "--text", "words", "--speaker", "who").splits()
    (item,) = items(tmp_path, path, "--audio", "file", "--text", "words")
    assert item.row == {"id": "t-00000000", "audio": str(tmp_path / "a.wav"), "text": "x"}
    with pytest.raises(UserError, match=r"nor \.parquet files"):
        source(tmp_path, tmp_path / "absent")
    (tmp_path / "not.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="cannot be read"):
        source(tmp_path, tmp_path / "not.parquet").splits()
    folder = save_to_disk(tmp_path / "ds", [table([({"bytes": None, "path": "a"}, "x")])])
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"_indices_data_files": [{"filename": "i.arrow"}]}))
    with pytest.raises(UserError, match="flatten_indices"):
        source(tmp_path, folder)


def test_what_datasets_saves_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"audio": ["/a.wav", "/b.wav"], "text": ["x", "y"]})
    datasets.DatasetDict({"train": made, "dev": made.select([1])}).save_to_disk(tmp_path / "ds")
    made.to_parquet(tmp_path / "train.parquet")
    for path in (tmp_path / "ds", tmp_path / "train.parquet"):
        opened = source(tmp_path, path)
        assert [(item.row["audio"], item.row["text"]) for item in opened.items("train")] == [
            ("/a.wav", "x"),
            ("/b.wav", "y"),
        ]
    assert [item.row["text"] for item in source(tmp_path, tmp_path / "ds").items("dev")] == ["y"]
