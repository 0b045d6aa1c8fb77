"""read = trained + filtered + failed, over epochs, restarts and hosts; too many failures stop the run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from jaxspeech.data import ledger
from jaxspeech.data.ledger import Ledger, select
from jaxspeech.data.shapes import Lengths
from jaxspeech.errors import UserError

LIMITS = SimpleNamespace(min_seconds=0.5, max_seconds=10.0, max_tokens=20)


def lengths(*pairs) -> Lengths:
    seconds, tokens = zip(*pairs)
    return Lengths(np.array([round(s * 16000) for s in seconds], np.int64), np.array(tokens, np.int32))


def test_records_are_kept_within_the_limits_and_filtered_by_the_first_reason_that_holds():
    all_lengths = lengths((0.4, 5), (0.5, 5), (10.0, 20), (10.1, 5), (5.0, 21), (11.0, 99), (3.0, 0))
    selection = select(all_lengths, LIMITS, 16000)
    assert selection.reasons == ("kept", "too short", "too long", "too many tokens")
    assert selection.codes.dtype == np.int8
    assert [selection.reasons[code] for code in selection.codes] == [
        *("too short", "kept", "kept", "too long", "too many tokens", "too long", "kept")
    ]
    assert selection.kept.tolist() == [1, 2, 6]
    assert selection.counts() == {"too short": 1, "too long": 2, "too many tokens": 1}


def test_no_token_limit_and_reasons_of_a_family():
    all_lengths = lengths((5.0, 1000), (5.0, 3), (0.1, 9))
    unlimited = SimpleNamespace(min_seconds=0.5, max_seconds=10.0, max_tokens=0)
    refuse = {"text longer than frames": np.array([True, False, True])}
    selection = select(all_lengths, unlimited, 16000, refuse)
    assert selection.kept.tolist() == [1]
    assert selection.counts() == {"too short": 1, "text longer than frames": 1}


def test_filtered_records_count_as_often_as_an_epoch_would_have_had_them():
    selection = select(lengths((0.1, 1), (5.0, 1), (0.1, 1)), LIMITS, 16000)
    assert selection.counts(np.array([2, 1, 0])) == {"too short": 2}


def filled() -> Ledger:
    book = Ledger()
    book.begin(0, {"too long": 3})
    book.batch(0, 8, 7, [("a", "missing file", "a.wav")])
    book.batch(0, 8, 8)
    book.begin(1, {"too long": 3})
    book.batch(1, 8, 6, [("a", "missing file", "a.wav"), ("b", "corrupt audio")])
    return book


def test_everything_read_is_accounted_for():
    total = filled().total()
    assert (total.read, total.trained) == (30, 21)
    assert total.filtered == {"too long": 6}
    assert total.failed == {"missing file": 2, "corrupt audio": 1}
    total.check()


def test_a_sum_that_does_not_add_up_is_an_error():
    book = Ledger()
    with pytest.raises(AssertionError, match="8 read, 7 accounted for"):
        book.batch(0, 8, 7)
    with pytest.raises(AssertionError, match="9 accounted for"):
        Ledger().batch(0, 8, 8, [("a", "missing file")])


def test_an_epoch_that_begins_again_after_a_restart_counts_once():
    book = Ledger.from_json(json.loads(json.dumps(filled().to_json())))
    book.begin(1, {"too long": 3})
    assert book.to_json() == filled().to_json()


def test_examples_are_kept_up_to_twenty_a_reason():
    book = Ledger()
    for i in range(30):
        book.batch(0, 1, 0, [(f"u{i}", "missing file", f"{i}.wav")])
    book.batch(0, 1, 0, [("x", "corrupt audio", "x.wav")])
    assert [example["id"] for example in book.examples["missing file"]] == [f"u{i}" for i in range(20)]
    assert book.examples["corrupt audio"] == [{"id": "x", "epoch": 0, "detail": "x.wav"}]


def test_the_file_is_written_whole(tmp_path):
    path = tmp_path / "run" / "ledger.json"
    filled().write(path)
    filled().write(path)
    written = json.loads(path.read_text())
    assert written["total"] == {
        "read": 30,
        "trained": 21,
        "filtered": {"too long": 6},
        "failed": {"corrupt audio": 1, "missing file": 2},
    }
    assert Ledger.from_json(written).to_json() == filled().to_json()
    assert [file.name for file in path.parent.iterdir()] == ["ledger.json"]


def test_hosts_add_up_to_the_run():
    one, two, whole = Ledger(), Ledger(), Ledger()
    for book in (one, two, whole):
        book.begin(0, {"too long": 3})
    one.batch(0, 4, 3, [("a", "missing file")])
    two.batch(0, 4, 4)
    whole.batch(0, 8, 7, [("a", "missing file")])
    assert ledger.merge([one, two]).to_json() == whole.to_json()
    assert one.epochs[0].read == 7  # left as it was
    other = Ledger()
    other.begin(0, {"too long": 2})
    with pytest.raises(ValueError, match="epoch 0"):
        ledger.merge([one, other])


def failing(trained: int, failed: int) -> Ledger:
    book = Ledger()
    book.batch(0, trained, trained)
    for i in range(failed):
        book.batch(0, 1, 0, [(f"u{i}", "missing file" if i else "corrupt audio", f"/data/u{i}.wav")])
    return book


@pytest.mark.parametrize(
    ("trained", "failed", "finished", "stops"),
    [
        (0, 9, False, False),  # too few to tell
        (0, 10, False, True),
        (990, 10, False, False),  # exactly the share
        (989, 10, False, True),
        (50, 1, False, False),
        (50, 1, True, True),  # the epoch is over, and so is the doubt
        (100, 1, True, False),
        (0, 0, True, False),
    ],
)
def test_a_run_stops_when_more_than_the_share_fails(trained, failed, finished, stops):
    book = failing(trained, failed)
    if not stops:
        book.stop_if_too_many_fail(0, 0.01, finished)
        return
    with pytest.raises(UserError, match=r"data\.max_failed = 0\.01"):
        book.stop_if_too_many_fail(0, 0.01, finished)


def test_the_reason_and_the_first_utterances_are_named():
    with pytest.raises(UserError) as caught:
        failing(20, 12).stop_if_too_many_fail(0, 0.01)
    message = str(caught.value)
    assert "12 of 32 utterances of epoch 0" in message
    assert "mostly 'missing file' (11)" in message
    assert "u1 (/data/u1.wav); u2 (/data/u2.wav); u3 (/data/u3.wav)" in message
    assert "\n" not in message


def test_none_allowed_means_none():
    with pytest.raises(UserError):
        failing(1000, 1).stop_if_too_many_fail(0, 0.0)
    failing(1000, 0).stop_if_too_many_fail(0, 0.0)
    failing(0, 50).stop_if_too_many_fail(0, 1.0, finished=True)


def test_failures_of_an_earlier_epoch_do_not_stop_this_one():
    book = failing(0, 50)
    book.batch(1, 100, 100)
    with pytest.raises(UserError):
        book.stop_if_too_many_fail(0, 0.01, finished=True)
    book.stop_if_too_many_fail(1, 0.01, finished=True)
