import argparse
import collections
import importlib
import os

import pytest

from jaxspeech.benchmarks import decode, train_step
from jaxspeech.benchmarks.peer import Elsewhere
from jaxspeech.errors import UserError


def test_the_peer_lives_in_a_process_of_its_own():
    other = Elsewhere(importlib.import_module, "os")
    assert other.call("getpid") not in (os.getpid(), None)
    assert other.call("getpid") == other.call("getpid")


def test_results_and_errors_come_back():
    other = Elsewhere(collections.Counter, "abca")
    assert other.call("most_common", 1) == [("a", 2)]
    with pytest.raises(AttributeError, match="no_such_method"):
        other.call("no_such_method")
    assert other.call("total") == 4
    with pytest.raises(ValueError, match="three"):
        Elsewhere(int, "three")


def test_a_peer_that_dies_is_one_line():
    other = Elsewhere(importlib.import_module, "os")
    with pytest.raises(UserError, match="the peer's process has ended"):
        other.call("_exit", 3)


@pytest.mark.parity
def test_decoding_is_compared():
    result = decode.run(argparse.Namespace(clips=2, rounds=1))
    assert result["equal"] == result["clips"] == 2
    assert result["ratio"] == pytest.approx(result["rtfx"] / result["peer_rtfx"], rel=1e-6)


@pytest.mark.parity
def test_steps_are_compared():
    tokenizer = "characters:abcdefghijklmnopqrstuvwxyz '"
    result = train_step.run(argparse.Namespace(rounds=1, utterances=0, tokenizer=tokenizer))
    assert set(result) == {"products", "4x10s", "4x25s"}
    for case in ("4x10s", "4x25s"):
        assert result[case]["ratio"] == pytest.approx(result[case]["peer_seconds"] / result[case]["seconds"])
