"""Long recordings cut at their silences: sounds with pauses whose places are known."""

import itertools

import numpy as np
import pytest
import soundfile

from jaxspeech.cleaning import pauses
from jaxspeech.cleaning.split import Asked, between, divide, parts
from jaxspeech.data import audio
from jaxspeech.data.manifest import Manifest
from jaxspeech.data.record import Segment
from jaxspeech.data.rows import Row
from jaxspeech.errors import UserError

# 95 s: (start, end) of silences; 7 s of it must be left out, the rest may be cut in.
PAUSES = [(8.0, 8.5), (21.0, 21.4), (27.5, 28.5), (40.0, 47.0), (60.0, 60.6), (74.0, 74.1), (81.0, 81.7)]
TOTAL = 95.0


def talk(folder, name="talk.wav", pauses=PAUSES, seconds=TOTAL, **extra):
    folder.sound(name, seconds, pauses=pauses)
    return {"id": name.split(".")[0], "audio": name, "text": "", "duration": seconds, **extra}


def spans(rows):
    return [(row["offset"], round(row["offset"] + row["duration"], 6)) for row in rows]


def split(folder, rows, *words):
    return folder.run("split", folder.manifest("all.jsonl", rows), "--out", folder.path / "out.jsonl", *words)


def test_cuts_lie_in_pauses_and_the_pieces_hold_all_sound(folder):
    found = split(folder, [talk(folder)], "--processes=1")
    rows = folder.rows("out.jsonl")
    assert (found["lines"], found["divided"], found["cuts_elsewhere"]) == (1, 1, 0)
    assert all(row["audio"] == "talk.wav" and row["text"] == "" for row in rows)
    assert [row["id"] for row in rows] == [f"talk-{n:04d}" for n in range(len(rows))]
    pieces = spans(rows)
    assert max(stop - start for start, stop in pieces) <= 30
    assert pieces[0][0] == 0
    assert pieces[-1][1] == TOTAL
    for (_, before), (after, _) in itertools.pairwise(pieces):
        assert any(start + 0.05 < before <= after < stop - 0.05 for start, stop in PAUSES), (before, after)
    sounds = [(0.0, PAUSES[0][0]), *((a[1], b[0]) for a, b in itertools.pairwise(PAUSES)), (PAUSES[-1][1], TOTAL)]
    for start, stop in sounds:  # each is whole in one piece, with what is beside it
        assert any(first <= start and stop <= last for first, last in pieces), (start, stop)


def test_a_long_silence_is_left_out_and_counted_with_its_seconds(folder):
    found = split(folder, [talk(folder)], "--processes=1")
    assert found["filtered"] == {"silence": 1}
    assert (found["read"], found["kept"]) == (found["kept"] + 1, len(folder.rows("out.jsonl")))
    (left_out,) = folder.rows("out.rejected.jsonl")
    assert left_out["where"] == "all.jsonl:1"
    assert left_out["offset"] == pytest.approx(40.15, abs=0.05)
    assert left_out["duration"] == pytest.approx(6.7, abs=0.1)
    assert 3600 * found["hours"] + left_out["duration"] == pytest.approx(TOTAL, abs=1e-2)
    assert len(folder.rows("out.jsonl")) == 5


def test_the_longest_pause_of_the_second_half_is_taken(folder):
    row = talk(folder, pauses=[(16.0, 16.4), (20.0, 20.9), (24.0, 24.5), (28.0, 28.3)], seconds=40.0)
    split(folder, [row])
    (first, second) = spans(folder.rows("out.jsonl"))
    assert first[1] == pytest.approx(20.45, abs=0.03)
    assert second == (first[1], 40.0)


def test_a_pause_of_the_first_half_is_better_than_none(folder):
    split(folder, [talk(folder, pauses=[(5.0, 5.5), (9.0, 9.5)], seconds=39.0)])
    first, second = spans(folder.rows("out.jsonl"))
    assert first[1] == pytest.approx(9.25, abs=0.03)
    assert second == (first[1], 39.0)


def test_without_a_pause_the_quietest_place_is_cut_and_counted(folder):
    samples = 0.1 * np.random.default_rng(0).normal(size=16000 * 70)
    samples[16000 * 24 : 16000 * 24 + 3200] *= 0.6  # 4 dB less: no pause
    soundfile.write(folder.path / "hum.wav", samples, 16000)
    found = split(folder, [{"id": "hum", "audio": "hum.wav", "text": "", "duration": 70.0}])
    pieces = spans(folder.rows("out.jsonl"))
    assert (found["cuts_in_pauses"], found["cuts_elsewhere"]) == (0, len(pieces) - 1)
    assert 24.0 < pieces[0][1] < 24.2
    assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))
    assert (pieces[0][0], pieces[-1][1]) == (0, 70)
    assert all(1 <= stop - start <= 30 for start, stop in pieces)


