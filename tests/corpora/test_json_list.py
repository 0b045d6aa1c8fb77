"""One long JSON list, read one element at a time."""

import json
import tracemalloc

import pytest

from jaxspeech.corpora import json_list
from jaxspeech.corpora.source import Rejected
from jaxspeech.errors import UserError


def read(path):
    return list(json_list.objects(str(path), path.name))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_elements_are_what_json_says_and_lines_what_an_editor_says(tmp_path, monkeypatch, indent, block):
    monkeypatch.setattr(json_list, "_BLOCK", block)
    rows = [{"text": 'a "b", ]}\\', "n": [1, 2.5e3, -1], "é": None}, {}, {"words": [{"word": "x"}]}]
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(rows, indent=indent).encode() + b"\r\n")
    found = read(tmp_path / "a.json")
    assert [row for _, row in found] == rows
    content = (tmp_path / "a.json").read_text("utf-8-sig").splitlines()
    for where, _ in found:
        assert "{" in content[int(where.removeprefix("a.json:")) - 1]
    assert found[0][0] == ("a.json:1" if indent is None else "a.json:2")


def test_what_is_no_object_is_rejected_and_the_rest_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'[{"a": 1},\n12,\n{"a": "\xff"},\n"x", {"a": 2}]')
    found = read(tmp_path / "a.json")
    assert [(where, row.reason) for where, row in found if isinstance(row, Rejected)] == [
        ("a.json:2", "bad JSON"),
        ("a.json:3", "bad UTF-8"),
        ("a.json:4", "bad JSON"),
    ]
    assert [row for _, row in found if not isinstance(row, Rejected)] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[{"a": 1},\n{"a": 2', 2),
        ('[{"a": 1}\n{"a": 2}]', 2),
        ('[{"a": 1}', 1),
        ('[{"a": 1},\n\n{"a" 2}]', 3),
        ("[", 1),
    ],
)
def test_a_file_that_is_cut_or_broken_is_no_silent_end(tmp_path, content, line):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=rf"a\.json:{line}: "):
        read(tmp_path / "a.json")


def test_an_empty_list_has_no_elements_and_no_list_is_said(tmp_path):
    (tmp_path / "a.json").write_text("[ ]")
    assert read(tmp_path / "a.json") == []
    json_list.refuse_what_is_no_list(str(tmp_path / "a.json"), "a list")
    for content in ('{"a": 1}', ""):
        (tmp_path / "b.json").write_text(content)
        with pytest.raises(UserError, match="no JSON list; give a list"):
            json_list.refuse_what_is_no_list(str(tmp_path / "b.json"), "a list")
    with pytest.raises(UserError, match="cannot be read"):
        json_list.refuse_what_is_no_list(str(tmp_path / "absent.json"), "a list")


def test_memory_does_not_grow_with_the_file(tmp_path):
    with open(tmp_path / "a.json", "w") as file:
        file.write("[")
        file.write(",".join(json.dumps({"id": f"{n}", "text": "x" * 400}) for n in range(50000)))
        file.write("]")
    tracemalloc.start()
    try:
        assert sum(1 for _ in json_list.objects(str(tmp_path / "a.json"), "a.json")) == 50000
        assert tracemalloc.get_traced_memory()[1] < 12 << 20  # the file has 22 MB
    finally:
        tracemalloc.stop()
