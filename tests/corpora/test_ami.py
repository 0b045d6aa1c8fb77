"""AMI: utterances from segments that span words, on headsets and on arrays, in the official division of meetings."""

import argparse
import zipfile

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import ami
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data import audio, record
from jaxspeech.errors import UserError

HEAD = '<?xml version="1.0" encoding="ISO-8859-1" standalone="yes"?>\n'
SPACE = 'xmlns:nite="http://nite.sourceforge.net/"'
MANUAL = "ami_public_manual_1.6.2"
WORDS = [
    '<w nite:id="{m}.A.words0" starttime="0.10" endtime="0.30">Okay</w>',
    '<w nite:id="{m}.A.words1" starttime="0.30" endtime="0.30" punc="true">.</w>',
    '<vocalsound nite:id="{m}.A.words2" starttime="0.30" endtime="0.40" type="laugh"/>',
    '<w nite:id="{m}.A.words3" starttime="0.45" endtime="0.60">It\'s</w>',
    '<w nite:id="{m}.A.words4" starttime="0.60" endtime="0.65" trunc="true">th</w>',
    '<w nite:id="{m}.A.words5">the</w>',
    '<w nite:id="{m}.A.words6" starttime="0.70" endtime="0.90">T_V_</w>',
    '<w nite:id="{m}.A.words7" starttime="0.90" endtime="0.90" punc="true">,</w>',
    '<w nite:id="{m}.A.words8" starttime="0.90" endtime="1.05">caf\xe9</w>',
]


def words(first, last):
    ends = [f"id({{m}}.A.words{place})" for place in (first, last)]
    return f'<nite:child href="{{m}}.A.words.xml#{ends[0]}' + (f"..{ends[1]}" if first != last else "") + '"/>'


def segment(number, begin, end, first, last):
    times = f'transcriber_start="{begin}" transcriber_end="{end}"'
    return f'<segment nite:id="{{m}}.sync.{number}" channel="1" {times}>{words(first, last)}</segment>'


SEGMENTS = [segment(1, 0.05, 0.4, 0, 1), segment(2, 0.3, 0.4, 2, 2), segment(3, 0.5, "1.0", 3, 8)]


