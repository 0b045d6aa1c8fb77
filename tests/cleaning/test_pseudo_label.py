"""What becomes of the lines of a manifest that a model labels; the model's answers are known."""

import json

import jax
import jax.numpy as jnp
import level_task as levels
import numpy as np
import pytest

from jaxspeech.cleaning.pseudo_label import Asked, label
from jaxspeech.data.rows import Rows
from jaxspeech.errors import UserError
from jaxspeech.evaluation.labels import Labeler
from jaxspeech.parallel.mesh import make_mesh
from jaxspeech.task import Hypotheses

TEXTS = ("two words", "one", "a much longer sentence", "hello there", "seven eight", "nine")


class Heard(levels.Levels):
    """Decodes without a search, which compiles faster; the longer a text, the less sure: -0.01 for each character."""

    def decode(self, params, batch, *, beams=1):
        rows, _ = batch["audio"].shape
        heights = jnp.round(batch["audio"].reshape(rows, -1, levels.STEP).mean(-1) * 64).astype(jnp.int32)
        order = jnp.argsort(heights == 0, axis=1, stable=True)
        length = jnp.sum(heights > 0, axis=1)
        filled = batch["audio_length"] > 0
        choices = jnp.where(filled, length + 1, 0)
        tokens = jnp.take_along_axis(heights, order, axis=1) + params["shift"]
        return Hypotheses(tokens, length, -0.01 * choices * length.astype(jnp.float32), choices)


@pytest.fixture
def said(folder):
    """A manifest of files that say `TEXTS`, all without a text; its rows may be changed before it is written."""

    def write(change=lambda rows: rows):
        levels.write_set(folder.path, [(text, "") for text in TEXTS])
        rows = change(folder.rows("dev.jsonl"))
        return folder.manifest("dev.jsonl", rows)

    return write


def run(manifest, out, *, shift=0, progress=lambda new, total: None, max_failed=0.05, **asked):
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.local_devices()[:1])
    params = jax.device_put(levels.params(shift), jax.local_devices()[0])

    def labeler_of(utterances):
        return Labeler(Heard(), params, utterances, mesh, batch_seconds=0.5, threads=1)

    found = label(
        Rows(manifest),
        str(out),
        labeler_of,
        Asked(**asked),
        max_failed=max_failed,
        processes=1,
        progress=progress,
    )
    assert found["read"] == found["kept"] + sum(found["filtered"].values()) + sum(found["failed"].values())
    return found


def test_every_line_gets_its_label_and_keeps_what_it_had(said, folder):
    source = said(lambda rows: [row | {"speaker": "ann", "note": 7} for row in rows])
    found = run(source, folder.path / "out.jsonl")
    rows = folder.rows("out.jsonl")
    assert [row["pseudo"] for row in rows] == list(TEXTS)
    assert [row.pop("pseudo_logprob") for row in rows] == [round(-0.01 * len(text), 4) for text in TEXTS]
    assert [row | {"pseudo": ""} for row in rows] == [row | {"pseudo": ""} for row in folder.rows("dev.jsonl")]
    assert (found["read"], found["kept"], found["filtered"], found["failed"]) == (6, 6, {}, {})
    assert found["hours"] == pytest.approx(sum(row["duration"] for row in rows) / 3600, abs=1e-6)
    assert [effect["kept"] for effect in found["logprob"]] == [2, 3, 5, 5, *[6] * 8]
    assert sorted(path.name for path in folder.path.glob("*.jsonl*")) == ["dev.jsonl", "out.jsonl"]
    assert not list(folder.path.glob(".*"))  # no journal is left


def test_what_cannot_be_labelled_is_named_and_the_rest_goes_on(said, folder):
    def change(rows):
        (folder.path / "u1.wav").write_bytes(b"RIFF")
        rows[2]["audio"] = "nowhere.wav"
        again = rows[0] | {"audio": "u3.wav"}
        long = rows[3] | {"id": "long", "duration": 31.0}
        silence = rows[3] | {"id": "silence", "audio": "silence.wav"}
        levels.soundfile.write(folder.path / "silence.wav", np.zeros(round(16000 * silence["duration"])), 16000)
        return [*rows, again, long, silence, '{"id": "bad"']

    found = run(said(change), folder.path / "out.jsonl", max_failed=1.0)
    assert [row["id"] for row in folder.rows("out.jsonl")] == ["u0", "u3", "u4", "u5"]
    assert found["filtered"] == {"duplicate id": 1, "empty pseudo-label": 1, "too long for the model": 1}
    assert found["failed"] == {"bad line": 1, "corrupt audio": 1, "missing file": 1}
    entries = folder.rows("out.rejected.jsonl")
    assert [entry["where"] for entry in entries] == [f"dev.jsonl:{line}" for line in (2, 3, 7, 8, 9, 10)]
    assert entries[3]["detail"] == "31.00 s, of at most 30 s"


def test_the_label_becomes_the_text_of_lines_that_have_none_and_of_no_others(said, folder):
    source = said(lambda rows: [row | {"text": "By hand."} if row["id"] == "u1" else row for row in rows])
    run(source, folder.path / "out.jsonl", as_text=True, key="heard")
    rows = folder.rows("out.jsonl")
    assert [row["text"] for row in rows] == [TEXTS[0], "By hand.", *TEXTS[2:]]
    assert [row["heard"] for row in rows] == list(TEXTS)
    assert all("heard_logprob" in row for row in rows)


