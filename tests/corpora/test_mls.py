"""Multilingual LibriSpeech: flac and opus, limited supervision, languages by the name of their folder."""

import argparse
import os
import tarfile

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import mls
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.data import record
from jaxspeech.errors import UserError

TEXTS = {
    "train": {
        "6892_10049_000000": "zaczęła się rozmowa o tym co działo się w polsce",
        "6892_10049_000001": 'i każdy z nich mówił "co chciał"',
        "2246_1990_000123": "nie było wiatru",
    },
    "dev": {"5809_9635_000000": "pan tadeusz wstał"},
    "test": {"8758_10217_000000": "żółw i zając"},
}


def build(root, ending):
    noise = np.random.default_rng(0).normal(0, 0.1, 3200).astype(np.float32)
    for split, texts in TEXTS.items():
        for name in texts:
            speaker, book, _ = name.split("_")
            path = root / split / "audio" / speaker / book / f"{name}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = {"format": "OGG", "subtype": "OPUS"} if ending == ".opus" else {}
            soundfile.write(path, noise, 16000, **kind)
        lines = [f"{name}\t{text}\n" for name, text in texts.items()]
        (root / split / "transcripts.txt").write_text("".join(lines), encoding="utf-8")
        segments = [f"{name}\thttp://archive.org/a.mp3\t10.5\t10.7\n" for name in texts]
        (root / split / "segments.txt").write_text("".join(segments))
    limited = root / "train" / "limited_supervision"
    names = list(TEXTS["train"])
    for folder, handles in {"9hr": names[:2], "1hr/0": names[:1], "1hr/1": names[2:]}.items():
        (limited / folder).mkdir(parents=True)
        (limited / folder / "handles.txt").write_text("".join(f"{name}\n" for name in handles))
    (root / "metainfo.txt").write_text(" SPEAKER | GENDER | PARTITION | MINUTES | BOOK ID | TITLE | CHAPTER\n")
    return root


@pytest.fixture(params=["mls_polish", "mls_polish_opus"])
def corpus(request, tmp_path):
    return build(tmp_path / request.param, ".opus" if request.param.endswith("opus") else ".flac")


def opened(path, limited=False):
    return mls.source(argparse.Namespace(path=str(path), limited=limited))


def test_every_utterance_is_found_in_flac_and_in_opus(corpus):
    source = opened(corpus)
    assert source.splits() == ["train", "dev", "test"]
    for split, texts in TEXTS.items():
        items = list(source.items(split))
        assert {item.row["id"]: item.row["text"] for item in items} == texts
        for item in items:
            record.check(item.row)
            assert soundfile.info(item.row["audio"]).duration == pytest.approx(0.2, abs=0.01)
            assert (item.row["speaker"], item.row["language"]) == (item.row["id"].split("_")[0], "pl")
    assert items[0].where == f"{corpus.name}/test/transcripts.txt:1"


def test_limited_supervision_takes_its_handles(corpus):
    source = opened(corpus, limited=True)
    assert source.splits() == ["train", "dev", "test", "train-9hr", "train-1hr"]
    names = list(TEXTS["train"])
    assert [item.row["id"] for item in source.items("train-9hr")] == names[:2]
    assert [item.row["id"] for item in source.items("train-1hr")] == [names[0], names[2]]
    (corpus / "train/limited_supervision/9hr/handles.txt").write_text("1_2_000003\n")
    (missing,) = source.items("train-9hr")
    assert missing.where.endswith("limited_supervision/9hr/handles.txt:1")
    assert missing.reason == "no transcript"
    (corpus / "train/limited_supervision/9hr/handles.txt").unlink()
    with pytest.raises(UserError, match="leave out --limited"):
        opened(corpus, limited=True).splits()


def test_official_figures_are_those_of_the_language(corpus):
    source = opened(corpus, limited=True)
    assert source.official("train") == Official(25043, 103.65)
    assert source.official("test") == Official(520, 2.14)
    assert source.official("train-9hr") == Official(2173, 9.0)
    other = corpus.rename(corpus.with_name("mls_klingon"))
    assert opened(other).official("train") is None
    assert "language" not in next(iter(opened(other).items("dev"))).row


def test_a_plain_tar_is_read_in_place(corpus, tmp_path):
    archive = tmp_path / f"{corpus.name}.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(corpus, corpus.name)
    items = list(opened(archive).items("train"))
    assert [item.row["id"] for item in items] == list(TEXTS["train"])
    assert items[0].row["audio"].startswith(f"{archive}#{corpus.name}/train/audio/6892/10049/")
    assert opened(archive).official("dev") == Official(512, 2.08)


def test_bad_lines_are_rejected_and_stop_nothing(corpus):
    with open(corpus / "dev" / "transcripts.txt", "ab") as file:
        file.write(b"no name\ttext\n5809_9635_000001\t\xff\n5809_9635_000002\tjest\n")
    items = list(opened(corpus).items("dev"))
    assert [item.reason for item in items if isinstance(item, Rejected)] == ["bad line", "bad UTF-8"]
    assert [item.row["id"] for item in items if isinstance(item, Found)] == ["5809_9635_000000", "5809_9635_000002"]


def test_several_languages_at_once_are_refused(corpus):
    build(corpus.with_name("mls_dutch"), ".flac")
    with pytest.raises(UserError, match="give the folder of one language"):
        opened(corpus.parent).splits()
    with pytest.raises(UserError, match=r"has no train/transcripts\.txt"):
        opened(corpus / "train" / "audio").splits()


def test_one_missing_file_says_nothing_of_the_others(corpus):
    names = list(TEXTS["train"])
    (lost,) = corpus.glob(f"train/audio/*/*/{names[0]}.*")
    lost.unlink()
    there = [item.row["id"] for item in opened(corpus).items("train") if os.path.exists(item.row["audio"])]
    assert there == names[1:]
