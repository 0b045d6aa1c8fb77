"""Tables: every line is accounted for, whatever quotes stand in it."""

import argparse
import gzip
import pathlib

import pytest

from jaxspeech.corpora import table
from jaxspeech.corpora.source import Found, Rejected
from jaxspeech.data import record
from jaxspeech.errors import UserError


def source(*words: object) -> table.Table:
    parser = argparse.ArgumentParser()
    table.add_arguments(parser)
    return table.source(parser.parse_args([str(word) for word in words]))


def items(file: pathlib.Path, *words: object, audio: str = "path", text: str = "sentence") -> list[Found | Rejected]:
    opened = source(file, "--audio", audio, "--text", text, *words)
    return [item for split in opened.splits() for item in opened.items(split)]


def file(folder: pathlib.Path, name: str, content: str | bytes) -> pathlib.Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(found: list[Found | Rejected]) -> list[str]:
    return [item.row["text"] for item in found if isinstance(item, Found)]


def test_columns_become_keys(tmp_path):
    path = file(
        tmp_path,
        "train.csv",
        'client,path,sentence,seconds,lang,fr\nc1,a/1.wav,"Hello, ""you""",1.5,en,Bonjour\nc2,/abs/2.wav,Yes,2,,\n',
    )
    words = ("--speaker", "client", "--duration", "seconds", "--language", "lang", "--translation", "fr")
    first, second = items(path, *words)
    assert first.where == "train.csv:2"
    assert first.row == {
        "id": "a/1",
        "text": 'Hello, "you"',
        "audio": str(tmp_path / "a/1.wav"),
        "duration": 1.5,
        "speaker": "c1",
        "language": "en",
        "translation": "Bonjour",
    }
    assert second.row == {"id": "/abs/2", "text": "Yes", "audio": "/abs/2.wav", "duration": 2.0, "speaker": "c2"}
    record.check(first.row)


def test_a_quote_in_a_tsv_swallows_no_row(tmp_path):
    path = file(tmp_path, "t.tsv", 'path\tsentence\na.mp3\t"Nobody knew\nb.mp3\tIt was 5" long\nc.mp3\tend"\n')
    assert texts(items(path)) == ['"Nobody knew', 'It was 5" long', 'end"']


def test_a_quote_in_a_csv_swallows_no_row(tmp_path):
    path = file(tmp_path, "t.csv", 'path,sentence\na.mp3,"Nobody knew\nb.mp3,It was 5" long\nc.mp3,"x" y\nd.mp3,"z"\n')
    found = items(path)
    assert texts(found) == ['It was 5" long', "z"]
    assert [(item.where, item.reason) for item in found if isinstance(item, Rejected)] == [
        ("t.csv:2", "unclosed quote"),
        ("t.csv:4", "misplaced quote"),
    ]


def test_a_field_of_several_lines_is_read_when_asked_for(tmp_path):
    path = file(tmp_path, "t.csv", 'path,sentence\na.mp3,"one\ntwo"\nb.mp3,three\n')
    assert texts(items(path)) == ["three"]
    found = items(path, "--multiline")
    assert texts(found) == ["one two", "three"]
    assert [item.where for item in found] == ["t.csv:2", "t.csv:4"]


def test_an_unclosed_quote_swallows_no_row_even_among_fields_of_several_lines(tmp_path):
    rows = "".join(f'{n}.mp3,"text\n{n}"\n' for n in range(200))
    path = file(tmp_path, "t.csv", f'path,sentence\n{rows}bad.mp3,"never closed\n{rows.replace(".mp3", ".wav")}')
    found = items(path, "--multiline")
    assert texts(found) == [f"text {n}" for n in range(200)] * 2
    (bad,) = (item for item in found if isinstance(item, Rejected))
    assert (bad.where, bad.reason) == ("t.csv:402", "unclosed quote")


def test_defects_are_named_with_their_lines(tmp_path):
    content = (
        b"\xef\xbb\xbfpath\tsentence\tsec\r\n"
        b"a.wav\tgood\t1\r\n"
        b"b.wav\tbad \xff\t1\r\n"
        b"c.wav\tone\ttwo\tthree\r\n"
        b"d.wav\tshort\r\n"
        b"\tno audio\t1\r\n"
        b"e.wav\tlength\tlong\r\n"
        b"f.wav\tnan\tnan\r\n"
        b"g.wav\t\t\r\n"
    )
    found = items(file(tmp_path, "t.tsv", content), "--duration", "sec")
    assert [(item.where, item.reason) for item in found if isinstance(item, Rejected)] == [
        ("t.tsv:3", "bad UTF-8"),
        ("t.tsv:4", "wrong number of columns"),
        ("t.tsv:5", "wrong number of columns"),
        ("t.tsv:6", "no audio"),
        ("t.tsv:7", "bad number"),
        ("t.tsv:8", "bad number"),
    ]
    assert texts(found) == ["good", ""]
    assert len(found) == 8


def test_pieces_of_a_recording_have_offsets(tmp_path):
    path = file(tmp_path, "t.csv", "path,begin,end,sentence\nr.wav,1.25,3,x\nr.wav,3,4,y\nr.wav,5,,z\n")
    found = items(path, "--offset", "begin", "--end", "end")
    assert [(item.row["id"], item.row["offset"], item.row["duration"]) for item in found[:2]] == [
        ("r-1.250", 1.25, 1.75),
        ("r-3.000", 3.0, 1.0),
    ]
    assert found[2].reason == "bad number"


def test_a_file_without_header_and_a_pattern_of_paths(tmp_path):
    path = file(tmp_path, "metadata.csv", 'LJ1|He said "1".|He said "one".\n')
    words = ("--columns", "name,raw,text", "--delimiter", "pipe", "--quoting", "none", "--audio-pattern", "wavs/{}.wav")
    (item,) = items(path, *words, "--id", "name", audio="name", text="text")
    assert item.row == {"id": "LJ1", "text": 'He said "one".', "audio": str(tmp_path / "wavs/LJ1.wav")}


def test_packed_tables_and_urls_are_taken(tmp_path):
    packed = tmp_path / "dev.tsv.gz"
    packed.write_bytes(gzip.compress(b"path\tsentence\ns3://bucket/a.flac\thello\n"))
    opened = source(packed, "--audio", "path", "--text", "sentence")
    assert opened.splits() == ["dev"]
    assert items(packed)[0].row["audio"] == "s3://bucket/a.flac"
    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises(UserError, match="cannot be read"):
        items(packed)


def test_a_wrong_column_is_explained(tmp_path):
    path = file(tmp_path, "t.csv", "path,text\na.wav,b\n")
    with pytest.raises(UserError, match=r"--text: .* has no column 'sentence', but path, text; for a file without"):
        items(path)
    with pytest.raises(UserError, match="two columns 'x'"):
        items(file(tmp_path, "twice.csv", "x,x\n"), audio="x", text="x")
    with pytest.raises(UserError, match="--delimiter is None; give tab"):
        items(file(tmp_path, "t.txt", "x,x\n"))
    with pytest.raises(UserError, match="is empty"):
        items(file(tmp_path, "empty.csv", ""))
    with pytest.raises(UserError, match="does not exist"):
        items(tmp_path / "absent.csv")
