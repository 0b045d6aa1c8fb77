import json
import os

from jaxspeech.errors import UserError


def row(name, audio, text="", seconds=2.0, **extra):
    return {"id": name, "audio": audio, "text": text or f"words of {name}", "duration": seconds, **extra}


def leaks(folder, train, test, *words):
    """Runs the check; its message, or its result where nothing leaks."""
    sources = folder.manifest("train.jsonl", train), "--against", folder.manifest("test.jsonl", test)
    try:
        return folder.run("leaks", *sources, "--json", *words)
    except UserError as error:
        return str(error)


def test_sets_apart_pass(folder):
    found = leaks(folder, [row("a", "a.wav"), row("b", "b.wav")], [row("a", "c.wav")])
    assert found["kept"] == 2
    assert sum(found["leaks"].values()) == sum(found["warnings"].values()) == 0
    assert found["tested"] == 1


def test_stretches_of_one_file_leak_where_they_overlap(folder):
    test = [row("t", "talk.wav", offset=10.0, seconds=5.0)]
    apart = leaks(folder, [row("a", "talk.wav", offset=0.0, seconds=10.0)], test)
    assert apart["warnings"]["same recording"] == 1
    assert apart["leaks"]["same stretch of a file"] == 0
    message = leaks(folder, [row("x", "x.wav"), row("a", "talk.wav", offset=14.0, seconds=9.0)], test)
    assert message.startswith("1 of 2 training utterances are also tested on, the first train.jsonl:2")
    assert "same stretch of a file as test.jsonl:1" in message
    assert "the first train.jsonl:1" in leaks(folder, [row("whole", "talk.wav", seconds=60.0)], test)


def test_the_other_channel_is_another_voice(folder):
    test = [row("t", "call.wav", channel=0)]
    assert leaks(folder, [row("a", "call.wav", channel=1)], test)["kept"] == 1
    assert "same stretch" in leaks(folder, [row("a", "call.wav")], test)


def test_a_link_hides_nothing(folder):
    folder.sound("a.wav")
    os.symlink(folder.path / "a.wav", folder.path / "link.wav")
    assert "same stretch" in leaks(folder, [row("a", "link.wav")], [row("t", "a.wav")])


def test_segments_of_a_record_are_each_compared(folder):
    pieces = [{"audio": "x.wav", "offset": 0.0, "duration": 1.0}, {"audio": "y.wav", "offset": 3.0, "duration": 1.0}]
    train = [{"id": "a", "segments": pieces, "text": "x y", "duration": 2.0}]
    assert "same stretch" in leaks(folder, train, [row("t", "y.wav", offset=3.5, seconds=1.0)])


def test_a_copy_is_found_by_its_samples(folder):
    folder.sound("a.wav", 2.0, seed=1)
    folder.sound("copy.flac", 2.0, seed=1)
    train, test = [row("a", "copy.flac")], [row("t", "a.wav")]
    assert leaks(folder, train, test)["kept"] == 1
    assert "same audio as test.jsonl:1" in leaks(folder, train, test, "--audio")


def test_the_same_sentence_in_the_same_time_leaks_and_short_ones_do_not(folder):
    test = [row("t", "t.wav", "It was the best of times.", 3.0), row("u", "u.wav", "Yes.", 1.0)]
    train = [row("a", "a.wav", "it was the best of times", 3.01), row("b", "b.wav", "Yes.", 1.0)]
    assert "1 of 2 training utterances" in leaks(folder, train, test)
    assert leaks(folder, [row("a", "a.wav", "it was the best of times", 3.4)], test)["kept"] == 1


def test_a_speaker_on_both_sides_is_a_warning(folder, capsys):
    found = leaks(folder, [row("a", "a.wav", speaker="84"), row("b", "b.wav")], [row("t", "t.wav", speaker="84")])
    assert found["warnings"]["same speaker"] == 1
    assert found["kept"] == 2
    assert "same speaker                         1  (warning)" in capsys.readouterr().out


def test_json_is_printed_before_the_error(folder, capsys):
    leaks(folder, [row("a", "a.wav"), row("b", "b.wav")], [row("t", "a.wav")])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["read"], told["kept"], told["filtered"]) == (2, 1, {"same stretch of a file": 1})


def test_out_gets_the_training_set_without_what_leaks(folder):
    train = [row("a", "a.wav"), row("b", "b.wav"), '{"id": "bad"']
    found = leaks(folder, train, [row("t", "a.wav")], "--out", folder.path / "clean.jsonl")
    assert [kept["id"] for kept in folder.rows("clean.jsonl")] == ["b"]
    rejected = [(entry["where"], entry["kind"], entry["reason"]) for entry in folder.rows("clean.rejected.jsonl")]
    assert rejected == [
        ("train.jsonl:1", "filtered", "same stretch of a file"),
        ("train.jsonl:3", "failed", "bad line"),
    ]
    assert (found["read"], found["kept"]) == (3, 1)


def test_lines_of_the_test_set_that_cannot_be_used_are_told(folder, capsys):
    found = leaks(folder, [row("a", "a.wav")], [row("t", "t.wav"), '{"id"'])
    assert found["untested"] == 1
    assert "tested lines unusable" in capsys.readouterr().out
