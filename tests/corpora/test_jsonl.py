"""JSON lines of several dialects: keys, paths, ends of lines, and lines that cannot be read."""

import argparse
import json

import pytest

from jaxspeech.corpora import jsonl
from jaxspeech.corpora.jsonl import JsonLines
from jaxspeech.corpora.preparation import prepare
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.errors import UserError


def told(path, content, **given):
    """What a file with this content tells of."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content), "utf-8")
    return list(JsonLines([str(path)], **given).items(path.stem))


def row_of(path, row, **given):
    (found,) = told(path, [row], **given)
    assert isinstance(found, Found)
    return found.row


@pytest.fixture
def listed(tmp_path):
    return tmp_path / "train.jsonl"


@pytest.mark.parametrize(
    "row",
    [
        {"id": "a1", "audio": "c/a1.wav", "text": "hello", "duration": 1.5},
        {"utt_id": "a1", "audio_filepath": "c/a1.wav", "transcript": "hello", "seconds": 1.5},
        {"key": "a1", "path": "c/a1.wav", "transcription": "hello", "duration": 1.5},
        {"id": "a1", "audio_path": "./c/a1.wav", "sentence": "hello", "dur": 1.5},
        {"id": "a1", "audio": None, "wav": "c//a1.wav", "text": "hello", "duration": 1.5},
    ],
)
def test_keys_of_other_tools_become_ours(listed, row):
    found = {key: value for key, value in row_of(listed, row).items() if value is not None}
    assert found == {"id": "a1", "audio": str(listed.parent / "c/a1.wav"), "text": "hello", "duration": 1.5}


def test_ours_count_before_those_of_others_and_unknown_keys_are_kept(listed):
    row = {"path": "other.wav", "audio": "a.wav", "id": "1", "text": "t", "lang": "de", "pnc": "yes", "words": []}
    found = row_of(listed, row)
    assert found["audio"] == str(listed.parent / "a.wav")
    assert (found["language"], found["pnc"], found["words"], found["path"]) == ("de", "yes", [], "other.wav")


def test_lines_without_an_id_are_named_after_their_audio(listed):
    rows = [
        {"audio_filepath": "c/a1.wav", "text": "x"},
        {"audio_filepath": "c/a1.wav", "text": "x", "offset": 1.5, "duration": 2},
        {"audio_filepath": "/data/b.flac", "text": "x"},
        {"id": 7, "audio_filepath": "c/a1.wav", "text": "x"},
    ]
    assert [item.row["id"] for item in told(listed, rows)] == ["c/a1", "c/a1@1.5+2", "data/b", "7"]


def test_segments_have_paths_too(listed):
    row = {"id": "1", "text": "t", "segments": [{"audio": "a.wav"}, {"audio": "/b.wav", "gap": 0.5}]}
    assert row_of(listed, row)["segments"] == [
        {"audio": str(listed.parent / "a.wav")},
        {"audio": "/b.wav", "gap": 0.5},
    ]


def test_paths_begin_at_the_root_given_and_absolute_ones_may_have_moved(listed, tmp_path):
    given = {"root": str(tmp_path / "audio"), "moved": [("/old/disk", "/new")]}
    for written, path in (
        ("a.wav", str(tmp_path / "audio" / "a.wav")),
        ("../a.wav", str(tmp_path / "a.wav")),
        ("/old/disk/b/a.wav", "/new/b/a.wav"),
        ("/old/disks/a.wav", "/old/disks/a.wav"),
        ("s3://bucket/a.wav", "s3://bucket/a.wav"),
    ):
        assert row_of(listed, {"id": "1", "audio": written, "text": "t"}, **given)["audio"] == path


def test_marks_and_ends_of_windows_are_skipped_and_noted(listed):
    line = b'{"id": "1", "audio": "a.wav", "text": "t"}'
    listed.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line.replace(b"1", b"2") + b"\r\n" + line)
    source = JsonLines([str(listed)])
    assert [item.where.rpartition(":")[2] for item in source.items("train") if isinstance(item, Found)] == [
        "1",
        "3",
        "4",
    ]
    assert source.notes == {
        f"byte order mark skipped in {listed}, first in line 1": 1,
        f"line ends of Windows (CRLF) in {listed}, first in line 1": 3,
    }


def test_bad_lines_are_told_with_file_and_line_and_the_rest_goes_on(listed):
    good = b'{"id": "1", "audio": "a.wav", "text": "caf\xc3\xa9"}\n'
    found = told(listed, good + b'{"text": "caf\xe9"}\n' + b'{"id": \n' + b"[1]\n" + b"[" * 9999 + b"\n" + good)
    assert [item.reason for item in found if isinstance(item, Rejected)] == ["bad UTF-8", *["bad JSON"] * 3]
    assert [item.where for item in found[1:3]] == [f"{listed}:2", f"{listed}:3"]
    assert "byte 14 of the line, 0xe9" in found[1].detail
    assert [item.row["text"] for item in found if isinstance(item, Found)] == ["café", "café"]


def test_other_forms_of_files_are_refused_by_name(tmp_path):
    for content, message in (
        (b'[{"audio": 1}]', "one JSON array"),
        (b"\xff\xfe{\x00", "UTF-16"),
        (None, "cannot be read"),
    ):
        path = tmp_path / "a.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            JsonLines([str(path)])
    path.write_bytes(b"")
    with pytest.raises(UserError, match="would both be split 'a'"):
        JsonLines([str(path), str(path)])


def test_a_file_is_not_overwritten_by_its_own_manifest(listed, tmp_path):
    listed.touch()
    args = argparse.Namespace(files=[str(listed)], root=None, moved=[])
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="would be overwritten"):
        prepare(jsonl.source(args), tmp_path / "x" / "..")
    args.moved = ["old"]
    with pytest.raises(UserError, match="give OLD=NEW"):
        jsonl.source(args)
