"""Folders of audio with texts beside them or under a second folder."""

import os

import numpy as np
import pytest
import soundfile

from jaxspeech import config as configs
from jaxspeech.corpora.folder import AudioFolder
from jaxspeech.corpora.preparation import prepare
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data.augment import Augmentation, generator
from jaxspeech.data.manifest import Manifest
from jaxspeech.errors import UserError


@pytest.fixture
def clips(tmp_path):
    """Four files in three folders, with their texts."""
    for number, name in enumerate(("b/2.wav", "a/1.FLAC", "a/x/3.ogg", "0.wav")):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {".FLAC": "FLAC", ".ogg": "OGG"}.get(path.suffix, "WAV")
        soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(8000), 8000, format=kind)
        path.with_suffix(".txt").write_text(f" text of\n {path.stem} ", "utf-8")
    return tmp_path / "clips"


def told(source, split=None):
    return list(source.items(split or source.splits()[0]))


def test_texts_beside_the_audio_are_found_in_the_order_of_names(clips, tmp_path):
    (clips / "a" / "notes.md").write_text("neither audio nor text")
    source = AudioFolder(str(clips), language="en")
    assert source.splits() == ["clips"]
    found = told(source)
    assert [item.row["id"] for item in found] == ["0", "a/1", "a/x/3", "b/2"]
    assert found[1].row == {
        "id": "a/1",
        "audio": str(clips / "a" / "1.FLAC"),
        "text": "text of 1",
        "language": "en",
    }
    assert prepare(source, tmp_path / "out", processes=1)["kept"] == 4
    assert Manifest.open(tmp_path / "out" / "clips.jsonl").durations == pytest.approx(1.0)


def test_texts_may_lie_under_a_second_folder(clips, tmp_path):
    for text in sorted(clips.rglob("*.txt")):
        target = tmp_path / "texts" / text.relative_to(clips).with_suffix(".lab")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(text, target)
    (tmp_path / "texts" / "b" / "more.lab").write_text("nobody says this")
    found = told(AudioFolder(str(clips), texts=str(tmp_path / "texts"), text_suffix=".lab"))
    assert [item.row["text"] for item in found[:4]] == ["text of 0", "text of 1", "text of 3", "text of 2"]
    assert [(item.reason, os.path.basename(item.where)) for item in found[4:]] == [("text without audio", "more.lab")]


def test_each_folder_may_be_a_split(clips):
    source = AudioFolder(str(clips), by_folder=True)
    assert source.splits() == ["a", "b"]
    assert [item.row["id"] for item in told(source, "a")] == ["a/1", "a/x/3"]
    with pytest.raises(UserError, match="no folders that could be splits"):
        AudioFolder(str(clips / "b"), by_folder=True).splits()


def test_what_cannot_be_used_is_told_and_the_rest_goes_on(clips):
    (clips / "0.txt").write_bytes(b"\xef\xbb\xbfwith a byte order mark")
    (clips / "b" / "2.txt").write_bytes(b"caf\xe9")
    (clips / "a" / "1.txt").unlink()
    (clips / "lonely.txt").write_text("no audio")
    (clips / "a" / "x" / "up").symlink_to(clips / "a")
    found = told(AudioFolder(str(clips)))
    assert [item.row["text"] for item in found if isinstance(item, Found)] == ["with a byte order mark", "text of 3"]
    assert {(os.path.relpath(item.where, clips), item.reason) for item in found if isinstance(item, Rejected)} == {
        ("a/1.FLAC", "no text"),
        ("b/2.txt", "bad UTF-8"),
        ("lonely.txt", "text without audio"),
        ("a/x/up", "symlink loop"),
    }


@pytest.fixture
def noises(tmp_path):
    """Two noises, one of them in stereo, and a note about them; two rooms; nothing has a text."""
    rng = np.random.default_rng(0)
    sounds = {"noise/rain.wav": (24000,), "noise/far/cars.flac": (40000, 2), "room/hall.wav": (3000,)}
    for name, shape in {**sounds, "room/box.wav": (1600,)}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        sound = 0.1 * rng.standard_normal(shape)
        soundfile.write(tmp_path / name, sound * np.exp(-np.arange(shape[0]) / 400) if "room" in name else sound, 16000)
    (tmp_path / "noise" / "README.txt").write_text("who recorded them")
    return tmp_path


def test_without_texts_all_audio_is_kept_and_no_text_is_missed(noises, tmp_path):
    found = prepare(AudioFolder(str(noises / "noise"), no_text=True), tmp_path / "out", processes=1, decode=True)
    assert (found["read"], found["kept"], found["filtered"], found["failed"]) == (2, 2, {}, {})
    manifest = Manifest.open(tmp_path / "out" / "noise.jsonl")
    assert manifest.ids(range(2)) == ["far/cars", "rain"]
    assert list(manifest.texts()) == ["", ""]


def test_such_manifests_are_what_noises_and_rooms_are_drawn_from(noises, tmp_path):
    for name in ("noise", "room"):
        prepare(AudioFolder(str(noises / name), no_text=True), tmp_path / "out", processes=1)
    data = configs.base("jaxspeech.tasks.moonshine.Moonshine").data
    for part, name in (("background", "noise"), ("room", "room")):
        data.augment[part].probability = 1.0
        data.augment[part].manifest = str(tmp_path / "out" / f"{name}.jsonl")
    augmentation = Augmentation.from_config(data, 16000)
    audio = np.sin(np.arange(16000) / 8).astype(np.float32)
    drawn = [augmentation.explain(audio, generator(0, 0, str(n)))[1] for n in range(20)]
    assert {row["room"]["id"] for row in drawn} == {"hall", "box"}
    assert {row["background"]["ids"][0] for row in drawn} == {"rain", "far/cars"}


def test_texts_that_are_given_and_not_wanted_are_refused(clips):
    with pytest.raises(UserError, match=r"--no-text and --texts .* exclude each other"):
        AudioFolder(str(clips), texts=str(clips), no_text=True)


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(UserError, match="nowhere is no folder"):
        AudioFolder(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="texts is no folder"):
        AudioFolder(str(tmp_path), texts=str(tmp_path / "texts"))
