"""`jaxspeech prepare listen`: what is written is what a run hears, and it says what was drawn."""

import json
import pathlib

import numpy as np
import pytest
import soundfile

from jaxspeech import cli
from jaxspeech import config as configs
from jaxspeech.data.augment import Augmentation, generator
from jaxspeech.data.manifest import write_manifest

ROOT = pathlib.Path(__file__).parents[2]
RATE = 16000
SET = ("--config.data.augment.gain_db=0", "--config.data.augment.time_mask=0", "--config.data.augment.speed=0")


@pytest.fixture
def listen(monkeypatch, capsys, tmp_path):
    """Runs the command on a manifest of two utterances: exit code, stdout, stderr."""
    rows = []
    for number in range(2):
        sound = 0.1 * np.random.default_rng(number).standard_normal(RATE)
        soundfile.write(tmp_path / f"{number}.wav", sound, RATE, subtype="FLOAT")
        rows.append({"id": f"set/{number}", "audio": f"{number}.wav", "text": "x", "duration": 1.0})
    write_manifest(tmp_path / "m.jsonl", rows)

    def listen(*words, manifest="m.jsonl"):
        config = f"--config={ROOT / 'configs' / 'digits.py'}"
        words = ("prepare", "listen", str(tmp_path / manifest), *words, config, f"--out={tmp_path / 'heard'}")
        monkeypatch.setattr("sys.argv", ["jaxspeech", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capsys.readouterr()

    return listen


def test_the_files_are_what_a_run_hears_in_its_first_epochs(listen, tmp_path):
    code, out, err = listen("set/1", "--epochs=2", "--json", *SET)
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert [pathlib.Path(file["file"]).name for file in found["files"]] == [
        "original.wav",
        "epoch-0.wav",
        "epoch-1.wav",
    ]
    config = configs.load(str(ROOT / "configs" / "digits.py"), SET)
    augmentation = Augmentation.from_config(config.data, RATE)
    original, _ = soundfile.read(tmp_path / "1.wav", dtype="float32")
    for epoch, file in enumerate(found["files"][1:]):
        heard, drawn = augmentation.explain(original, generator(config.seed, epoch, "set/1"))
        np.testing.assert_allclose(soundfile.read(file["file"], dtype="float32")[0], heard, atol=1.01 / 32768)
        assert file["drawn"] == drawn
        assert 20 <= drawn["noise_db"] <= 50
        assert f"noise_db {drawn['noise_db']:.4g}" in out
    assert found["files"][1]["drawn"] != found["files"][2]["drawn"]


def test_a_step_asks_for_what_the_schedule_has_come_to(listen):
    _, out, _ = listen("set/0", "--epochs=1", "--step=10", "--json", "--config.data.augment.delay=20")
    assert json.loads(out.splitlines()[-1])["files"][1]["drawn"] == {}
    assert "nothing was drawn" in out


def test_an_utterance_that_is_not_there_is_named_with_the_nearest(listen):
    code, _, err = listen("set/7")
    assert code == 2
    assert err.count("\n") == 1
    assert "has no utterance 'set/7'; did you mean 'set/" in err


def test_audio_that_cannot_be_read_is_one_line(listen, tmp_path):
    (tmp_path / "0.wav").unlink()
    code, _, err = listen("set/0")
    assert (code, err.count("\n")) == (2, 1)
    assert "missing file" in err