def test_improbable_labels_go_and_the_table_is_shown_before(said, folder, capsys):
    out = folder.path / "out.jsonl"
    found = run(said(), out, min_logprob=-0.115)
    assert [row["pseudo"] for row in folder.rows("out.jsonl")] == [text for text in TEXTS if len(text) <= 11]
    assert found["filtered"] == {"improbable pseudo-label": 1}
    (entry,) = folder.rows("out.rejected.jsonl")
    assert entry["pseudo"] == "a much longer sentence"
    shown = capsys.readouterr().out
    assert shown.index("6 lines have an average log-probability") < shown.index("read ")
    (chosen,) = [line for line in shown.splitlines() if line.endswith("← --min-logprob")]
    assert chosen.split()[1:3] == ["5", "83.3%"]


def test_the_same_labels_are_dropped_by_filter_later(said, folder):
    run(said(), folder.path / "all.jsonl")
    run(folder.path / "dev.jsonl", folder.path / "one.jsonl", min_logprob=-0.04)
    folder.run("filter", folder.path / "all.jsonl", "--out", folder.path / "two.jsonl", "--min-logprob=-0.04")
    assert 0 < len(folder.rows("one.jsonl")) < len(TEXTS)
    assert folder.rows("two.jsonl") == folder.rows("one.jsonl")


class Killed(Exception):
    """Stands for a signal."""


def killed_after(batches):
    calls = []

    def progress(new, total):
        calls.append(new)
        if len(calls) > batches:  # the first tells what is known
            raise Killed

    return progress


def test_a_killed_run_goes_on_and_writes_the_bytes_of_an_undisturbed_one(said, folder, capsys):
    source, out = said(), folder.path / "out.jsonl"
    run(source, folder.path / "undisturbed.jsonl", min_logprob=-1.0)
    with pytest.raises(Killed):
        run(source, out, progress=killed_after(2))
    journal = folder.path / ".out.jsonl.journal"
    assert not out.exists()
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"number": 3, "key": "half')  # as a kill in the middle of an entry leaves it
    calls = []
    run(source, out, min_logprob=-1.0, progress=lambda new, total: calls.append((new, total)))
    assert calls[0][0] > 0  # known before
    assert sum(new for new, _ in calls) == calls[0][1] == 6
    assert "of 6 utterances had been labelled before" in capsys.readouterr().err
    assert out.read_bytes() == (folder.path / "undisturbed.jsonl").read_bytes()
    assert not journal.exists()


@pytest.mark.parametrize("change", ["checkpoint", "manifest"])
def test_what_was_made_from_something_else_is_made_anew(said, folder, change):
    source, out = said(), folder.path / "out.jsonl"
    with pytest.raises(Killed):
        run(source, out, shift=1 if change == "checkpoint" else 0, progress=killed_after(2))
    if change == "manifest":
        folder.manifest("dev.jsonl", reversed(folder.rows("dev.jsonl")))
    calls = []
    run(source, out, progress=lambda new, total: calls.append(new))
    assert calls[0] == 0
    wanted = TEXTS if change == "checkpoint" else TEXTS[::-1]
    assert [row["pseudo"] for row in folder.rows("out.jsonl")] == list(wanted)


def test_too_many_failures_are_an_error_and_once_mended_only_their_batches_are_decoded_again(said, folder):
    source, out = said(), folder.path / "out.jsonl"
    run(source, folder.path / "undisturbed.jsonl")
    audio = (folder.path / "u2.wav").read_bytes()
    (folder.path / "u2.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 6 lines failed, more than --max-failed 0 allows"):
        run(source, out, max_failed=0.0)
    assert not out.exists()
    (folder.path / "u2.wav").write_bytes(audio)
    calls = []
    run(source, out, max_failed=0.0, progress=lambda new, total: calls.append(new))
    assert 0 < calls[0] < 6
    assert out.read_bytes() == (folder.path / "undisturbed.jsonl").read_bytes()
    assert json.loads(out.read_text().splitlines()[2])["pseudo"] == TEXTS[2]


def test_short_audio_gets_silence_before_it(folder):
    seconds = levels.write(folder.path / "a.wav", "no")
    assert seconds < 0.1
    folder.manifest("dev.jsonl", [{"id": "a", "audio": "a.wav", "text": ""}])  # nor a duration
    run(folder.path / "dev.jsonl", folder.path / "out.jsonl")
    (row,) = folder.rows("out.jsonl")
    assert (row["pseudo"], row["duration"]) == ("no", seconds)


def test_nothing_to_label_is_one_line(folder):
    folder.manifest("dev.jsonl", [{"id": "a", "audio": "a.wav", "text": "", "duration": 40.0}])
    with pytest.raises(UserError, match="none of 1 lines would be kept, 1 of them for 'too long for the model'"):
        run(folder.path / "dev.jsonl", folder.path / "out.jsonl")
    assert not list(folder.path.glob(".*"))