def meeting(root, name):
    for folder in ("words", "segments"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder, parts in (("words", WORDS), ("segments", SEGMENTS)):
        body = "\n".join(parts).replace("{m}", name)
        text = f'{HEAD}<nite:root nite:id="{name}.A.{folder}" {SPACE}>\n{body}\n</nite:root>\n'
        (root / folder / f"{name}.A.{folder}.xml").write_bytes(text.encode("iso-8859-1"))
    return (
        f'<meeting nite:id="m_{name}" observation="{name}" type="scenario"><speaker nite:id="s_{name}" nxt_agent="A" '
        + ('global_name="MEE006" camera="Closeup1" channel="1" role="PM"/></meeting>')
    )


@pytest.fixture
def corpus(tmp_path):
    manual = tmp_path / MANUAL
    meetings = [meeting(manual, name) for name in ("ES2002a", "ES2011b", "EN2002c", "ES2003a")]
    (manual / "corpusResources").mkdir()
    text = f"{HEAD}<nite:root {SPACE}>\n" + "\n".join(meetings) + "\n</nite:root>\n"
    (manual / "corpusResources" / "meetings.xml").write_text(text)
    noise = np.random.default_rng(0).normal(0, 0.1, 24000).astype(np.float32)
    for name in ("ES2002a", "ES2011b", "ES2003a"):
        folder = tmp_path / "amicorpus" / name / "audio"
        folder.mkdir(parents=True)
        for microphone in ("Headset-0", "Headset-1", "Array1-01", "Mix-Headset"):
            soundfile.write(folder / f"{name}.{microphone}.wav", noise, 16000)
    return tmp_path / "amicorpus"


def opened(path, **options):
    options = {"annotations": None, "microphone": "headset", "partition": "full-corpus-asr"} | options
    return ami.source(argparse.Namespace(path=str(path), **({"no_punctuation": False} | options)))


def test_a_segment_becomes_an_utterance_with_its_words(corpus):
    source = opened(corpus)
    assert source.splits() == ["train", "dev", "test"]
    first, laughter, third = [item for item in source.items("train") if "ES2002a" in item.where]
    assert first.where == "segments/ES2002a.A.segments.xml:ES2002a.sync.1"
    assert first.row["id"] == "ES2002a.A.0001"
    assert (first.row["text"], first.row["words"]) == ("Okay.", [["Okay.", pytest.approx(0.05), pytest.approx(0.25)]])
    assert (first.row["offset"], first.row["duration"]) == (0.05, pytest.approx(0.35))
    assert (first.row["speaker"], first.row["language"]) == ("MEE006", "en")
    assert (laughter.kind, laughter.reason) == ("filtered", "no words")
    # A word before and one behind the transcriber's marks widen it; one without times is in the text alone.
    assert third.row["text"] == "It's th- the TV, café"
    assert (third.row["offset"], third.row["duration"]) == (0.45, pytest.approx(0.6))
    assert [word for word, *_ in third.row["words"]] == ["It's", "th-", "TV,", "café"]
    record.check(third.row)
    assert len(audio.read(record.build(third.row, third.row["duration"], "/"))) == 9600


def test_microphones_are_files_of_the_same_utterances(corpus):
    for microphone, file in (
        ("headset", "Headset-1"),
        ("array", "Array1-01"),
        ("mix", "Mix-Headset"),
        ("Array2-03", "Array2-03"),
    ):
        item = next(iter(opened(corpus, microphone=microphone).items("train")))
        assert item.row["audio"] == str(corpus / "ES2002a" / "audio" / f"ES2002a.{file}.wav")
    with pytest.raises(UserError, match="none of AMI"):
        opened(corpus, microphone="Array3-01")


def test_partitions_divide_the_meetings(corpus):
    def meetings(partition, split):
        items = opened(corpus, partition=partition).items(split)
        return {item.row["id"].split(".")[0] for item in items if isinstance(item, Found)}

    assert meetings("full-corpus-asr", "train") == {"ES2002a", "ES2003a"}
    assert meetings("scenario-only", "train") == {"ES2002a"}
    assert meetings("scenario-only", "dev") == {"ES2003a", "ES2011b"}
    assert meetings("full-corpus-asr", "dev") == {"ES2011b"}
    for parts in ami.PARTITIONS.values():
        train, dev, test = parts.values()
        assert not train & dev
        assert not train & test
        assert not dev & test
    assert sum(len(part) for part in ami.PARTITIONS["scenario-only"].values()) == 35


def test_meetings_that_were_not_fetched_are_filtered(corpus):
    items = list(opened(corpus).items("test"))
    assert [(item.kind, item.reason) for item in items] == [
        ("filtered", "meeting not downloaded"),
        ("filtered", "no words"),
        ("filtered", "meeting not downloaded"),
    ]


def test_annotations_are_read_from_their_zip(corpus):
    unpacked = list(opened(corpus).items("train"))
    archive = corpus.parent / f"{MANUAL}.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted((corpus.parent / MANUAL).rglob("*.xml")):
            packed.write(path, path.relative_to(corpus.parent / MANUAL))
    (corpus.parent / MANUAL).rename(corpus.parent / "elsewhere")
    assert list(opened(corpus).items("train")) == unpacked
    assert list(opened(corpus, annotations=str(archive)).items("train")) == unpacked
    archive.unlink()
    with pytest.raises(UserError, match="give --annotations"):
        opened(corpus)
    assert list(opened(corpus, annotations=str(corpus.parent / "elsewhere")).items("train")) == unpacked


def test_punctuation_is_left_out_when_asked_for(corpus):
    texts = [item.row["text"] for item in opened(corpus, no_punctuation=True).items("dev") if isinstance(item, Found)]
    assert texts == ["Okay", "It's th the TV café"]


def test_broken_annotations_are_rejected_and_stop_nothing(corpus):
    manual = corpus.parent / MANUAL
    (manual / "words" / "ES2002a.A.words.xml").write_text("<nite:root")
    segments = manual / "segments" / "ES2003a.A.segments.xml"
    segments.write_text(segments.read_text().replace("words0)", "words99)").replace('transcriber_end="1.0"', ""))
    items = list(opened(corpus).items("train"))
    assert [(item.where, item.reason) for item in items if isinstance(item, Rejected)] == [
        ("segments/ES2002a.A.segments.xml", "bad annotation"),
        ("segments/ES2003a.A.segments.xml:ES2003a.sync.1", "bad segment"),
        ("segments/ES2003a.A.segments.xml:ES2003a.sync.2", "no words"),
        ("segments/ES2003a.A.segments.xml:ES2003a.sync.3", "bad segment"),
    ]