def test_pieces_sound_as_the_recording_does(folder):
    split(folder, [talk(folder)])
    manifest = Manifest.open(folder.path / "out.jsonl")
    whole = audio.read_segment(Segment(str(folder.path / "talk.wav")))
    for place, (start, stop) in enumerate(spans(folder.rows("out.jsonl"))):
        expected = whole[round(16000 * start) : round(16000 * stop)]
        assert np.array_equal(audio.read(manifest[place])[: len(expected)], expected)


def test_processes_change_nothing(folder):
    rows = [talk(folder, f"{n}.wav", seconds=40.0 + n) for n in range(9)]  # two blocks
    split(folder, rows, "--processes=1")
    first = (folder.path / "out.jsonl").read_bytes()
    split(folder, rows, "--processes=2")
    assert (folder.path / "out.jsonl").read_bytes() == first


def test_short_lines_stay_and_long_ones_with_a_bare_text_are_filtered(folder):
    short = {"id": "short", "audio": "a.wav", "text": "as it was", "duration": 12.0, "speaker": "s", "mood": 3}
    long = {"id": "long", "audio": "b.wav", "text": "who knows when", "duration": 50.0}
    gone = {"id": "gone", "audio": "missing.wav", "text": "", "duration": 50.0}
    found = split(folder, [short, long, gone, '{"id"', talk(folder)], "--processes=1")
    rows = folder.rows("out.jsonl")
    assert rows[0] == short
    assert found["filtered"] == {"silence": 1, "text without word times": 1}
    assert found["failed"] == {"bad line": 1, "missing file": 1}
    assert found["lines"] == 5
    assert found["read"] == found["kept"] + 4


def words_of(pauses, seconds, length=0.4, gap=0.02):
    """Words wherever there is sound, closer to one another than any pause."""
    words, clock = [], 0.0
    for start, stop in [*pauses, (seconds, seconds)]:
        while clock + length <= start:
            words.append([f"w{len(words)}", round(clock, 3), round(clock + length, 3)])
            clock += length + gap
        clock = stop
    return words


def test_words_and_the_written_text_go_with_their_piece(folder):
    words = words_of(PAUSES, TOTAL)
    text = " ".join(f"{word.upper()}," for word, _, _ in words)
    row = talk(folder, words=words, language="en", translation="alles") | {"text": text}
    found = split(folder, [row])
    rows = folder.rows("out.jsonl")
    assert found["cuts_elsewhere"] == 0
    assert " ".join(row["text"] for row in rows) == text
    assert all("translation" not in row and row["language"] == "en" for row in rows)
    timed = [(word, row["offset"] + start, row["offset"] + stop) for row in rows for word, start, stop in row["words"]]
    assert [word for word, _, _ in timed] == [word for word, _, _ in words]
    assert np.allclose([t[1:] for t in timed], [w[1:] for w in words], atol=2e-3)
    assert all(0 <= start <= stop <= row["duration"] + 1e-3 for row in rows for _, start, stop in row["words"])


def test_a_cut_stays_out_of_words_even_where_they_hold_the_silence(folder):
    # One word covers the pause at 21 s; the next gap between words in reach is at 25.1 s, where it is loud.
    words = [["a", 0.0, 20.0], ["b", 20.5, 25.0], ["c", 25.2, 39.0]]
    row = talk(folder, pauses=[(21.0, 22.0)], seconds=40.0, words=words) | {"text": "A b, c."}
    found = split(folder, [row])
    first, second = folder.rows("out.jsonl")
    assert (found["cuts_in_pauses"], found["cuts_elsewhere"]) == (0, 1)
    assert first["duration"] <= 20.5 or 25.0 <= first["duration"] <= 25.2
    assert first["text"] + " " + second["text"] == "A b, c."


def test_words_that_leave_no_place_are_filtered_with_their_line(folder):
    row = talk(folder, pauses=[], seconds=40.0, words=[["long", 0.2, 39.0]]) | {"text": "long"}
    good = {"id": "g", "audio": "a.wav", "text": "x", "duration": 5.0}
    found = split(folder, [row, good])
    assert found["filtered"] == {"no place between words": 1}


