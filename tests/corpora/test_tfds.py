"""tensorflow-datasets: a stand-in with the same calls, and the real library where it is installed."""

import argparse
import json
import sys
import types

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import tfds
from jaxspeech.corpora.preparation import prepare
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data.manifest import Manifest
from jaxspeech.errors import UserError

RATE = 8000


def tone(number, kind=np.int64):
    return (3000 * np.sin(np.arange(RATE + 100 * number) * (0.1 + 0.01 * number))).astype(kind)


class Label:
    def int2str(self, value):
        return ("yes", "no")[value]


class Builder:
    """What `tfds.builder` gives."""

    def __init__(self, splits, features, data_dir, prepared=True):
        self.splits, self.data_dir, self.prepared, self.read = splits, data_dir, prepared, 0
        self.info = types.SimpleNamespace(
            full_name="tiny/all/1.0.0",
            features=features,
            splits={name: types.SimpleNamespace(num_examples=len(rows)) for name, rows in splits.items()},
        )

    def is_prepared(self):
        return self.prepared

    def download_and_prepare(self, *, file_format):
        assert file_format == "array_record"
        self.prepared = True

    def as_data_source(self, split):
        rows, builder = self.splits[split], self

        class Records:
            def __len__(self):
                return len(rows)

            def __getitem__(self, number):
                builder.read += 1
                if isinstance(rows[number], Exception):
                    raise rows[number]
                return rows[number]

        return Records()


@pytest.fixture
def library(monkeypatch, tmp_path):
    """Gives tensorflow_datasets a data set "tiny"; further keywords change its features."""

    def install(splits, prepared=True, **features):
        known = {
            "speech": types.SimpleNamespace(sample_rate=RATE),
            "text": object(),
            "speaker_id": object(),
            **features,
        }
        builder = Builder(splits, known, str(tmp_path / "tfds"), prepared)

        def find(name, data_dir=None):
            if name != "tiny":
                raise ValueError(f"Dataset {name} not found.\nAvailable datasets:\n\t- tiny")
            return builder

        monkeypatch.setitem(sys.modules, "tensorflow_datasets", types.SimpleNamespace(builder=find))
        return builder

    return install


def source(out, *words, name="tiny"):
    parser = argparse.ArgumentParser()
    parser.add_argument("--out")
    tfds.add_arguments(parser)
    return tfds.source(parser.parse_args([name, *map(str, words), "--out", str(out)]))


def example(number, **changed):
    return {"speech": tone(number), "text": f"héllo {number}".encode(), "speaker_id": 7 + number} | changed


def test_a_data_set_becomes_flac_files_with_the_same_samples_and_a_manifest(library, tmp_path):
    library({"train": [example(n) for n in range(3)], "test": [example(9)]})
    found = prepare(source(tmp_path), tmp_path, processes=1)
    assert (found["read"], found["kept"]) == (4, 4)
    assert found["splits"]["train"]["official"]["utterances"] == 3
    assert found["splits"]["train"]["difference"] is None
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text("utf-8").splitlines()]
    assert rows[1]["text"] == "héllo 1"
    assert (rows[1]["id"], rows[1]["speaker"]) == ("train-00000001", "8")
    assert rows[1]["audio"] == "audio/tiny/all/1.0.0/train/00000/00000001.flac"
    samples, rate = soundfile.read(tmp_path / rows[1]["audio"], dtype="int16")
    assert rate == RATE
    assert np.array_equal(samples, tone(1))
    assert Manifest.open(tmp_path / "train.jsonl").durations[2] == pytest.approx((RATE + 200) / RATE)


def test_a_second_start_writes_only_what_is_missing_or_broken(library, tmp_path):
    library({"train": [example(n) for n in range(4)]})
    first = prepare(source(tmp_path), tmp_path, processes=1)
    files = sorted(tmp_path.rglob("*.flac"))
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
    manifest = (tmp_path / "train.jsonl").read_bytes()
    files[1].unlink()
    files[2].write_bytes(b"fLaC and then the disk was full")
    assert prepare(source(tmp_path), tmp_path, processes=1) == first
    assert (tmp_path / "train.jsonl").read_bytes() == manifest
    assert [file.read_bytes() for file in files] == [content for _, content in before.values()]
    same = [file.stat().st_mtime_ns == before[file][0] for file in files]
    assert same == [True, False, False, True]


