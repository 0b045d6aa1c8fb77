"""CoVoST 2: translations beside the clips of Common Voice, from the download and from the splits made of it."""

import argparse
import csv

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import covost
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.data import record
from jaxspeech.errors import UserError

ROWS = [  # clip, sentence, translation, split
    ("common_voice_fr_1.mp3", '"C\'est "la" vie.', "That's life.", "train"),
    ("common_voice_fr_2.mp3", "Un antislash \\ ici.", 'He said "hello".', "train_covost"),
    ("common_voice_fr_3.mp3", "Bonjour.", "Hello.", "dev"),
    ("common_voice_fr_4.mp3", "Bonsoir.", "Good evening.", "dev_covost"),
    ("common_voice_fr_5.mp3", "Merci.", "Thank you.", "test"),
]


def write(path, header, rows):
    """As pandas writes them: no quotes, a backslash before what would need them."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, escapechar="\\")
        writer.writerows([header, *rows])


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "cv-corpus-4-2019-12-10" / "fr"
    (folder / "clips").mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, 6400).astype(np.float32)
    for clip, *_ in ROWS:
        soundfile.write(folder / "clips" / clip, noise, 32000, format="MP3")
    validated = [(f"speaker{clip[-5]}", clip, text, "2", "0") for clip, text, *_ in ROWS]
    validated.append(("speaker9", "common_voice_fr_9.mp3", "Sans traduction.", "2", "0"))
    write(folder / "validated.tsv", ["client_id", "path", "sentence", "up_votes", "down_votes"], validated)
    downloaded = [(clip, translation, split) for clip, _, translation, split in ROWS]
    write(folder / "covost_v2.fr_en.tsv", ["path", "translation", "split"], downloaded)
    return folder


def opened(path, translations=None, pair=None):
    return covost.source(argparse.Namespace(path=str(path), translations=translations and str(translations), pair=pair))


def test_translations_are_joined_with_their_clips(corpus):
    source = opened(corpus.parent, corpus)
    assert source.splits() == ["train", "dev", "test"]
    train = list(source.items("train"))
    assert [item.row["text"] for item in train] == [ROWS[0][1], ROWS[1][1]]
    assert [item.row["translation"] for item in train] == ["That's life.", 'He said "hello".']
    for item in train:
        record.check(item.row)
        assert soundfile.info(item.row["audio"]).samplerate == 32000
    assert train[0].row["id"] == "common_voice_fr_1"
    assert train[0].row["speaker"] == "speaker1"
    assert (train[0].row["language"], train[0].row["translation_language"]) == ("fr", "en")
    assert train[0].where == "fr/validated.tsv:2"
    assert [item.row["id"] for item in source.items("dev")] == ["common_voice_fr_3"]


def test_splits_made_by_the_published_script_give_the_same(corpus, tmp_path):
    joined = {split: [item.row for item in opened(corpus).items(split)] for split in covost.SPLITS}
    elsewhere = tmp_path / "covost"
    elsewhere.mkdir()
    for split in covost.SPLITS:
        names = (split, f"{split}_covost") if split == "train" else (split,)
        rows = [(clip, text, target, f"speaker{clip[-5]}") for clip, text, target, kind in ROWS if kind in names]
        path = elsewhere / f"covost_v2.fr_en.{split}.tsv"
        write(path, ["path", "sentence", "translation", "client_id"], rows)
    source = opened(corpus, elsewhere)
    assert source.splits() == ["train", "dev", "test"]
    assert {split: [item.row for item in source.items(split)] for split in covost.SPLITS} == joined
    assert next(iter(source.items("dev"))).where == "covost/covost_v2.fr_en.dev.tsv:2"


def test_what_does_not_fit_is_rejected_and_stops_nothing(corpus):
    with open(corpus / "covost_v2.fr_en.tsv", "a") as file:
        file.write("common_voice_fr_77.mp3\tNowhere.\ttest\nhalf a line\n")
    with open(corpus / "covost_v2.fr_en.tsv", "a") as file:
        file.write("common_voice_fr_9.mp3\t \ttest\n")
    source = opened(corpus)
    items = list(source.items("test"))
    assert [item.reason for item in items if isinstance(item, Rejected)] == ["no translation", "no transcript"]
    assert [item.row["id"] for item in items if isinstance(item, Found)] == ["common_voice_fr_5"]
    first = next(iter(source.items("train")))
    assert (first.where, first.reason) == ("fr/covost_v2.fr_en.tsv:8", "bad line")


def test_pairs_and_files_that_are_not_there_are_explained(corpus, tmp_path):
    with pytest.raises(UserError, match="no translations fr_de; give --pair, one of fr_en"):
        opened(corpus, pair="fr_de")
    (corpus / "covost_v2.fr_de.tsv").write_bytes(b"path\ttranslation\tsplit\n")
    with pytest.raises(UserError, match="several pairs"):
        opened(corpus)
    (tmp_path / "covost_v2.fr_en.tsv.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"unpack the \.tar\.gz there"):
        opened(corpus, tmp_path)
    (corpus / "validated.tsv").unlink()
    with pytest.raises(UserError, match=r"train\.tsv or validated\.tsv"):
        opened(corpus, pair="fr_en")


def test_official_numbers_are_those_of_the_pair(corpus):
    assert opened(corpus).official("train") == Official(207374)
    assert opened(corpus).official("test") == Official(14760)


def test_a_carriage_return_within_a_line_costs_that_line_alone(corpus):
    table = corpus / "covost_v2.fr_en.tsv"
    table.write_text(table.read_text().replace("Hello.", "Hel\rlo."), newline="")
    found = [item for split in covost.SPLITS for item in opened(corpus).items(split)]
    assert "bad line" in {item.reason for item in found if isinstance(item, Rejected)}
    assert sum(isinstance(item, Found) for item in found) == 3
