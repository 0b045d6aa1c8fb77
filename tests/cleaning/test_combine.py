import itertools

import numpy as np
import pytest

from jaxspeech.cleaning import captions
from jaxspeech.cleaning.combine import combine
from jaxspeech.cleaning.pieces import Piece, stretch
from jaxspeech.data import audio
from jaxspeech.data.manifest import Manifest
from jaxspeech.data.record import Segment
from jaxspeech.data.rows import Row
from jaxspeech.errors import UserError


def line(name, offset, seconds, text="words", audio="talk.wav", **extra):
    return {"id": name, "audio": audio, "offset": offset, "duration": seconds, "text": text, **extra}


def piece(start, end, **row):
    return Piece(start, end, "w", (Segment("a", start, end - start),), row | {"id": str(start)}, Row(0, "m:1", {}))


def spans(groups):
    return [(group[0].start, group[-1].end) for group in groups]


def test_segments_join_until_the_target_and_never_beyond_the_limit():
    recording = [piece(4.0 * i, 4.0 * i + 3) for i in range(20)]
    groups = combine(recording, lambda _: 14.0)
    assert spans(groups)[:2] == [(0, 15), (16, 31)]
    for law in (5.0, 17.0, 30.0):
        assert all(end - start <= 30 for start, end in spans(combine(recording, lambda _, law=law: law)))


def test_a_long_gap_and_overlap_part_segments():
    recording = [piece(0, 3), piece(5, 8), piece(10.1, 13), piece(12, 15)]
    assert spans(combine(recording, lambda _: 30.0)) == [(0, 8), (10.1, 13), (12, 15)]


def test_speakers_stay_apart_unless_mixed():
    recording = [piece(0, 3, speaker="a"), piece(3, 6, speaker="b")]
    assert len(combine(recording, lambda _: 30.0)) == 2
    assert len(combine(recording, lambda _: 30.0, mix=True)) == 1


def test_a_short_rest_joins_its_neighbour_and_a_lonely_one_stays():
    recording = [piece(0, 6), piece(6, 12), piece(12, 13), piece(40, 41)]
    assert spans(combine(recording, lambda _: 12.0)) == [(0, 13), (40, 41)]


def test_every_segment_is_in_one_instance_in_order():
    rng = np.random.default_rng(0)
    clock, recording = 0.0, []
    for _ in range(300):
        clock += rng.exponential(0.8)
        recording.append(piece(clock, clock + rng.exponential(4) + 0.1))
        clock = recording[-1].end
    groups = combine(recording, lambda p: rng.uniform(4, 30))
    assert [one for group in groups for one in group] == recording
    joined = [(group[0].start, group[-1].end, len(group)) for group in groups]
    assert all(end - start <= 30 for start, end, count in joined if count > 1)
    gaps = [b.start - a.end for group in groups for a, b in itertools.pairwise(group)]
    assert max(gaps) <= 2


def test_an_instance_sounds_as_the_recording_does_with_its_gaps(folder):
    folder.sound("talk.wav", 20.0)
    rows = [line("b", 6.0, 3.5, "second."), line("a", 1.0, 4.0, "First"), line("c", 18.0, 1.0, "far")]
    source = folder.manifest("all.jsonl", rows)
    found = folder.run("combine", source, "--out", folder.path / "out.jsonl", "--law=longest")
    whole, far = folder.rows("out.jsonl")
    assert whole == {
        "id": "a+b",
        "audio": "talk.wav",
        "offset": 1.0,
        "duration": 8.5,
        "text": "First second.",
    }
    assert far["id"] == "c"
    assert (found["read"], found["kept"], found["instances"]) == (3, 3, 2)
    manifest = Manifest.open(folder.path / "out.jsonl")
    talk = audio.read_segment(Segment(str(folder.path / "talk.wav")))
    assert np.array_equal(audio.read(manifest[0]), talk[16000 : round(9.5 * 16000)])


def test_words_move_with_their_segment(folder):
    rows = [
        line("a", 10.0, 2.0, "one", words=[["one", 0.5, 1.0]]),
        line("b", 13.0, 4.0, "two three", words=[["two", 0.0, 0.4], ["three", 1.0, 3.5]]),
    ]
    folder.run("combine", folder.manifest("all.jsonl", rows), "--out", folder.path / "out.jsonl")
    (whole,) = folder.rows("out.jsonl")
    assert whole["words"] == [["one", 0.5, 1.0], ["two", 3.0, 3.4], ["three", 4.0, 6.5]]


