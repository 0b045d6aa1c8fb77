"""Kaldi folders, as its own tools write them and as hands write them."""

import argparse
import pathlib

import pytest

from jaxspeech.corpora import kaldi
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data import record
from jaxspeech.errors import UserError


def write(folder: pathlib.Path, **files: str | bytes) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name.replace("wav_scp", "wav.scp")).write_bytes(data)
    return folder


def source(*words: object) -> kaldi.Kaldi:
    parser = argparse.ArgumentParser()
    kaldi.add_arguments(parser)
    return kaldi.source(parser.parse_args([str(word) for word in words]))


def items(*words: object) -> list[Found | Rejected]:
    opened = source(*words)
    return [item for split in opened.splits() for item in opened.items(split)]


def test_wav_scp_and_text_become_rows(tmp_path):
    folder = write(
        tmp_path / "dev",
        wav_scp="s1-a /data/a b.wav\ns1-b sub/b.flac\n",
        text="s1-a hello  there\ns1-b\n",
        utt2spk="s1-a s1\ns1-b s1\n",
        utt2lang="s1-a en\n",
        utt2dur="s1-a 1.25\n",
    )
    found = items(folder, "--root", tmp_path)
    assert [item.where for item in found] == ["dev/wav.scp:1", "dev/wav.scp:2"]
    assert [item.row for item in found] == [
        {
            "id": "s1-a",
            "text": "hello  there",
            "audio": "/data/a b.wav",
            "duration": 1.25,
            "speaker": "s1",
            "language": "en",
        },
        {"id": "s1-b", "text": "", "audio": str(tmp_path / "sub/b.flac"), "speaker": "s1"},
    ]
    for item in found:
        record.check(item.row)


def test_segments_are_stretches_of_their_recordings(tmp_path):
    folder = write(
        tmp_path / "train",
        wav_scp="call /c.wav\nlong /l.wav\n",
        segments="u1 call 0.5 2.25 A\nu2 call 0.5 2.25 1\nu3 long 3 -1\n",
        text="u1 one\nu2 two\nu3 three\n",
        reco2dur="long 10.5\n",
    )
    rows = [item.row for item in items(folder)]
    assert rows[0] == {"id": "u1", "text": "one", "audio": "/c.wav", "offset": 0.5, "duration": 1.75, "channel": 0}
    assert rows[1]["channel"] == 1
    assert rows[2] == {"id": "u3", "text": "three", "audio": "/l.wav", "offset": 3.0, "duration": 7.5}
    (folder / "reco2dur").unlink()
    assert "duration" not in items(folder)[2].row  # the header tells it


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("sph2pipe -f wav -p -c 1 /x.sph |", "is a command (it ends in '|'); run it once"),
        ("/wavs/raw.ark:2204", "lies within an archive"),
    ],
)
def test_what_is_no_file_is_refused_with_its_line(tmp_path, entry, told):
    folder = write(tmp_path / "train", wav_scp=f"a /a.wav\nb {entry}\nc {entry}\n", text="a x\nb y\nc z\n")
    with pytest.raises(UserError) as error:
        source(folder).splits()
    assert f"{folder}/wav.scp:2: the audio of b {told}" in str(error.value)
    assert str(error.value).endswith("(and 1 more such line)")


def test_each_bad_line_is_named_and_none_stops_the_rest(tmp_path):
    folder = write(
        tmp_path / "t",
        wav_scp="a /a.wav\nalone\nb /b.wav\nc /c.wav\n",
        text=b"a good\nc \xff\xfe broken\nd no audio\na again\n\xc3 x\n",
    )
    found = items(folder)
    assert [item.row["id"] for item in found if isinstance(item, Found)] == ["a"]
    assert {(item.where, item.reason) for item in found if isinstance(item, Rejected)} == {
        ("t/text:4", "duplicate id"),
        ("t/text:5", "bad UTF-8"),
        ("t/wav.scp:2", "bad line"),
        ("t/wav.scp:3", "no transcript"),
        ("t/text:2", "bad UTF-8"),
        ("t/text:3", "no audio"),
    }
    assert len(found) == 7


@pytest.mark.parametrize("line", ["u rec 2 1", "u rec 0 x", "u rec nan 1", "u rec -1 1", "u rec", "u rec 0 1 X"])
def test_a_bad_segment_is_rejected(tmp_path, line):
    folder = write(tmp_path / "t", wav_scp="rec /r.wav\n", segments=f"{line}\n", text="u word\n")
    (item,) = items(folder)
    assert (item.where, item.reason) == ("t/segments:1", "bad segment")


def test_a_segment_of_an_unknown_recording_is_rejected(tmp_path):
    folder = write(tmp_path / "t", wav_scp="rec /r.wav\n", segments="u other 0 1\n", text="u word\n")
    assert [(item.where, item.reason) for item in items(folder)] == [("t/segments:1", "no audio")]  # counted once


def test_windows_line_ends_and_a_byte_order_mark_are_no_text(tmp_path):
    folder = write(tmp_path / "t", wav_scp=b"\xef\xbb\xbfa\t/a.wav\r\n", text=b"\xef\xbb\xbfa hello\r\n")
    assert items(folder)[0].row == {"id": "a", "text": "hello", "audio": "/a.wav"}


def test_an_ideographic_space_belongs_to_the_text(tmp_path):
    folder = write(tmp_path / "t", wav_scp="a /a.wav\n", text="a 你\u3000好\n")
    assert items(folder)[0].row["text"] == "你\u3000好"


def test_a_folder_of_folders_has_a_split_for_each(tmp_path):
    for name in ("train", "dev"):
        write(tmp_path / "data" / name, wav_scp=f"{name}1 /a.wav\n", text=f"{name}1 x\n")
    (tmp_path / "data" / "local").mkdir()
    assert source(tmp_path / "data").splits() == ["dev", "train"]
    assert [item.row["id"] for item in items(tmp_path / "data")] == ["dev1", "train1"]


def test_what_is_no_kaldi_folder_is_said(tmp_path):
    with pytest.raises(UserError, match="holds no wav"):
        source(tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        source(tmp_path / "absent")
    with pytest.raises(UserError, match="no file 'text'"):
        source(write(tmp_path / "t", wav_scp="a /a.wav\n"))
    write(tmp_path / "t", text=b"\xff\xfea\x00")
    with pytest.raises(UserError, match="UTF-16"):
        items(tmp_path / "t")
