"""`jaxspeech prepare pseudo-label` as a user types it, on a model whose answers are known, and killed for real."""

import json
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import jax
import level_task as levels
import pytest

from jaxspeech import cli
from jaxspeech.checkpoint import restore
from jaxspeech.errors import EXIT_USER_ERROR, run_or_explain

LEVELS = pathlib.Path(__file__).parents[1] / "level_task.py"


@pytest.fixture
def label(monkeypatch, tmp_path, capsys):
    """Runs `jaxspeech prepare pseudo-label` in a folder: exit code, stdout, stderr."""
    monkeypatch.setattr(restore, "load_for_use", lambda place: (levels.Levels(), levels.params(), levels.config()))
    devices = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda *_, **__: devices)  # eight of them compile slowly
    monkeypatch.chdir(tmp_path)

    def label(*words):
        words = ["jaxspeech", "prepare", "pseudo-label", "dev.jsonl", "--checkpoint=run", "--processes=1", *words]
        monkeypatch.setattr(sys, "argv", words)
        code = run_or_explain(cli._dispatch)
        out, err = capsys.readouterr()
        return code, out, err

    return label


def test_a_manifest_without_texts_gets_them_and_the_totals_come_last(label, tmp_path):
    levels.write_set(tmp_path, [("one two", ""), ("three", ""), ("four", "")])
    (tmp_path / "u2.wav").unlink()
    code, out, err = label("--out=labelled.jsonl", "--as-text", "--json")
    assert code == 0
    lines = (tmp_path / "labelled.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["one two", "three"]
    totals = json.loads(out.splitlines()[-1])
    assert {key: totals[key] for key in ("read", "kept", "filtered", "failed")} == {
        "read": 3,
        "kept": 2,
        "filtered": {},
        "failed": {"missing file": 1},
    }
    assert totals["hours"] == pytest.approx(12 * 0.02 / 3600, abs=1e-6)
    assert "2 lines have an average log-probability" in out
    assert "RTFx" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out=dev.jsonl"], "is the manifest that is read"),
        (["--out=o.jsonl", "--pseudo=text"], "'text' is a key of the manifest itself"),
        (["--out=o.jsonl", "--longest=0"], "--longest 0: give seconds above 0"),
        (["--out=o.jsonl", "--max-failed=2"], "--max-failed 2: it is between 0 and 1"),
    ],
)
def test_mistakes_are_one_line(label, tmp_path, words, message):
    levels.write_set(tmp_path, [("one", "")])
    code, _, err = label(*words)
    assert (code, err.count("\n")) == (EXIT_USER_ERROR, 1)
    assert message in err


SLOW = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("level_task", sys.argv.pop(1))
levels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(levels)
pause = float(sys.argv.pop(1))

class Slow(levels.Levels):
    def load(self, record, rng):
        time.sleep(pause)
        return super().load(record, rng)

from jaxspeech import cli
from jaxspeech.checkpoint import restore
restore.load_for_use = lambda place: (Slow(), levels.params(), levels.config(batch_seconds=1.0))
cli.main()
"""


@pytest.mark.slow
def test_kill_and_start_again_writes_the_bytes_of_an_undisturbed_run(tmp_path):
    texts = [("word " * (1 + number % 7)).strip() + "abcdefg"[number % 7] for number in range(120)]
    source = levels.write_set(tmp_path, [(text, "") for text in texts])
    (tmp_path / "u17.wav").unlink()

    def start(name, pause):
        words = ["prepare", "pseudo-label", source, "--checkpoint=run", f"--out={tmp_path / name}.jsonl"]
        command = [sys.executable, "-c", textwrap.dedent(SLOW), LEVELS, pause, *words, "--processes=1"]
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    undisturbed = start("undisturbed", 0)
    assert undisturbed.wait(120) == 0, undisturbed.stderr.read()
    journal, done = tmp_path / ".killed.jsonl.journal", 0
    for _ in range(2):
        process = start("killed", 0.1)
        deadline = time.monotonic() + 120
        while not (journal.exists() and journal.stat().st_size > done):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        done = journal.stat().st_size
        assert not (tmp_path / "killed.jsonl").exists()
    last = start("killed", 0)
    assert last.wait(120) == 0
    assert "had been labelled before" in last.stderr.read()
    for name in ("{}.jsonl", "{}.rejected.jsonl"):
        assert (tmp_path / name.format("killed")).read_bytes() == (tmp_path / name.format("undisturbed")).read_bytes()
    assert len((tmp_path / "killed.jsonl").read_text().splitlines()) == 119
    assert not journal.exists()