def test_files_that_follow_one_another_are_played_with_silence_between(folder):
    folder.sound("a.wav", 3.0, seed=1)
    folder.sound("b.wav", 2.0, seed=2)
    rows = [
        {"id": name, "audio": f"{name}.wav", "text": name, "duration": seconds, "chapter": 7, "speaker": "s"}
        for name, seconds in (("a", 3.0), ("b", 2.0))
    ]
    rows.append({"id": "c", "audio": "c.wav", "text": "c", "duration": 3.0, "chapter": 8})
    source = folder.manifest("all.jsonl", rows)
    folder.run("combine", source, "--out", folder.path / "out.jsonl", "--by=chapter", "--file-gap=0.5")
    whole, other = folder.rows("out.jsonl")
    assert [segment.get("gap") for segment in whole["segments"]] == [None, 0.5]
    assert (whole["duration"], whole["text"], whole["speaker"], whole["chapter"]) == (5.5, "a b", "s", 7)
    assert other["id"] == "c"
    heard = audio.read(Manifest.open(folder.path / "out.jsonl")[0])
    assert len(heard) == 5.5 * 16000
    assert not heard[48000:56000].any()
    assert np.array_equal(heard[56000:], audio.read_segment(Segment(str(folder.path / "b.wav"))))


def test_lengths_are_the_same_for_a_seed_and_follow_the_law(folder):
    rows = [line(f"u{i:04d}", 2.0 * i, 1.9) for i in range(3000)]
    source = folder.manifest("all.jsonl", rows)

    def lengths(*words):
        folder.run("combine", source, "--out", folder.path / "out.jsonl", *words)
        return np.array([row["duration"] for row in folder.rows("out.jsonl")])

    paper, again, other = lengths(), lengths("--processes=1"), lengths("--seed=1")
    assert np.array_equal(paper, again)
    assert not np.array_equal(paper[:100], other[:100])
    # The paper's histogram between 4 and 30 s has a mean of 16.9 s; a seventh of it is above 27.5 s.
    assert paper.mean() == pytest.approx(16.4, abs=1.5)
    assert np.mean(paper > 26.5) > 0.1
    assert lengths("--law=longest").mean() > 28


CAPTIONS = """WEBVTT

NOTE a remark --> of nobody

1
00:00.500 --> 00:02.000 align:start
<v Anna>Hello <i>there</i>,

00:00:02.500 --> 00:00:06.000
&amp; welcome
back.

00:00:07.000 --> 00:00:08.000
<b></b>

00:00:09.000 --> 00:00:08.500
backwards

00:00:30.000 --> 00:00:31.000
too late
"""


def test_what_a_player_shows_stays_and_tags_go(tmp_path):
    (tmp_path / "talk.SRT").write_text("1\n00:00:00,000 --> 00:00:02,000\n<i>if a &lt;b and c&gt; d</i>\n")
    found = captions.beside(str(tmp_path / "talk.wav"))
    assert [cue.text for cue in captions.read(found)] == ["if a <b and c> d"]


def test_captions_become_instances_and_bad_ones_are_told_with_their_line(folder):
    folder.sound("talk.wav", 12.0)
    (folder.path / "talk.vtt").write_text(CAPTIONS)
    folder.sound("bare.wav", 2.0)
    rows = [{"id": "talk", "audio": "talk.wav", "text": "", "duration": 12.0, "language": "en"}]
    rows.append({"id": "bare", "audio": "bare.wav", "text": "", "duration": 2.0})
    source = folder.manifest("all.jsonl", rows)
    found = folder.run("combine", source, "--out", folder.path / "out.jsonl", "--captions")
    (whole,) = folder.rows("out.jsonl")
    assert whole == {
        "id": "talk-0000+talk-0001",
        "audio": "talk.wav",
        "offset": 0.5,
        "duration": 5.5,
        "text": "Hello there, & welcome back.",
        "language": "en",
    }
    assert found["filtered"] == {"no text": 1}
    assert found["failed"] == {"bad caption": 1, "beyond the end": 1, "no captions": 1}
    places = {entry["reason"]: entry["where"] for entry in folder.rows("out.rejected.jsonl")}
    assert places["bad caption"] == "talk.vtt:16"
    assert places["no captions"] == "all.jsonl:2"


