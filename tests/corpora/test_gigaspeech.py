"""GigaSpeech: a JSON that is never held whole, stretches of long Opus files, tags that are no words."""

import argparse
import io
import json
import tracemalloc

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora import gigaspeech, json_stream
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data import audio, record
from jaxspeech.errors import UserError


def segment(name, begin, text, *subsets, **more):
    there = {"sid": name, "speaker": "N/A", "begin_time": begin, "end_time": begin + 0.2, "text_tn": text}
    return there | {"subsets": [f"{{{subset}}}" for subset in subsets]} | more


PODCAST = [
    segment("POD1_S1", 0.1, "FOUR O'CLOCK TOMORROW AFTERNOON <COMMA> SAID WILLIAMS <PERIOD>", "XL", "L", "XS"),
    segment("POD1_S2", 0.4, "REALLY <QUESTIONMARK> YES <EXCLAMATIONPOINT>", "XL", "L"),
    segment("POD1_S3", 0.5, "<MUSIC>", "DEV"),
    segment("POD1_S4", 0.6, "HE SAID <COMMA> UM <PERIOD>", "DEV", speaker="S7"),
]
YOUTUBE = [segment("YOU1_S1", 0.2, "AND <NOISE> THEN", "TEST"), segment("YOU1_S2", 0.3, "WELL", "XL")]


@pytest.fixture
def corpus(tmp_path):
    audios = []
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    for name, folder, segments in (("POD1", "podcast/P0001", PODCAST), ("YOU1", "youtube/Y0001", YOUTUBE)):
        path = tmp_path / "audio" / folder / f"{name}.opus"
        path.parent.mkdir(parents=True)
        soundfile.write(path, noise, 16000, format="OGG", subtype="OPUS")
        about = {"title": 'A "title", with ] and }', "url": "https://x", "aid": name, "md5": "", "format": "opus"}
        about |= {"path": f"audio/{folder}/{name}.opus", "sample_rate": 16000, "channels": 1, "duration": 1.0}
        audios.append(about | {"subsets": ["{XL}"], "segments": segments})
    whole = {"dataset": "GigaSpeech", "language": "EN", "version": "v1.0.0", "size": 1.5, "audios": audios}
    (tmp_path / "GigaSpeech.json").write_text(json.dumps(whole, indent=2))
    return tmp_path


def opened(path, subset="XL", punctuation="write"):
    return gigaspeech.source(argparse.Namespace(path=str(path), subset=subset, punctuation=punctuation))


def test_a_segment_is_a_stretch_of_its_recording(corpus):
    source = opened(corpus)
    assert source.splits() == ["XL", "DEV", "TEST"]
    first, second, third = source.items("XL")
    assert first.row == {
        "id": "POD1_S1",
        "audio": str(corpus / "audio/podcast/P0001/POD1.opus"),
        "offset": 0.1,
        "duration": 0.2,
        "text": "FOUR O'CLOCK TOMORROW AFTERNOON, SAID WILLIAMS.",
        "language": "en",
    }
    assert second.row["text"] == "REALLY? YES!"
    assert third.row["id"] == "YOU1_S2"
    assert first.where == "GigaSpeech.json:POD1_S1"
    record.check(first.row)
    assert len(audio.read(record.build(first.row, 0.2, "/"))) == 3200


def test_subsets_hold_their_own(corpus):
    source = opened(corpus, "XS")
    assert source.splits() == ["XS", "DEV", "TEST"]
    assert [item.row["id"] for item in source.items("XS")] == ["POD1_S1"]
    assert source.official("XS").hours == 10


def test_garbage_utterances_are_filtered(corpus):
    music, spoken = opened(corpus).items("DEV")
    assert (music.kind, music.reason, music.detail) == ("filtered", "garbage utterance", "<MUSIC>")
    assert (spoken.row["text"], spoken.row["speaker"]) == ("HE SAID, UM.", "S7")
    (mixed,) = opened(corpus).items("TEST")
    assert (mixed.kind, mixed.detail) == ("filtered", "<NOISE>")


def test_punctuation_is_removed_when_asked_for(corpus):
    texts = [item.row["text"] for item in opened(corpus, punctuation="remove").items("XL")]
    assert texts == ["FOUR O'CLOCK TOMORROW AFTERNOON SAID WILLIAMS", "REALLY YES", "WELL"]


def test_broken_segments_are_rejected_and_stop_nothing(corpus):
    path = corpus / "GigaSpeech.json"
    whole = json.loads(path.read_text())
    broken = segment("POD1_S8", 0.5, "BACKWARDS", "XL", end_time=0.4)
    without_text = segment("POD1_S10", 0.5, None, "XL")
    whole["audios"][0]["segments"][:0] = [broken, {"sid": "POD1_S9", "subsets": ["{XL}"]}, without_text]
    whole["audios"].insert(1, {"aid": "POD9"})
    path.write_text(json.dumps(whole))
    items = list(opened(corpus).items("XL"))
    assert [(item.where, item.reason) for item in items if isinstance(item, Rejected)] == [
        ("GigaSpeech.json:POD1_S8", "bad segment"),
        ("GigaSpeech.json:POD1_S9", "bad segment"),
        ("GigaSpeech.json:POD1_S10", "bad segment"),
        ("GigaSpeech.json", "bad recording"),
    ]
    assert sum(isinstance(item, Found) for item in items) == 3


def test_a_json_that_is_cut_off_is_an_error_of_one_line(corpus):
    path = corpus / "GigaSpeech.json"
    path.write_text(path.read_text()[:-200])
    with pytest.raises(UserError, match="cut off"):
        list(opened(corpus).items("XL"))
    path.write_text('{"dataset": "GigaSpeech"}')
    with pytest.raises(UserError, match="no list 'audios'"):
        list(opened(corpus).items("XL"))
    path.unlink()
    with pytest.raises(UserError, match=r"has no GigaSpeech\.json"):
        opened(corpus)


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_a_stream_gives_what_the_whole_file_holds(monkeypatch, block, indent):
    monkeypatch.setattr(json_stream, "_BLOCK", block)
    values = [0, 12, -1.5e3, 'a"]}\\', "日本", None, True, [], {}, [{"audios": [1, 2]}], {"x": {"y": "}"}}, 123456]
    whole = {"first": {"audios": [9]}, "n": 17, "audios": values, "after": 1}
    text = json.dumps(whole, indent=indent, ensure_ascii=False)
    assert list(json_stream.elements(io.StringIO(text), "audios")) == values
    assert list(json_stream.elements(io.StringIO(json.dumps({"audios": []})), "audios")) == []
    for wrong in ("", "[]", "{}", '{"audios": 3}', '{"audios": [1 2]}', '{"audios": [1,'):
        with pytest.raises(ValueError, match=r"JSON|list"):
            list(json_stream.elements(io.StringIO(wrong), "audios"))


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "long.json"
    with open(path, "w") as file:
        file.write('{"audios": [' + ",".join([json.dumps({"segments": ["x" * 1000] * 100})] * 400) + "]}")
    tracemalloc.start()
    with open(path) as file:
        assert sum(1 for _ in json_stream.elements(file, "audios")) == 400
    assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 1.5
    tracemalloc.stop()


def test_what_is_no_json_is_not_read_to_its_end():
    class Endless(io.StringIO):
        def read(self, size=-1):
            return super().read(size) or "[1, 2], " * (size // 8)

    with pytest.raises(ValueError, match="not valid JSON"):
        list(json_stream.elements(Endless('{"audios": [{"a": 1 2},'), "audios"))
