"""`jaxspeech prepare NAME` as a user types it: every name has its help, mistakes are one line, totals add up."""

import importlib
import json

import numpy as np
import pytest
import soundfile

from jaxspeech import cli
from jaxspeech.cli.prepare import NAMES


@pytest.fixture
def jaxspeech(monkeypatch, capsys):
    """Runs a command line; its exit code, stdout and stderr."""

    def command(*words):
        monkeypatch.setattr("sys.argv", ["jaxspeech", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capsys.readouterr()

    return command


@pytest.fixture
def clips(tmp_path):
    """Four files with texts, one without, and one that is no audio."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, seconds in enumerate((1.0, 2.0, 3.0, 0.5, 1.5)):
        sound = 0.1 * np.random.default_rng(number).normal(size=round(16000 * seconds))
        soundfile.write(folder / f"{number}.wav", sound, 16000)
        if number != 4:
            (folder / f"{number}.txt").write_text(f"the text of {number}", "utf-8")
    (folder / "5.wav").write_bytes(b"RIFF but nothing more")
    (folder / "5.txt").write_text("broken", "utf-8")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_name_has_a_module_that_keeps_the_contract_and_a_help(jaxspeech, name):
    code, out, err = jaxspeech("prepare", name, "--help")
    assert (code, err) == (0, "")
    assert f"jaxspeech prepare {name}" in out.splitlines()[0]
    module, kind, description = NAMES[name]
    assert callable(getattr(importlib.import_module(module), {"source": "source", "command": "run"}[kind]))
    assert description[1:15] in " ".join(out.split())
    assert ("--max-failed" in out and "--decode" in out and "--out DIR" in out) or kind == "command"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_alone_says_what_is_missing(jaxspeech, name):
    code, _, err = jaxspeech("prepare", name)
    assert code == 2
    assert "the following arguments are required" in err or err.startswith("error: ")
    assert "Traceback" not in err


def test_the_help_of_prepare_lists_every_name(jaxspeech):
    code, out, _ = jaxspeech("prepare", "--help")
    assert code == 0
    listed = {line.split()[0] for line in out.splitlines() if line.startswith("    ") and line.split()}
    assert set(NAMES) <= listed


@pytest.mark.parametrize(
    ("name", "meant"), [("librispech", "librispeech"), ("export_kaldi", "export-kaldi"), ("filters", "filter")]
)
def test_an_unknown_name_is_refused_in_one_line_with_the_nearest(jaxspeech, name, meant):
    code, out, err = jaxspeech("prepare", name, "--out", "x")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{name!r} is no name; did you mean {meant}?" in err


def test_no_name_is_like_nothing_at_all(jaxspeech):
    code, _, err = jaxspeech("prepare", "zzzz")
    assert code == 2
    assert "did you mean" not in err
    assert all(name in err for name in NAMES)


def adds_up(found):
    return found["read"] == found["kept"] + sum(found["filtered"].values()) + sum(found["failed"].values())


def test_a_folder_becomes_a_manifest_and_a_filtered_one(jaxspeech, clips, tmp_path):
    out = tmp_path / "out"
    code, shown, err = jaxspeech("prepare", "folder", clips, "--out", out, "--processes=1", "--json")
    assert code == 0, err
    found = json.loads(shown.splitlines()[-1])
    assert adds_up(found)
    assert (found["read"], found["kept"]) == (6, 4)
    assert sum(found["failed"].values()) + sum(found["filtered"].values()) == 2
    assert found["hours"] == pytest.approx(6.5 / 3600)
    rejected = [json.loads(line) for line in (out / "clips.rejected.jsonl").read_text("utf-8").splitlines()]
    assert len(rejected) == 2
    assert all(line["where"] and line["reason"] for line in rejected)

    shorter = tmp_path / "shorter.jsonl"
    words = ("--max-seconds=2.5", "--out", shorter, "--processes=1", "--json")
    code, shown, err = jaxspeech("prepare", "filter", out / "clips.jsonl", *words)
    assert code == 0, err
    found = json.loads(shown.splitlines()[-1])
    assert adds_up(found)
    assert (found["read"], found["kept"], sum(found["filtered"].values())) == (4, 3, 1)
    assert [json.loads(line)["id"] for line in shorter.read_text("utf-8").splitlines()] == ["0", "1", "3"]


def test_json_may_stand_before_the_name(jaxspeech, clips, tmp_path):
    code, shown, err = jaxspeech("prepare", "--json", "folder", clips, "--out", tmp_path / "out", "--processes=1")
    assert code == 0, err
    assert json.loads(shown.splitlines()[-1])["kept"] == 4


def test_a_flag_called_name_does_not_change_what_is_asked_for(jaxspeech, tmp_path):
    code, _, err = jaxspeech("prepare", "webdataset", tmp_path / "no.tar", "--name=train", "--out", tmp_path / "out")
    assert code == 2
    assert err.startswith("error: ")
    assert "no.tar" in err


def test_a_folder_that_is_not_there_is_one_line(jaxspeech, tmp_path):
    for name in ("folder", "kaldi", "librispeech", "mls", "commonvoice", "gigaspeech", "peoples_speech", "aishell"):
        code, _, err = jaxspeech("prepare", name, tmp_path / "nowhere", "--out", tmp_path / "out")
        assert (code, err.count("\n")) == (2, 1), err
        assert "nowhere" in err
    assert not (tmp_path / "out").exists()