def test_audio_goes_where_it_is_told_to(library, tmp_path):
    library({"train": [example(0)]})
    (item,) = source(tmp_path / "out", "--audio", tmp_path / "sound").items("train")
    assert item.row["audio"].startswith(str(tmp_path / "sound" / "tiny"))
    assert not (tmp_path / "out").exists()


def test_a_bad_record_costs_itself_alone_and_all_are_counted(library, tmp_path):
    rows = [
        example(0),
        OSError("checksum of chunk 3\nmore"),
        example(2, text=b"\xff"),
        example(3, speech=np.zeros(0, np.int64)),
        example(4, speech=tone(4).astype(np.int64) * 1000),
        example(5, speech=np.full(RATE, np.nan, np.float32)),
        example(6, speech=np.full(RATE, 3000.0, np.float32)),
        example(7, speech=np.zeros((10, 10, 3), np.int64)),
        example(8),
    ]
    library({"train": rows})
    found = list(source(tmp_path).items("train"))
    assert [type(item) for item in found] == [Found] + [Rejected] * 7 + [Found]
    assert [item.reason for item in found[1:-1]] == [
        "broken record",
        "not UTF-8",
        "empty audio",
        "samples of more than 16 bits",
        "not a number",
        "not within ±1",
        "not audio",
    ]
    assert found[1].where == "tiny/all/1.0.0:train:1"
    assert found[1].detail == "checksum of chunk 3"
    total = prepare(source(tmp_path), tmp_path, processes=1)
    assert (total["read"], total["kept"]) == (9, 2)
    assert total["read"] == total["kept"] + sum(total["failed"].values()) + sum(total["filtered"].values())


def read(item, kind="float64"):
    return soundfile.read(item.row["audio"], dtype=kind)[0]


def test_floats_stereo_wide_integers_and_encoded_audio_keep_their_samples(library, tmp_path):
    rng = np.random.default_rng(0)
    quiet = rng.uniform(-0.9, 0.9, (4000, 2)).astype(np.float32)
    loud = np.concatenate([quiet[:, 0], np.float32([1.25, -1.5])])
    content = b"RIFF" + bytes(40)
    rows = [example(0, speech=quiet), example(1, speech=loud), example(2, speech=content)]
    library({"train": rows})
    opened = source(tmp_path)
    stereo, mono, encoded = opened.items("train")
    assert np.abs(read(stereo) - quiet).max() <= 2**-24
    assert read(mono)[-2:] == pytest.approx([1.0, -1.0], abs=2**-22)
    assert opened.notes == {"utterances with samples beyond ±1, which were clipped": 1}
    assert encoded.row["audio"].endswith("00000002.wav")
    with open(encoded.row["audio"], "rb") as file:
        assert file.read() == content

    wide = rng.integers(-(2**23), 2**23, 4000)
    library({"train": [example(0, speech=wide)], "test": [example(0, speech=wide << 8)]})
    (item,) = source(tmp_path / "24", "--bits=24").items("train")
    assert np.array_equal(read(item, "int32") >> 8, wide)
    (item,) = source(tmp_path / "32", "--bits=32").items("test")
    assert np.array_equal(read(item, "int32") >> 8, wide)


def test_a_class_becomes_its_name(library, tmp_path):
    library({"train": [example(0, label=np.int64(1)), example(1, label=0)]}, label=Label())
    texts = [item.row["text"] for item in source(tmp_path, "--text=label").items("train")]
    assert texts == ["no", "yes"]