def test_subrip_without_blank_lines_and_with_crlf_is_read(folder):
    folder.sound("talk.wav", 12.0)
    text = "1\r\n00:00:00,000 --> 00:00:02,500\r\nOne.\r\n2\r\n00:00:02,500 --> 00:00:05,000\r\nTwo 2\r\n"
    (folder.path / "talk.srt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    source = folder.manifest("all.jsonl", [{"id": "t", "audio": "talk.wav", "text": "", "duration": 12.0}])
    folder.run("combine", source, "--out", folder.path / "out.jsonl", "--captions")
    assert [row["text"] for row in folder.rows("out.jsonl")] == ["One. Two 2"]


def test_a_long_line_with_words_is_cut_at_its_pauses_and_keeps_its_punctuation(folder):
    words, clock = [], 0.0
    for number in range(120):
        words.append([f"word{number}", round(clock, 2), round(clock + 0.4, 2)])
        clock += 0.4 + (0.8 if number % 10 == 9 else 0.1)
    text = " ".join(f"Word{number}," for number in range(120))
    rows = [{"id": "talk", "audio": "talk.wav", "text": text, "duration": clock, "words": words}]
    folder.run("combine", folder.manifest("all.jsonl", rows), "--out", folder.path / "out.jsonl", "--seed=3")
    found = folder.rows("out.jsonl")
    assert " ".join(row["text"] for row in found) == text
    assert all(row["duration"] <= 30 for row in found)
    timed = [(word, row["offset"] + start) for row in found for word, start, _ in row["words"]]
    assert [word for word, _ in timed] == [word for word, _, _ in words]
    assert np.allclose([start for _, start in timed], [start for _, start, _ in words], atol=2e-3)
    assert all(len(row["words"]) % 10 == 0 for row in found)  # cut where somebody paused


def test_what_is_too_long_or_short_is_counted(folder):
    rows = [line("long", 0.0, 40.0), line("short", 50.0, 1.0), line("good", 60.0, 5.0), '{"id"']
    source = folder.manifest("all.jsonl", rows)
    found = folder.run("combine", source, "--out", folder.path / "out.jsonl", "--drop-short")
    assert found["filtered"] == {"longer than 30 s": 1, "shorter than 4 s": 1}
    assert found["failed"] == {"bad line": 1}
    assert found["kept"] == 1


def test_the_lengths_are_printed_beside_the_papers(folder, capsys):
    folder.run("combine", folder.manifest("all.jsonl", [line("a", 0, 10.0)]), "--out", folder.path / "out.jsonl")
    out = capsys.readouterr().out
    assert "  9.5 – 12.5    100.0%    9.1%" in out
    assert "mean            10.0 s  14.2 s" in out


def test_limits_that_contradict_are_refused(folder):
    source = folder.manifest("all.jsonl", [line("a", 0, 10.0)])
    with pytest.raises(UserError, match="shortest < longest"):
        folder.run("combine", source, "--out", folder.path / "out.jsonl", "--shortest=31")


def test_a_stretch_of_segments_plays_what_the_whole_plays_there(folder):
    folder.sound("a.wav", 2.0, seed=1)
    folder.sound("b.wav", 2.0, seed=2)
    segments = tuple(
        Segment(str(folder.path / f"{name}.wav"), 0.25, 1.5, gap) for name, gap in (("a", 0.0), ("b", 1.0))
    )

    def play(pieces):
        return np.concatenate(
            [x for s in pieces for x in (np.zeros(round(16000 * s.gap)), audio.read_segment(s))] or [np.zeros(0)]
        )

    whole = play(segments)
    for start, stop in ((0.0, 4.0), (0.5, 1.0), (1.0, 3.5), (1.75, 3.0), (2.6, 2.7)):
        expected = whole[round(16000 * start) : round(16000 * stop)]
        assert np.array_equal(play(stretch(segments, start, stop)), expected)
