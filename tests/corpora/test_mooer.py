"""MooER's data.list and its tars."""

import argparse
import io
import tarfile

import pytest

from jaxspeech.corpora import mooer
from jaxspeech.corpora.source import Found
from jaxspeech.corpora.tar_shards import TarShards
from jaxspeech.errors import UserError


def source(*words: object) -> TarShards:
    parser = argparse.ArgumentParser()
    mooer.add_arguments(parser)
    return mooer.source(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def packed(tmp_path):
    """Two shards as MooER packs them: the text first, then the bytes of the file."""
    folder = tmp_path / "train"
    folder.mkdir()
    texts = {"BAC009S0002W0122": "打开IPHONE▁SIRI功能", "v1.5_b": "HELLO▁WORLD", "c": "甚至"}
    for number, keys in enumerate((["BAC009S0002W0122", "v1.5_b"], ["c"])):
        with tarfile.open(folder / f"shards_{number:09d}.tar", "w") as tar:
            for key in keys:
                for name, data in ((f"{key}.txt", texts[key].encode()), (f"{key}.wav", b"RIFF")):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    names = sorted(str(path) for path in folder.glob("*.tar"))
    (folder / "data.list").write_text("".join(f"{name}\n" for name in names))
    return folder


def test_a_data_list_becomes_rows(packed):
    opened = source(packed / "data.list")
    assert opened.splits() == ["train"]
    rows = [item.row for item in opened.items("train") if isinstance(item, Found)]
    assert [(row["id"], row["text"]) for row in rows] == [
        ("BAC009S0002W0122", "打开IPHONE SIRI功能"),
        ("v1.5_b", "HELLO WORLD"),
        ("c", "甚至"),
    ]
    assert rows[1]["audio"] == f"{packed}/shards_000000000.tar#v1.5_b.wav"


def test_the_marks_of_spaces_can_be_kept(packed):
    rows = [item.row for item in source(packed / "data.list", "--keep-marks").items("train")]
    assert rows[0]["text"] == "打开IPHONE▁SIRI功能"


def test_shards_that_moved_are_found_with_root(packed, tmp_path):
    (packed / "data.list").write_text("/jfs/old/shards_000000000.tar\n/jfs/old/shards_000000001.tar\n")
    with pytest.raises(UserError, match=r"data\.list:1: /jfs/old/shards_000000000\.tar does not exist.* give --root"):
        source(packed / "data.list").splits()
    opened = source(packed / "data.list", "--root", packed)
    assert opened.splits() == ["train"]
    assert len(list(opened.items("train"))) == 3


def test_an_empty_or_missing_list_is_explained(tmp_path):
    (tmp_path / "data.list").write_text("\n")
    with pytest.raises(UserError, match="lists no tars"):
        source(tmp_path / "data.list")
    with pytest.raises(UserError, match="does not exist"):
        source(tmp_path / "absent.list")
    (tmp_path / "two").mkdir()
    for path in (tmp_path / "dev.list", tmp_path / "two" / "dev.list"):
        path.write_text("a.tar\n")
    with pytest.raises(UserError, match="both be split 'dev'"):
        source(tmp_path / "dev.list", tmp_path / "two" / "dev.list")