def test_another_rate_writes_the_files_again(library, tmp_path):
    library({"train": [example(0)]}, speech=types.SimpleNamespace(sample_rate=None))
    for rate in (16000, 8000):
        (item,) = source(tmp_path, f"--rate={rate}").items("train")
        assert soundfile.info(item.row["audio"]).samplerate == rate


def test_what_is_not_prepared_is_fetched_only_where_that_is_asked_for(library, tmp_path):
    builder = library({"train": [example(0)]}, prepared=False)
    with pytest.raises(UserError, match=r"is not prepared in .*--download"):
        source(tmp_path)
    assert not builder.prepared
    assert source(tmp_path, "--download").splits() == ["train"]
    assert builder.prepared


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--text=txt",), "--text: tiny/all/1.0.0 has no feature 'txt', but speech, text"),
        (("--feature=sound",), "--feature: .* has no feature 'sound'"),
        (("--rate=16000",), "says 8000 Hz"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(library, tmp_path, words, message):
    builder = library({"train": [example(0)]})
    with pytest.raises(UserError, match=message):
        source(tmp_path, *words)
    assert builder.read == 0


def test_what_the_data_set_does_not_tell_is_asked_for(library, tmp_path, monkeypatch):
    library({"train": [example(0)]}, speech=types.SimpleNamespace(sample_rate=None))
    with pytest.raises(UserError, match="give --rate in Hz"):
        source(tmp_path)
    library({"train": [example(0)]}, noise=types.SimpleNamespace(sample_rate=8000))
    with pytest.raises(UserError, match="give --feature"):
        source(tmp_path)
    with pytest.raises(UserError, match=r"^tensorflow-datasets cannot give other: Dataset other not found\.$"):
        source(tmp_path, name="other")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install 'jaxspeech\[tfds\]'"):
        source(tmp_path)


def test_records_of_tfrecord_files_are_refused_with_what_to_do(library, tmp_path, monkeypatch):
    builder = library({"train": [example(0)]})

    def refuse(split):
        raise NotImplementedError("Random access data source for file format tfrecord is not supported. Causes:\n\t* a")

    monkeypatch.setattr(builder, "as_data_source", refuse)
    with pytest.raises(UserError, match=r"tfrecord is not supported.*prepare it as array_record"):
        list(source(tmp_path).items("train"))


def test_the_real_library_gives_what_the_stand_in_gives(tmp_path):
    real = pytest.importorskip("tensorflow_datasets")
    (tmp_path / "package").mkdir()

    class TinyRealSpeech(real.core.GeneratorBasedBuilder):
        # Arrays, not features.Audio: these need TensorFlow.
        pkg_dir_path = pytest.importorskip("etils.epath").Path(tmp_path / "package")
        VERSION = real.core.Version("1.0.0")

        def _info(self):
            features = {
                "audio": real.features.Tensor(shape=(None,), dtype=np.int64),
                "text": real.features.Text(),
                "label": real.features.ClassLabel(names=["yes", "no"]),
            }
            return self.dataset_info_from_configs(description="", features=real.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number in range(3):
                yield str(number), {"audio": tone(number), "text": f"héllo {number}", "label": number % 2}

    words = ("--feature=audio", f"--rate={RATE}", "--data-dir", tmp_path / "tfds")
    with pytest.raises(UserError, match="is not prepared"):
        source(tmp_path, *words, name="tiny_real_speech")
    opened = source(tmp_path, *words, "--download", name="tiny_real_speech")
    assert opened.splits() == ["train"]
    assert opened.official("train").utterances == 3
    found = {item.row["text"]: item for item in opened.items("train")}
    assert sorted(found) == ["héllo 0", "héllo 1", "héllo 2"]  # TFDS shuffles
    assert all(np.array_equal(read(found[f"héllo {n}"], "int16"), tone(n)) for n in range(3))
    again = source(tmp_path, *words, "--text=label", name="tiny_real_speech")
    assert sorted(item.row["text"] for item in again.items("train")) == ["no", "yes", "yes"]
    with pytest.raises(UserError, match="no_such_set not found"):
        source(tmp_path, *words, name="no_such_set")
