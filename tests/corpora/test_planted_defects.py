"""25 planted defects: each is found and named with file and line, none stops the rest, every good utterance is kept."""

import argparse
import dataclasses
import json
import os
import pathlib
from typing import Any

import pytest
from corpora import planted

from jaxspeech.cleaning import filter as filters
from jaxspeech.cleaning import leaks
from jaxspeech.corpora import jsonl, table
from jaxspeech.corpora.preparation import prepare
from jaxspeech.data.manifest import Manifest

PREPARED = planted.IN_HEADERS | planted.IN_SAMPLES
PROBLEMS = len(PREPARED) + len(planted.IN_OTHER_LINES) - 1 + len(planted.IN_TABLES)  # swapped texts are two lines


def arguments(module: Any, *words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(list(map(str, words)))


def rejected(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Place → entry of a list of rejects."""
    entries = map(json.loads, path.read_text("utf-8").splitlines())
    return {entry["where"]: entry for entry in entries}


def prepare_jsonl(file: pathlib.Path, out: pathlib.Path, *words: str) -> dict[str, Any]:
    args = arguments(jsonl, file, *words)
    args.out = str(out)  # the engine adds this flag
    return prepare(jsonl.source(args), out, decode=True, processes=1)


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """What three commands, one after the other, made of the corpus."""

    corpus: planted.Planted
    out: pathlib.Path
    prepared: dict[str, Any]
    without_leaks: dict[str, Any]
    filtered: dict[str, Any]

    def reads_everything(self) -> bool:
        """Whether no file can be forbidden to whoever runs the tests, as to root."""
        return os.access(self.corpus.folder / "audio/no-read-permission.wav", os.R_OK)


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory) -> Cleaned:
    corpus = planted.plant(tmp_path_factory.mktemp("planted"))
    out = tmp_path_factory.mktemp("out")
    prepared = prepare_jsonl(corpus.manifest, out)
    words = (out / "train.jsonl", "--against", corpus.test, "--audio", "--out", out / "unseen.jsonl")
    without_leaks = leaks.run(arguments(leaks, *words, "--processes=1"))
    words = (out / "unseen.jsonl", "--out", out / "clean.jsonl", "--language=en", "--max-distance=0.4")
    filtered = filters.run(arguments(filters, *words, "--processes=1"))
    return Cleaned(corpus, out, prepared, without_leaks, filtered)


def test_the_list_is_whole():
    assert PROBLEMS == 25
    assert planted.GOOD >= 60


@pytest.mark.parametrize("defect", PREPARED)
def test_preparing_names_the_defect_with_its_file_and_line(cleaned, defect):
    if defect == "no read permission" and cleaned.reads_everything():
        pytest.skip("root may read everything, so there is no such file")
    corpus = cleaned.corpus
    found = rejected(cleaned.out / "train.rejected.jsonl")
    entry = found[f"{corpus.manifest}:{corpus.lines[defect]}"]
    assert entry["reason"] == PREPARED[defect]
    assert entry["detail"] or defect == "empty text"


@pytest.mark.parametrize("defect", planted.IN_OTHER_LINES)
def test_comparing_lines_names_the_defect_with_its_file_and_line(cleaned, defect):
    read, rejects = ("train", "unseen") if defect.startswith("leak") else ("unseen", "clean")
    name = cleaned.corpus.ids[defect]
    rows = map(json.loads, (cleaned.out / f"{read}.jsonl").read_text("utf-8").splitlines())
    (line,) = (number for number, row in enumerate(rows, start=1) if row["id"] == name)
    entry = rejected(cleaned.out / f"{rejects}.rejected.jsonl")[f"{read}.jsonl:{line}"]
    assert (entry["id"], entry["reason"]) == (name, planted.IN_OTHER_LINES[defect])
    if defect.startswith("leak"):
        assert entry["detail"] == "as test.jsonl:6"


def test_nothing_but_the_defects_is_left_out_and_no_good_utterance_is_lost(cleaned):
    allowed = ["no-read-permission"] if cleaned.reads_everything() else []
    lines = (cleaned.out / "clean.jsonl").read_text("utf-8").splitlines()
    kept = [row for row in map(json.loads, lines) if row["id"] not in allowed]
    keys = ("id", "audio", "text", "pseudo")
    assert [[row[key] for key in keys] for row in kept] == [[row[key] for key in keys] for row in cleaned.corpus.good]
    assert len(Manifest.open(cleaned.out / "clean.jsonl")) == planted.GOOD + len(allowed)
    assert len(rejected(cleaned.out / "train.rejected.jsonl")) == len(PREPARED) - len(allowed)


def test_totals_add_up_at_every_step(cleaned):
    steps = [cleaned.prepared, cleaned.without_leaks, cleaned.filtered]
    for found in (*steps, *cleaned.prepared["splits"].values()):
        assert found["read"] == found["kept"] + sum(found["filtered"].values()) + sum(found["failed"].values())
    assert steps[0]["read"] == planted.GOOD + len(PREPARED) + len(planted.IN_OTHER_LINES)
    assert [found["read"] for found in steps[1:]] == [found["kept"] for found in steps[:-1]]
    assert cleaned.without_leaks["filtered"] == {"same audio": 1}
    assert cleaned.filtered["filtered"] == {"another script": 1, "swapped text": 2}
    for found in steps:
        assert json.loads(json.dumps(found)) == found


def test_cleaning_what_nobody_has_prepared_stops_at_nothing_either(cleaned, tmp_path):
    corpus = cleaned.corpus
    words = (corpus.manifest, "--out", tmp_path / "clean.jsonl", "--drop-empty", "--duplicates=text", "--language=en")
    found = filters.run(arguments(filters, *words, "--max-distance=0.4", "--max-seconds=3600", "--processes=1"))
    words = (corpus.manifest, "--against", corpus.test, "--audio", "--out", tmp_path / "unseen.jsonl", "--processes=1")
    for one in (found, leaks.run(arguments(leaks, *words))):
        assert one["read"] == cleaned.prepared["read"]
        assert one["read"] == one["kept"] + sum(one["filtered"].values()) + sum(one["failed"].values())
        assert one["failed"]["bad line"] == 2
    for name in ("clean", "unseen"):
        kept = {json.loads(line)["id"] for line in (tmp_path / f"{name}.jsonl").read_text("utf-8").splitlines()}
        assert {row["id"] for row in corpus.good} <= kept
    reasons = {entry["reason"] for entry in rejected(tmp_path / "clean.rejected.jsonl").values()}
    assert {"swapped text", "another script", "no text", "too long", "duplicate id", "missing file"} <= reasons


def test_audio_that_moved_is_named_by_the_folder_that_is_gone_and_found_where_it_is(cleaned, tmp_path):
    corpus = cleaned.corpus
    line = corpus.lines["absolute path that moved"]
    gone = corpus.folder / planted.OLD
    detail = rejected(cleaned.out / "train.rejected.jsonl")[f"{corpus.manifest}:{line}"]["detail"]
    assert f"there is no folder {gone}; was it moved" in detail
    found = prepare_jsonl(corpus.manifest, tmp_path, f"--moved={gone}={corpus.folder}")
    assert found["kept"] == cleaned.prepared["kept"] + 1
    assert corpus.ids["absolute path that moved"] in (tmp_path / "train.jsonl").read_text("utf-8")


def test_marks_line_ends_and_quotes_of_a_table_are_named_and_swallow_no_row(cleaned, tmp_path):
    corpus = cleaned.corpus
    args = arguments(table, corpus.table, "--audio=path", "--text=sentence")
    found = prepare(table.source(args), tmp_path, decode=True, processes=1)
    assert (found["read"], found["kept"], found["filtered"], found["failed"]) == (planted.GOOD, planted.GOOD, {}, {})
    rows = [json.loads(row) for row in (tmp_path / "clips.jsonl").read_text("utf-8").splitlines()]
    assert [row["text"] for row in rows] == corpus.table_texts
    assert [row["audio"] for row in rows] == [row["audio"] for row in corpus.good]
    counts = {"BOM": 1, "CRLF": planted.GOOD + 1, "quote in TSV": 2}
    assert found["notes"] == {
        f"{phrase} in {corpus.table}, first in line {corpus.lines[defect]}": counts[defect]
        for defect, phrase in planted.IN_TABLES.items()
    }
