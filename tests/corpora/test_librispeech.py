"""LibriSpeech, from a miniature in its official layout: what is found, what is not, and where."""

import argparse
import os
import tarfile

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import librispeech
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data import record
from jaxspeech.errors import UserError

TEXTS = {
    "84-121123-0000": "GO DO YOU HEAR",
    "84-121123-0001": "BUT IN LESS THAN FIVE MINUTES THE STAIRCASE GROANED",
    "84-121550-0000": "BUT WITH FULL RAVISHMENT THE HOURS OF PRIME SINGING",
    "1272-128104-0000": "MISTER QUILTER IS THE APOSTLE OF THE MIDDLE CLASSES",
}


def tone(path, seconds=0.2, rate=16000, hertz=440):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    soundfile.write(path, wave.astype(np.float32), rate)


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "LibriSpeech"
    for name, text in TEXTS.items():
        speaker, chapter, _ = name.split("-")
        folder = root / "dev-clean" / speaker / chapter
        tone(folder / f"{name}.flac")
        with open(folder / f"{speaker}-{chapter}.trans.txt", "a") as file:
            file.write(f"{name} {text}\n")
    for name in ("README.TXT", "SPEAKERS.TXT", "CHAPTERS.TXT", "BOOKS.TXT", "LICENSE.TXT"):
        (root / name).write_text("; 84 | F | dev-clean | 8.02 | Christie Nowak\n")
    return root


def opened(*paths):
    return librispeech.source(argparse.Namespace(paths=[os.fspath(path) for path in paths]))


def test_every_utterance_is_found_with_its_text_and_speaker(corpus):
    source = opened(corpus)
    assert source.splits() == ["dev-clean"]
    items = list(source.items("dev-clean"))
    assert all(isinstance(item, Found) for item in items)
    assert {item.row["id"]: item.row["text"] for item in items} == TEXTS
    for item in items:
        record.check(item.row)
        assert item.row["speaker"] == item.row["id"].split("-")[0]
        assert os.path.isabs(item.row["audio"])
        assert soundfile.info(item.row["audio"]).duration == pytest.approx(0.2)
    assert items[0].where == "dev-clean/1272/128104/1272-128104.trans.txt:1"
    assert items == list(source.items("dev-clean"))


def test_the_split_alone_and_the_folder_above_are_understood_too(corpus):
    for path in (corpus / "dev-clean", corpus.parent):
        source = opened(path)
        assert source.splits() == ["dev-clean"]
        assert len(list(source.items("dev-clean"))) == len(TEXTS)


def test_a_plain_tar_is_read_in_place(corpus, tmp_path):
    from jaxspeech.data import audio

    archive = tmp_path / "dev-clean.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(corpus, "LibriSpeech")
    source = opened(archive)
    assert source.splits() == ["dev-clean"]
    items = list(source.items("dev-clean"))
    assert {item.row["id"]: item.row["text"] for item in items} == TEXTS
    assert items[-1].row["audio"] == f"{archive}#LibriSpeech/dev-clean/84/121550/84-121550-0000.flac"
    assert audio.probe(items[-1].row["audio"]) == (pytest.approx(0.2), 16000, 1)


def test_a_compressed_tar_is_refused_with_what_to_do(corpus, tmp_path):
    archive = tmp_path / "dev-clean.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(corpus, "LibriSpeech")
    with pytest.raises(UserError, match="unpack it and give the folder"):
        opened(archive)


def test_what_does_not_fit_is_rejected_and_stops_nothing(corpus):
    chapter = corpus / "dev-clean" / "84" / "121123"
    with open(chapter / "84-121123.trans.txt", "ab") as file:
        file.write(b"84-121123-0002 BAD \xff BYTES\nHELLO THERE\n84-121123-0003 NO SUCH FILE\n")
    tone(chapter / "84-121123-0009.flac")
    (corpus / "dev-clean" / "84" / "999").mkdir()
    tone(corpus / "dev-clean" / "84" / "999" / "84-999-0000.flac")
    items = list(opened(corpus).items("dev-clean"))
    bad = [(item.where, item.reason) for item in items if isinstance(item, Rejected)]
    assert bad == [
        ("dev-clean/84/121123/84-121123.trans.txt:3", "bad UTF-8"),
        ("dev-clean/84/121123/84-121123.trans.txt:4", "bad line"),
        ("dev-clean/84/121123/84-121123-0009.flac", "no transcript"),
        ("dev-clean/84/999/84-999-0000.flac", "no transcript"),
    ]
    assert [item.row["id"] for item in items if isinstance(item, Found)][-2:] == ["84-121123-0003", "84-121550-0000"]


def test_lines_of_windows_are_read(corpus):
    path = corpus / "dev-clean" / "84" / "121550" / "84-121550.trans.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    texts = {item.row["id"]: item.row["text"] for item in opened(corpus).items("dev-clean")}
    assert texts == TEXTS


def test_official_figures_sum_to_what_the_corpus_is_known_for():
    trained = [librispeech.OFFICIAL[name] for name in librispeech.OFFICIAL if name.startswith("train")]
    assert sum(part.hours for part in trained) == pytest.approx(960, abs=1.5)
    assert sum(part.utterances for part in trained) == 281241


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds none of train-clean-100"):
        opened(tmp_path).splits()
    with pytest.raises(UserError, match="does not exist"):
        opened(tmp_path / "nowhere")
    twice = tmp_path / "dev-clean"
    twice.mkdir()
    with pytest.raises(UserError, match="give one"):
        opened(twice, twice).splits()
