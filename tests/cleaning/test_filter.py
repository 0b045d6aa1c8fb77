import json

import pytest

from jaxspeech.errors import UserError


def row(name, text="a plain sentence of words", seconds=2.0, **extra):
    return {"id": name, "audio": f"{name}.wav", "text": text, "duration": seconds, **extra}


def reasons(folder, name="out"):
    return {entry["id"]: entry["reason"] for entry in folder.rows(f"{name}.rejected.jsonl") if "id" in entry}


def test_each_limit_drops_what_it_names_and_nothing_else(folder):
    source = folder.manifest(
        "all.jsonl",
        [
            row("good", language="en-GB"),
            row("empty", text=" "),
            row("german", language="de"),
            row("russian", text="простое предложение"),
            row("mixed", text="a plain предложение"),
            row("short", seconds=0.05),
            row("long", seconds=31.0, text="x" * 300),
            row("fast", text="x" * 70),
            row("slow", text="x" * 3, seconds=4.0),
        ],
    )
    words = ["--drop-empty", "--language=en", "--min-seconds=0.1", "--max-seconds=30"]
    words += ["--max-characters-per-second=30", "--min-characters-per-second=2"]
    found = folder.run("filter", source, "--out", folder.path / "out.jsonl", *words)
    assert [kept["id"] for kept in folder.rows("out.jsonl")] == ["good"]
    assert reasons(folder) == {
        "empty": "no text",
        "german": "another language",
        "russian": "another script",
        "mixed": "another script",
        "short": "too short",
        "long": "too long",
        "fast": "too many characters a second",
        "slow": "too few characters a second",
    }
    assert found["hours"] == pytest.approx(2 / 3600, abs=1e-6)


def test_bad_lines_and_missing_audio_are_counted_with_their_place_and_the_rest_goes_on(folder):
    source = folder.manifest(
        "all.jsonl", ['\ufeff{"id": "a", "audio": "a.wav", "text": "ä", "duration": 1}\r', "", '{"id": "b"', row("a")]
    )
    with open(source, "ab") as file:
        file.write(b'{"id": "\xff"}\n{"id": "c", "audio": "c.wav", "text": "no duration"}\n')
    found = folder.run("filter", source, "--out", folder.path / "out.jsonl")
    assert found["failed"] == {"bad line": 2, "missing file": 1}
    assert found["filtered"] == {"duplicate id": 1}
    places = [(entry["where"], entry["kind"]) for entry in folder.rows("out.rejected.jsonl")]
    assert places == [
        ("all.jsonl:3", "failed"),
        ("all.jsonl:4", "filtered"),
        ("all.jsonl:5", "failed"),
        ("all.jsonl:6", "failed"),
    ]
    assert folder.rows("out.jsonl")[0] == {"id": "a", "audio": "a.wav", "text": "ä", "duration": 1.0}


def test_text_longer_than_its_frames_is_dropped(folder):
    source = folder.manifest("all.jsonl", [row("fits", "a" * 33, 2.0), row("over", "a" * 34, 2.0)])
    words = ["--tokenizer=characters:abc ", "--frame=0.06"]
    folder.run("filter", source, "--out", folder.path / "out.jsonl", *words)
    assert reasons(folder) == {"over": "text too long for its audio"}
    assert folder.rows("out.rejected.jsonl")[0]["detail"] == "34 tokens, 33 frames"


def test_tokens_a_second_are_those_of_the_tokenizer(folder):
    source = folder.manifest("all.jsonl", [row("ok", "aaaa"), row("over", "aaaaaaaaa")])
    folder.run(
        "filter", source, "--out", folder.path / "out.jsonl", "--tokenizer=characters:a", "--max-tokens-per-second=4"
    )
    assert reasons(folder) == {"over": "too many tokens a second"}


CAPTIONS = ["The first sentence, said.", "A second thing entirely!", "Third: nothing like it.", "Number four is here"]


def test_captions_far_from_their_pseudo_labels_go_and_case_and_punctuation_stay(folder):
    rows = [row(f"u{i}", text, pseudo=text.lower().strip(".!")) for i, text in enumerate(CAPTIONS)]
    rows[3]["pseudo"] = "completely other words were heard"
    source = folder.manifest("all.jsonl", rows)
    found = folder.run("filter", source, "--out", folder.path / "out.jsonl", "--max-distance=0.2")
    assert [kept["text"] for kept in folder.rows("out.jsonl")] == CAPTIONS[:3]
    assert reasons(folder) == {"u3": "far from its pseudo-label"}
    assert found["distance"][0] == {"threshold": 0.0, "kept": 3, "hours": pytest.approx(6 / 3600, abs=1e-6)}
    assert found["distance"][-1]["kept"] == 4


def test_the_effect_of_the_threshold_is_shown_before_anything_is_written(folder, capsys):
    rows = [row(f"u{i}", text, pseudo=text.strip(".!") + "x" * i) for i, text in enumerate(CAPTIONS)]
    source = folder.manifest("all.jsonl", rows)
    folder.run("filter", source, "--dry-run", "--max-distance=0.1")
    out = capsys.readouterr().out
    assert " 0.1         3    75.0%        0.00  ← --max-distance" in out
    assert "nothing written" in out
    assert [path.name for path in folder.path.iterdir()] == ["all.jsonl"]