def test_a_silent_recording_is_all_silence(folder):
    soundfile.write(folder.path / "still.wav", np.zeros(16000 * 40, np.int16), 16000)
    good = {"id": "g", "audio": "a.wav", "text": "x", "duration": 5.0}
    found = split(folder, [{"id": "still", "audio": "still.wav", "text": "", "duration": 40.0}, good])
    assert found["filtered"] == {"silence": 1}
    assert (found["kept"], found["hours"]) == (1, pytest.approx(5 / 3600, abs=1e-6))


def test_segments_of_several_files_are_cut_on_their_common_time_line(folder):
    folder.sound("a.wav", 20.0, seed=1, rate=16000)
    folder.sound("b.wav", 20.0, seed=2, rate=8000)
    segments = [{"audio": "a.wav", "duration": 20.0}, {"audio": "b.wav", "offset": 1.0, "duration": 19.0, "gap": 1.0}]
    found = split(folder, [{"id": "two", "segments": segments, "text": ""}])
    rows = folder.rows("out.jsonl")
    assert found["cuts_in_pauses"] == 1
    # The gap is cut in its middle; its first half would end a piece, and is no sound.
    assert [row["duration"] for row in rows] == pytest.approx([20.0, 19.5], abs=0.06)
    assert rows[1]["segments"][0]["gap"] == pytest.approx(0.5, abs=0.06)
    assert all(len(audio.read(record)) for record in Manifest.open(folder.path / "out.jsonl"))


def test_noise_in_the_pauses_does_not_hide_them_and_music_has_none():
    rng = np.random.default_rng(0)
    for noise in (-90.0, -60.0, -35.0):  # below speech at -20 dB
        level = np.where(np.arange(6000) % 500 < 40, noise, -20.0 + rng.normal(0, 3, 6000)) + rng.normal(0, 0.5, 6000)
        found = pauses.pauses(level, pauses.threshold(level), 0.3, 60.0)
        assert [round(start) for start, _ in found] == list(range(0, 60, 5)), noise
    music = -20 + rng.normal(0, 1.0, 6000)
    assert pauses.pauses(music, pauses.threshold(music), 0.3, 60.0) == []


def test_every_moment_is_in_one_piece_or_one_silence():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        states = np.repeat(rng.integers(0, 2, 400), rng.integers(1, 400, 400))[: rng.integers(3001, 20000)]
        level = np.where(states, -20.0, -70.0) + rng.normal(0, 1, len(states))
        seconds = len(level) / 100 - rng.choice([0.0, 0.004])
        asked = Asked(longest=float(rng.choice([4.0, 10.0, 30.0])), max_pause=float(rng.choice([0.3, 2.0])))
        words = None
        if seed % 2:
            edges = np.flatnonzero(np.diff(np.concatenate([[0], states, [0]]))).reshape(-1, 2) / 100
            words = between([["w", start, min(stop, seconds)] for start, stop in edges], seconds)
        found = parts(level, seconds, asked, words)
        if found is None:
            assert words is not None
            continue
        every = sorted([*found.spans, *found.silences])
        assert (every[0][0], every[-1][1]) == (0.0, seconds)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(every))
        assert all(0 < stop - start <= asked.longest + 1e-9 for start, stop in found.spans)
        assert found.in_pauses + found.elsewhere >= len(found.spans) - len(found.silences) - 1
        for start, stop in found.silences:
            assert not states[round(100 * start) + 1 : round(100 * stop) - 1].any()


def test_a_long_recording_is_measured_in_blocks_as_in_one(folder, monkeypatch):
    folder.sound("talk.wav", 95.0, pauses=PAUSES, rate=22050)
    segments = (Segment(str(folder.path / "talk.wav"), 0.0, 95.03),)  # a header that says a little too much
    whole = pauses.levels(segments, 95.03)
    monkeypatch.setattr(pauses, "_BLOCK", 500)
    assert len(whole) == 9503
    assert np.abs(pauses.levels(segments, 95.03) - whole)[:9490].max() < 1e-3


def test_limits_that_make_no_sense_are_refused(folder):
    row = talk(folder, seconds=5.0, pauses=[])
    for words in (("--longest=1",), ("--pause=3",), ("--silence-db=50",)):
        with pytest.raises(UserError, match="give"):
            split(folder, [row], *words)
    assert divide(Row(0, "m:1", {}, ("bad line", "x")), Asked()).kind == "failed"


def test_the_level_of_silence_may_be_given(folder):
    row = talk(folder, pauses=[(20.0, 21.0)], seconds=40.0)  # there 60 dB less than -20
    assert split(folder, [row], "--silence-db=-60")["cuts_in_pauses"] == 1
    assert split(folder, [row], "--silence-db=-110")["cuts_elsewhere"] == 1
