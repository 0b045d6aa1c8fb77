import json
import sys

import jax
import level_task as levels
import pytest

from jaxspeech import cli
from jaxspeech.checkpoint import restore
from jaxspeech.errors import EXIT_USER_ERROR, run_or_explain


@pytest.fixture
def evaluate(monkeypatch, tmp_path, capsys):
    """Runs `jaxspeech evaluate` on files that say (said, written) texts: exit code, stdout, stderr."""
    monkeypatch.setattr(
        restore, "load_for_use", lambda place: (levels.Levels(), levels.params(), levels.config(normalizer="english"))
    )
    devices = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda *_, **__: devices)  # eight of them compile slowly

    def evaluate(texts, *words, edit=None):
        manifest = levels.write_set(tmp_path, texts)
        if edit:
            edit(tmp_path)
        arguments = ["evaluate", "--checkpoint=run", f"--manifest={manifest}", *words]
        monkeypatch.setattr(sys, "argv", ["jaxspeech", *arguments])
        code = run_or_explain(cli._dispatch)
        out, err = capsys.readouterr()
        return code, out, err

    return evaluate


TEXTS = [("hello world", "Hello, world!"), ("the blu car", "the blue car"), ("x", "green tree")]


def test_a_table_for_people_and_the_worst_utterances(evaluate):
    code, out, _ = evaluate(TEXTS)
    assert code == 0
    header, row, counts, scorer, *rest = out.splitlines()
    assert header.split() == ["set", "utterances", "WER", "CER", "loss", "hours", "RTFx"]
    assert row.split()[:4] == ["dev", "3", "42.86", "%"]  # 3 of 7
    assert counts == "3 errors in 7 words: 2 substituted, 0 inserted, 1 deleted"
    assert scorer.startswith("scorer: jiwer 4")
    assert scorer.endswith("normalizer: english (whisper_normalizer 0.1.15)")
    text = "\n".join(rest)
    assert text.index("u2  WER 100 %") < text.index("u1  WER 33 %")
    assert "u0" not in text


def test_json_is_the_last_line_and_has_fractions(evaluate):
    _, out, _ = evaluate(TEXTS, "--json")
    found = json.loads(out.splitlines()[-1])
    assert found["wer"] == pytest.approx(3 / 7)
    assert found["set"] == "dev"
    assert found["utterances"] == 3
    assert {"cer", "loss", "audio_seconds", "rtfx"} <= found.keys()


def test_out_gets_every_hypothesis_and_the_result(evaluate, tmp_path):
    _, out, _ = evaluate(TEXTS, f"--out={tmp_path / 'deep' / 'out'}", "--json")
    rows = [json.loads(line) for line in (tmp_path / "deep" / "out" / "hypotheses.jsonl").read_text().splitlines()]
    assert [row["hypothesis"] for row in rows] == [said for said, _ in TEXTS]
    assert json.loads((tmp_path / "deep" / "out" / "result.json").read_text()) == json.loads(out.splitlines()[-1])


def test_each_condition_is_one_more_row_and_result(evaluate, tmp_path):
    _, out, _ = evaluate(TEXTS, "--json")
    plain = json.loads(out.splitlines()[-1])
    words = ("--condition=gain=-60", "--condition", "noise=60,codec=mulaw", f"--out={tmp_path / 'out'}", "--json")
    code, out, _ = evaluate(TEXTS, *words)
    assert code == 0
    header, *rows = out.splitlines()[:4]
    assert header.split() == ["set", "condition", "utterances", "WER", "CER", "loss", "hours", "RTFx"]
    assert [row.split()[1] for row in rows] == ["clean", "gain=-60", "noise=60,codec=mulaw"]
    assert [row.split()[3] for row in rows[:2]] == ["42.86", "100.00"]
    found = json.loads(out.splitlines()[-1])
    silent, _ = found.pop("conditions")
    for result in (plain, found):
        assert result.pop("rtfx") > 0
    assert found == plain  # the clean one is as it was
    assert (silent["condition"], silent["wer"], silent["set"]) == ("gain=-60", 1.0, "dev")
    stems = {path.name for path in (tmp_path / "out").iterdir()}
    names = ("", ".gain=-60", ".noise=60,codec=mulaw")
    assert stems == {"result.json", *(f"hypotheses{name}.jsonl" for name in names)}
    heard = [json.loads(line) for line in (tmp_path / "out" / "hypotheses.gain=-60.jsonl").read_text().splitlines()]
    assert [row["hypothesis"] for row in heard] == ["", "", ""]


def test_a_condition_that_is_none_is_refused_before_anything_is_loaded(evaluate, monkeypatch):
    monkeypatch.setattr(restore, "load_for_use", lambda place: pytest.fail("loaded"))
    code, _, err = evaluate(TEXTS, "--condition=nosie=10")
    assert code == EXIT_USER_ERROR
    assert err == "error: --condition nosie=10: no condition 'nosie'; did you mean noise?\n"


def test_normaliser_and_beams_can_be_chosen(evaluate):
    _, out, _ = evaluate(TEXTS, "--normalizer=none", "--beams=2", "--json")
    found = json.loads(out.splitlines()[-1])
    assert found["wer"] == pytest.approx(5 / 7)  # "Hello, world!" is not "hello world"
    assert found["normalizer"] == "none"


def test_audio_that_cannot_be_read_is_told(evaluate):
    code, out, _ = evaluate(TEXTS, edit=lambda folder: (folder / "u1.wav").unlink())
    assert code == 0
    assert "1 utterance could not be read and counts as missed; the first is u1: missing file" in out


def test_a_set_of_which_nothing_can_be_read_is_an_error(evaluate):
    code, _, err = evaluate(TEXTS, edit=lambda folder: [path.unlink() for path in folder.glob("*.wav")])
    assert code == EXIT_USER_ERROR
    assert err.startswith("error: none of the 3 utterances")
    assert "missing file" in err


def test_a_manifest_that_is_not_there_is_named_before_anything_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr(restore, "load_for_use", lambda place: pytest.fail("loaded"))
    monkeypatch.setattr(sys, "argv", ["jaxspeech", "evaluate", "--checkpoint=run", "--manifest=nowhere.jsonl"])
    assert run_or_explain(cli._dispatch) == EXIT_USER_ERROR
    assert "nowhere.jsonl" in capsys.readouterr().err


def test_no_beams_are_refused(evaluate):
    code, _, err = evaluate(TEXTS, "--beams=0")
    assert code == EXIT_USER_ERROR
    assert "--beams 0" in err
