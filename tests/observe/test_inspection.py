import argparse
import json
import math
import pathlib
import re

import numpy as np
import pytest
import soundfile

from jaxspeech.data.rows import Row
from jaxspeech.errors import UserError
from jaxspeech.observe import inspection
from jaxspeech.observe import inspection_audio as sound
from jaxspeech.observe.inspection_suspects import Finding, worst

RATE = 16000


def tone(seconds, level=0.1, frequencies=(1900.0, 6100.0)):
    """Tones with a pause before and after them, a quarter of the whole each, in faint noise."""
    time = np.arange(round(seconds * RATE)) / RATE
    inside = (time > seconds / 4) & (time < 3 * seconds / 4)
    waves = sum(np.sin(2 * math.pi * frequency * time) for frequency in frequencies) / len(frequencies)
    return level * waves * inside + 1e-4 * np.random.default_rng(0).normal(size=len(time))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Sixty plain utterances by three speakers, and one of each defect."""
    tmp_path = tmp_path_factory.mktemp("inspect")
    lines = []

    def add(name, samples, text="so it was said", **extra):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
        seconds = len(samples) / RATE
        lines.append({"id": name, "audio": f"{name}.wav", "text": text, "duration": seconds, **extra})

    for i in range(60):
        add(f"plain{i}", tone(1 + 0.01 * i), speaker=f"s{i % 3}", language="en")
    add("clipped", np.clip(tone(1, 2.0, [440.0]), -0.5, 0.5))
    add("silent", np.zeros(RATE))
    add("half", np.stack([tone(1), np.zeros(RATE)], 1))
    add("fast", tone(1), text="many words " * 20)
    add("foreign", tone(1), text="Так было сказано")
    add("trailing", np.concatenate([tone(1), np.zeros(4 * RATE)]))
    add("gone", tone(1))
    (tmp_path / "gone.wav").unlink()
    content = "".join(json.dumps(line) + "\n" for line in lines) + '{"id": "bad"\n'
    path = tmp_path / "set.jsonl"
    path.write_text(content + json.dumps({"id": "x", "audio": "nothing.wav", "text": "x"}) + "\n")
    return path


def run(*words):
    parser = argparse.ArgumentParser()
    inspection.add_arguments(parser)
    return inspection.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def found(manifest, tmp_path_factory):
    """What the command returns for it, by two processes."""
    return run(manifest, "--processes=2", "--out", tmp_path_factory.mktemp("page") / "deep" / "page.html")


def test_every_defect_is_named_and_totals_add_up(found):
    assert found["read"] == 69 == found["kept"] + sum(found["failed"].values())
    assert found["failed"] == {"bad line": 1, "missing file": 1}  # the audio of "x" is asked for its duration
    why = {entry["id"]: " ".join(entry["why"]) for entry in found["suspicious"]}
    expected = {
        "clipped": "clipped",
        "silent": "is silent",
        "half": "one of 2 channels is silent",
        "fast": "characters a second",
        "foreign": "Cyrillic",
        "trailing": "of pause at the end",
        "gone": "missing file",
    }
    assert {name for name, words in expected.items() if words in why.get(name, "")} == set(expected)
    assert not any(name.startswith("plain") for name in why)
    assert sum(found["hours_by"]["speaker"].values()) == pytest.approx(found["hours"], abs=1e-5)
    assert found["files"]["16 kHz mono"] == 65


def test_the_page_is_one_file_that_loads_nothing(found):
    page = pathlib.Path(found["page"]).read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert not re.search(r"url\((?!#)", page)
    assert page.count('class="utterance"') == 20 + len(found["suspicious"])
    assert page.count("<audio") == page.count('class="utterance"') - page.count("<b>gone</b>")
    assert page.count("data:image/png") == page.count("<audio")
    assert "Moonshine paper" in page


def test_the_table_says_what_the_page_says_and_one_process_the_same_as_two(manifest, found):
    here = inspection.inspect([inspection.Rows(manifest)], processes=1)
    told = inspection.summary(here)
    assert told == {key: found[key] for key in told}
    table = inspection.table(here)
    assert "67 utterances" in table
    assert "set.jsonl:64 fast:" in table
    assert re.search(r"characters a second +\S+ +\S+ +\S+ +\S+ +219.0", table)


def test_no_sample_decodes_nothing_and_tokens_are_counted_by_the_tokenizer_given(manifest):
    bare = inspection.inspect([inspection.Rows(manifest)], "characters:abcdefghijklmnopqrstuvwxyz ", 0)
    assert (bare.heard, bare.random, bare.suspicious) == ([], [], [])
    quantiles = inspection.summary(bare)["numbers"]
    assert quantiles["tokens a second"]["most"] == pytest.approx(220, abs=1)
    assert "peak (dB)" not in quantiles


def test_a_sample_below_zero_is_refused(manifest):
    with pytest.raises(UserError, match="--sample -1"):
        run(manifest, "--sample=-1")


def test_flat_tops_are_clipping_at_any_level_and_peaks_of_waves_are_not():
    wave = np.sin(np.arange(RATE) * 0.2)
    assert sound.flat_share(0.3 * wave) < 1e-3
    assert sound.flat_share(0.3 * np.clip(3 * wave, -1, 1)) > 0.3
    assert sound.flat_share(np.zeros(100)) == 0


def test_levels_are_in_decibels_of_full_scale(tmp_path):
    soundfile.write(tmp_path / "one.wav", tone(2, 0.1, [1900.0]), RATE)
    row = {"id": "1", "audio": str(tmp_path / "one.wav"), "text": "", "duration": 2.0}
    heard = sound.hear(Row(0, "here", row))
    assert heard.peak == pytest.approx(-20, abs=0.2)
    assert heard.level == pytest.approx(-23, abs=0.5)  # a sine is 3 dB under its peak
    assert heard.silence == pytest.approx(0.5, abs=0.06)
    assert heard.lead == pytest.approx(0.5, abs=0.06)
    assert heard.above_floor > 40


def test_a_tone_is_a_line_at_its_height():
    picture = sound.spectrogram(np.sin(2 * math.pi * 2000 * np.arange(2 * RATE) / RATE), RATE)
    assert picture.shape == (96, 560)
    assert abs(int(np.argmax(picture[:, 200])) - 72) <= 1  # 2 of 8 kHz, from the bottom


def test_long_audio_is_not_decoded_whole(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "long.wav", np.zeros(400 * 8000), 8000)
    (tmp_path / "one.jsonl").write_text(json.dumps({"id": "1", "audio": "long.wav", "text": "x", "duration": 400.0}))
    asked = []
    read = sound.audio.read_segment
    monkeypatch.setattr(sound.audio, "read_segment", lambda segment, rate: asked.append(segment) or read(segment, rate))
    sound.hear(inspection.Rows(tmp_path / "one.jsonl")[0])
    shown = sound.show(inspection.Rows(tmp_path / "one.jsonl")[0], 1 << 20)
    assert [segment.duration for segment in asked] == [300.0, 20.0]
    assert not shown["whole"]


def test_one_kind_that_is_everywhere_leaves_room_for_the_others():
    findings = [Finding(i, "quiet", float(i), "q") for i in range(50)] + [Finding(99, "rare script", 1.0, "r")]
    chosen = worst(findings, 3)
    assert [index for index, _ in chosen] == [49, 99, 48]
