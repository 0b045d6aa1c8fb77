"""Common Voice: TSVs of several releases, whose quotes and new columns must do no harm."""

import argparse
import json
import tarfile

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import commonvoice
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.data import record
from jaxspeech.errors import UserError

VOTES = ["up_votes", "down_votes", "age", "gender", "accents", "variant", "locale", "segment"]
OLD = ["client_id", "path", "sentence", *VOTES]
NEW = ["client_id", "path", "sentence_id", "sentence", "sentence_domain", *VOTES]
SENTENCES = [
    '"Nothing is so good as it seems beforehand.',
    "Plain words follow.",
    'He said "yes", she said "no".',
    "It's an apostrophe, and a back\\slash.",
    '"A whole sentence in quotes."',
    "A line\u2028separator is no line end.",
]


def clip(number):
    return f"common_voice_en_{number}.mp3"


def write_tsv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(header)] + ["\t".join(str(row.get(key, "")) for key in header) for row in rows]
    path.write_bytes(("\n".join(lines) + "\n").encode())


def rows(numbers):
    return [
        {
            "client_id": f"{number:064x}",
            "path": clip(number),
            "sentence": SENTENCES[number % len(SENTENCES)],
            "sentence_id": f"s{number}",
            "sentence_domain": "general" if number == 1 else "",
            "up_votes": 2,
            "down_votes": 0,
            "gender": "female_feminine",
            "accents": "United States English,England English",
            "locale": "en",
        }
        for number in numbers
    ]


def release(root, header):
    folder = root / "en"
    numbers = {"train": range(6), "dev": [6], "test": [7], "validated": range(8), "other": [8], "invalidated": [9]}
    for split, those in numbers.items():
        write_tsv(folder / f"{split}.tsv", header, rows(those))
    write_tsv(folder / "reported.tsv", ["sentence", "sentence_id", "locale", "reason"], [])
    durations = [{"clip": clip(number), "duration[ms]": 216 + number} for number in range(10)]
    write_tsv(folder / "clip_durations.tsv", ["clip", "duration[ms]"], durations)
    (folder / "clips").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 6400).astype(np.float32)
    for number in range(10):
        soundfile.write(folder / "clips" / clip(number), noise, 32000, format="MP3")
    return root


@pytest.fixture(params=[("16.1-2023-12-06", OLD), ("25.0-2026-03-09", NEW)], ids=["16.1", "25.0"])
def corpus(request, tmp_path):
    return release(tmp_path / f"cv-corpus-{request.param[0]}", request.param[1])


def opened(path, **options):
    options = {"language": None, "also": [], "statistics": None} | options
    return commonvoice.source(argparse.Namespace(path=str(path), **options))


def test_a_quote_in_a_tsv_swallows_no_row(corpus):
    source = opened(corpus)
    assert source.splits() == ["train", "dev", "test"]
    items = list(source.items("train"))
    assert all(isinstance(item, Found) for item in items)
    assert [item.row["text"] for item in items] == SENTENCES
    assert [item.where for item in items] == [f"en/train.tsv:{number}" for number in range(2, 8)]


def test_rows_carry_speaker_language_duration_and_the_other_columns(corpus):
    item = list(opened(corpus).items("train"))[1]
    record.check(item.row)
    assert item.row["id"] == "common_voice_en_1"
    assert item.row["audio"] == str(corpus / "en" / "clips" / "common_voice_en_1.mp3")
    assert item.row["speaker"] == f"{1:064x}"
    assert item.row["language"] == "en"
    assert item.row["duration"] == 0.217
    assert (item.row["up_votes"], item.row["down_votes"]) == (2, 0)
    assert item.row["accents"] == "United States English,England English"
    assert "age" not in item.row
    assert ("sentence_domain" in item.row) == ("25.0" in str(corpus))


def test_other_lists_come_when_asked_for(corpus):
    source = opened(corpus / "en", also=["validated", "other"])
    assert source.splits() == ["train", "dev", "test", "validated", "other"]
    assert [item.row["id"] for item in source.items("other")] == ["common_voice_en_8"]
    (corpus / "en" / "invalidated.tsv").unlink()
    with pytest.raises(UserError, match=r"no invalidated\.tsv"):
        opened(corpus, also=["invalidated"]).splits()


def test_official_numbers_are_those_of_the_release(corpus, tmp_path):
    clips = {"16.1": 1090061, "25.0": 1147812}[corpus.name.split("-")[2]]
    assert opened(corpus).official("train") == Official(clips, None)
    assert opened(corpus).official("validated").hours == pytest.approx(2585.58 if clips == 1090061 else 2751.56)
    told = tmp_path / "cv-corpus-99.json"
    told.write_text(json.dumps({"locales": {"en": {"buckets": {"train": 6, "validated": 8}, "validHrs": 0.01}}}))
    source = opened(corpus, statistics=str(told))
    assert source.official("train") == Official(6, None)
    assert source.official("validated") == Official(8, 0.01)
    with pytest.raises(UserError, match="has no 'locales'"):
        opened(corpus, statistics=str(corpus / "en" / "train.tsv"))


def test_a_language_is_chosen_where_there_are_several(corpus):
    (corpus / "de").mkdir()
    (corpus / "de" / "train.tsv").write_bytes((corpus / "en" / "train.tsv").read_bytes())
    with pytest.raises(UserError, match="give --language, one of de, en"):
        opened(corpus).splits()
    assert opened(corpus, language="de").official("train") is None
    with pytest.raises(UserError, match="no language 'fr'"):
        opened(corpus, language="fr").splits()


def test_a_plain_tar_is_read_in_place(corpus, tmp_path):
    archive = tmp_path / f"{corpus.name}-en.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(corpus, corpus.name)
    source = opened(archive)
    items = list(source.items("train"))
    assert [item.row["text"] for item in items] == SENTENCES
    assert items[0].row["audio"] == f"{archive}#{corpus.name}/en/clips/common_voice_en_0.mp3"
    assert items[0].row["duration"] == 0.216
    assert source.official("train") == opened(corpus).official("train")


def test_bad_rows_are_rejected_and_stop_nothing(corpus):
    with open(corpus / "en" / "dev.tsv", "ab") as file:
        file.write(b"too\tfew\n\n" + b"\xff" + (corpus / "en" / "test.tsv").read_bytes().split(b"\n")[1] + b"\n")
        file.write((corpus / "en" / "test.tsv").read_bytes().split(b"\n")[1].replace(clip(7).encode(), b"") + b"\n")
    items = list(opened(corpus).items("dev"))
    assert isinstance(items[0], Found)
    assert [(item.where, item.reason) for item in items if isinstance(item, Rejected)] == [
        ("en/dev.tsv:3", "bad line"),
        ("en/dev.tsv:5", "bad UTF-8"),
        ("en/dev.tsv:6", "no audio"),
    ]


def test_a_tsv_without_its_columns_is_refused(tmp_path):
    write_tsv(tmp_path / "en" / "train.tsv", ["path", "text"], [{"path": clip(1), "text": "hello"}])
    with pytest.raises(UserError, match="no column 'sentence'"):
        list(opened(tmp_path).items("train"))
