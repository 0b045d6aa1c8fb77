"""A line is read by a fast reader first; what it says is what Python's own `json` and the checks say."""

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jaxspeech.data import record

_NUMBERS = st.one_of(
    st.sampled_from([0, -0.0, 1, 1.0, 0.05, -1, 1e9, 1e-400, 10**30, True]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(),
)
_TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["", "ü", "\\ud800", "\ud83d\ude00", "\u0000"]))
_ODD = st.one_of(st.none(), _NUMBERS, _TEXTS, st.lists(_NUMBERS, max_size=2), st.just({}))
_ROWS = st.fixed_dictionaries(
    {"id": st.one_of(_TEXTS, _ODD), "audio": st.one_of(_TEXTS, _ODD), "text": st.one_of(_TEXTS, _ODD)},
    optional={
        **{key: st.one_of(st.none(), _NUMBERS, _ODD) for key in ("duration", "offset", "channel")},
        **{key: st.one_of(_TEXTS, _ODD) for key in ("speaker", "language", "translation", "mood", "words")},
    },
)
# Half of the lines are of good rows only: else hardly one would be.
_GOOD = st.fixed_dictionaries(
    {"id": st.text("abcü", min_size=1), "audio": st.text("abc/", min_size=1), "text": st.text()},
    optional={
        "duration": st.one_of(st.none(), st.floats(1e-3, 1e6), st.integers(1, 999)),
        "offset": st.one_of(st.none(), st.floats(0, 1e6), st.integers(0, 999)),
        "channel": st.one_of(st.none(), st.integers(0, 7)),
        "speaker": st.one_of(st.none(), st.text()),
        "mood": st.one_of(st.none(), st.text()),
    },
)


@st.composite
def lines(draw) -> bytes:
    line = json.dumps(draw(st.one_of(_GOOD, _ROWS)), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):  # now and then a byte too many, too few or another
        place = draw(st.integers(0, len(line)))
        line = line[:place] + draw(st.binary(max_size=2)) + line[place + draw(st.integers(0, 2)) :]
    return line


def outcome(function, *arguments):
    """What a call gives; of a failure, that it failed."""
    try:
        return function(*arguments)
    except ValueError:
        return ValueError


def slow(line: bytes):
    """Id and duration by `json` and `check` alone."""

    def no_constant(name):
        raise ValueError(name)

    row = json.loads(line.decode("utf-8"), parse_constant=no_constant)
    if type(row) is not dict:
        raise ValueError("no object")
    duration = record.check(row)
    return row["id"], duration


@given(lines())
@example(b'{"id":"a","audio":"x","text":"","duration":1e400}')
@example(b'{"id":"a","audio":"x","text":"\\ud800"}')
@example(b'{"id":"a","audio":"x","text":"\\ud83d\\ude00","id":"b"}')
@example(b'{"id":"a","audio":"x","text":"","channel":1.0}')
@example(b'{"id":"a","audio":"x","text":"","duration":true}')
@example(b'{"id":"a","audio":"x","text":"","mood":"\xff"}')
@example(b'{"id":"a","audio":"x","text":"","mood":"\x01"}')
@example(b'{"id":"a","audio":"x","text":"","mood":01}')
@example(b'{"id":"a","audio":"x","text":"","mood":NaN}')
def test_a_line_is_valid_by_both_readers_or_by_none_and_says_the_same(line):
    assert outcome(record.vet, line) == outcome(slow, line)


@given(lines())
@example(b'{"a":1e400}')
@example(b'{"a":"\\ud800"}')
@example(b'{"a":123456789012345678901234567890}')
@example(b'{"a":0.1000000000000000055511151231257827021181583404541015625}')
@example(b'{"a":-0}')
@example(b"[" * 100_000)
def test_an_object_is_what_json_reads(line):
    def by_json():
        try:
            row = json.loads(line.decode("utf-8"))
        except RecursionError as error:
            raise ValueError from error
        if type(row) is not dict:
            raise ValueError("no object")
        return repr(row)  # -0.0 is not 0.0, 1 not 1.0

    if b"NaN" not in line and b"Infinity" not in line:  # `json` alone reads them
        assert outcome(lambda: repr(record.decode(line))) == outcome(by_json)


def test_a_usual_line_needs_no_second_look(monkeypatch):
    def never(*_):
        raise AssertionError("looked at twice")

    monkeypatch.setattr(record, "decode", never)
    line = b'{"id": "a", "audio": "a.flac", "text": "\xc3\xbc", "duration": 2, "offset": 0.5, "speaker": "s"}'
    assert record.vet(line) == ("a", 2.0)


@pytest.mark.parametrize("line", [b'{"id": "a"', b"\xff", b"[" * 100_000])
def test_what_the_fast_reader_refuses_is_explained_in_our_words(line):
    with pytest.raises(ValueError, match=r"not valid (JSON|UTF-8)") as caught:
        record.vet(line)
    assert not isinstance(caught.value, msgspec.MsgspecError)