def test_captions_that_slipped_by_a_line_are_called_swapped(folder):
    rows = [row(f"u{i}", CAPTIONS[(i + 1) % 4], pseudo=CAPTIONS[i].lower()) for i in range(4)]
    source = folder.manifest("all.jsonl", [*rows, row("fine", "All is well here", pseudo="all is well here")])
    folder.run("filter", source, "--out", folder.path / "out.jsonl", "--max-distance=0.3")
    assert set(reasons(folder).values()) == {"swapped text"}
    details = {entry["id"]: entry["detail"] for entry in folder.rows("out.rejected.jsonl")}
    assert details["u1"] == "its pseudo-label is the text of all.jsonl:1"


def test_improbable_pseudo_labels_go(folder):
    rows = [row("sure", pseudo="a", pseudo_logprob=-0.2), row("unsure", pseudo="a", pseudo_logprob=-1.5)]
    folder.run("filter", folder.manifest("all.jsonl", rows), "--out", folder.path / "out.jsonl", "--min-logprob=-1")
    assert reasons(folder) == {"unsure": "improbable pseudo-label"}


def test_duplicates_are_found_by_text_and_duration_and_the_first_stays(folder):
    text = "The very same sentence, twice."
    rows = [
        row("first", text, 3.001),
        row("again", text.lower(), 3.012),
        row("slower", text, 3.5),
        row("yes", "Yes.", 0.5),
        row("yes2", "Yes.", 0.5),  # short texts meet by chance
    ]
    folder.run("filter", folder.manifest("all.jsonl", rows), "--out", folder.path / "out.jsonl", "--duplicates=text")
    assert reasons(folder) == {"again": "same text and duration"}
    assert folder.rows("out.rejected.jsonl")[0]["detail"] == "as all.jsonl:1"


def test_duplicates_are_found_by_samples_whatever_the_container(folder):
    folder.sound("a.wav", 2.0, seed=1)
    folder.sound("copy.flac", 2.0, seed=1)
    folder.sound("other.wav", 2.0, seed=2)
    rows = [{"id": name, "audio": name, "text": name, "duration": 2.0} for name in ("a.wav", "copy.flac", "other.wav")]
    rows.append({"id": "part", "audio": "a.wav", "text": "part", "duration": 1.0, "offset": 0.5})
    rows.append({"id": "gone", "audio": "gone.wav", "text": "gone", "duration": 1.0})
    source = folder.manifest("all.jsonl", rows)
    found = folder.run("filter", source, "--out", folder.path / "out.jsonl", "--duplicates=audio", "--processes=1")
    assert reasons(folder) == {"copy.flac": "same audio", "gone": "missing file"}
    assert found["failed"] == {"missing file": 1}


def test_two_processes_write_the_same_bytes_as_one(folder):
    rows = [row(f"u{i}", f"sentence number {i % 600} of them", 2.0 + i % 3) for i in range(1500)]
    source = folder.manifest("all.jsonl", rows)
    outs = []
    for processes in (1, 2):
        out = folder.path / f"out{processes}.jsonl"
        folder.run("filter", source, "--out", out, "--duplicates=text", f"--processes={processes}")
        outs.append((out.read_bytes(), out.with_suffix(".rejected.jsonl").read_bytes()))
    assert outs[0] == outs[1]


def test_paths_lead_to_the_same_files_from_another_folder(folder):
    source = folder.manifest("all.jsonl", [row("a")])
    folder.run("filter", source, "--out", folder.path / "deep" / "out.jsonl")
    assert json.loads((folder.path / "deep" / "out.jsonl").read_text())["audio"] == str(folder.path / "a.wav")


def test_too_many_failures_stop_it_and_tell_why(folder):
    source = folder.manifest("all.jsonl", [*[row(f"u{i}") for i in range(30)], *['{"id"'] * 11])
    with pytest.raises(UserError, match=r"11 of 41 lines failed.*all.jsonl:31: bad line"):
        folder.run("filter", source, "--out", folder.path / "out.jsonl")
    assert not (folder.path / "out.jsonl").exists()
    assert len(folder.rows("out.rejected.jsonl")) == 11
    assert folder.run("filter", source, "--out", folder.path / "out.jsonl", "--max-failed=0.5")["kept"] == 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no --out"),
        (["--out=all.jsonl"], "is the manifest that is read"),
        (["--out=o.jsonl", "--frame=0.06"], "--tokenizer"),
        (["--out=o.jsonl", "--duplicates=sound"], "text,audio"),
        (["--out=o.jsonl", "--max-distance=30"], "between 0 and 1"),
        (["--out=o.jsonl", "--max-distance=0.3"], "no line has a pseudo-label in the key 'pseudo'"),
        (["--out=o.jsonl", "--language=tlh"], "its script is not known"),
        (["--out=o.jsonl", "--scripts=Elvish"], "no script Elvish; there are Latin"),
        (["--out=o.jsonl", "--min-seconds=9"], "none of 1 lines would be kept, 1 of them for 'too short'"),
    ],
)
def test_mistakes_are_one_line(folder, monkeypatch, words, message):
    monkeypatch.chdir(folder.path)
    folder.manifest("all.jsonl", [row("a")])
    with pytest.raises(UserError, match=message) as error:
        folder.run("filter", "all.jsonl", *words)
    assert "\n" not in str(error.value)
