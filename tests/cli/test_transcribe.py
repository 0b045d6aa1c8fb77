import json
import pathlib
import subprocess
import sys

import jax
import level_task as levels
import numpy as np
import pytest
import soundfile

from jaxspeech import cli
from jaxspeech.checkpoint import restore
from jaxspeech.errors import EXIT_USER_ERROR, run_or_explain


@pytest.fixture
def transcribe(monkeypatch, tmp_path, capsys):
    """Runs `jaxspeech transcribe` in a folder: exit code, stdout, stderr."""
    monkeypatch.setattr(restore, "load_for_use", lambda place: (levels.Levels(), levels.params(), levels.config()))
    devices = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda *_, **__: devices)  # eight of them compile slowly
    monkeypatch.chdir(tmp_path)

    def transcribe(*words):
        monkeypatch.setattr(sys, "argv", ["jaxspeech", "transcribe", "--checkpoint=run", *words])
        code = run_or_explain(cli._dispatch)
        out, err = capsys.readouterr()
        return code, out, err

    return transcribe


def test_one_file_gives_its_text_alone(transcribe):
    levels.write("a.wav", "hello there")
    code, out, err = transcribe("a.wav")
    assert (code, out) == (0, "hello there\n")
    assert err.startswith("1 file, 0.2 s of audio, RTFx ")


def test_several_files_give_a_line_each_with_the_path(transcribe):
    levels.write("b.wav", "two")
    levels.write("a.wav", "one")
    code, out, err = transcribe("b.wav", "a.wav")
    assert (code, out) == (0, "b.wav\ttwo\na.wav\tone\n")
    assert err.startswith("2 files")


def test_json_gives_one_object_a_file(transcribe):
    levels.write("a.wav", "one")
    soundfile.write("b.wav", np.zeros(1600), 16_000)
    code, out, _ = transcribe("a.wav", "b.wav", "--json")
    assert code == 0
    one, two = map(json.loads, out.splitlines())
    tokens = levels.Levels().tokenizer.encode("one")
    assert one == {"audio": "a.wav", "text": "one", "tokens": tokens, "duration": pytest.approx(0.06)}
    assert two == {"audio": "b.wav", "text": "", "tokens": [], "duration": 0.1}


def test_out_gets_what_would_be_printed(transcribe, tmp_path):
    levels.write("a.wav", "one")
    code, out, _ = transcribe("a.wav", "--out=text.txt")
    assert (code, out) == (0, "")
    assert (tmp_path / "text.txt").read_text() == "one\n"
    code, _, err = transcribe("a.wav", "--out=nowhere/text.txt")
    assert code == EXIT_USER_ERROR
    assert "--out nowhere/text.txt cannot be written" in err


def test_a_bad_file_is_named_and_the_others_go_on(transcribe):
    levels.write("a.wav", "one")
    pathlib.Path("bad.wav").write_bytes(b"RIFF")
    code, out, err = transcribe("bad.wav", "a.wav", "missing.wav")
    assert code == EXIT_USER_ERROR
    assert out == "a.wav\tone\n"
    lines = err.splitlines()
    assert lines[0] == "error: bad.wav: corrupt audio"
    assert lines[1] == "error: missing.wav: missing file"
    assert lines[-1] == "error: 2 of 3 files could not be transcribed: bad.wav, missing.wav"


def test_beams_find_the_same_in_certain_audio(transcribe):
    levels.write("a.wav", "hello")
    assert transcribe("a.wav", "--beams=3")[1] == "hello\n"
    code, _, err = transcribe("a.wav", "--beams=0")
    assert (code, err.startswith("error: --beams 0")) == (EXIT_USER_ERROR, True)


def test_pieces_are_no_longer_than_asked(transcribe):
    levels.write("a.wav", " ".join(["hello"] * 40), pause=8)  # 10 s
    out = transcribe("a.wav", "--longest=1")[1]
    assert out.replace(" ", "") == "hello" * 40 + "\n"
    assert len(out.split()) >= 10
    code, _, err = transcribe("a.wav", "--longest=0.2")
    assert (code, "1 s or more" in err) == (EXIT_USER_ERROR, True)


@pytest.mark.parametrize("command", ["transcribe", "evaluate"])
def test_help_starts_no_jax(command):
    code = (
        f"import sys, runpy; sys.argv = ['jaxspeech', '{command}', '--help']\n"
        "from jaxspeech import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "sys.exit('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--checkpoint" in done.stdout
