"""Who does the work is chosen by the flags: processes here, or a runner of Apache Beam."""

import argparse
import sys

import pytest

from jaxspeech.corpora import workers
from jaxspeech.corpora.folder import AudioFolder
from jaxspeech.corpora.pool import Known
from jaxspeech.corpora.preparation import prepare
from jaxspeech.errors import UserError


def parsed(*words):
    parser = argparse.ArgumentParser()
    workers.add_arguments(parser.add_argument_group("work"), "check")
    return parser.parse_args(words)


def test_without_a_runner_beam_is_not_asked():
    args = parsed("--processes", "1")
    assert workers.beam_options(args) is None
    assert list(workers.in_order([Known(1), Known(2)], args.processes, None, "")) == [1, 2]


def test_the_runner_goes_before_its_own_options():
    args = parsed("--runner=FlinkRunner")
    assert workers.beam_options(args) == ["--runner=FlinkRunner"]
    args.beam_options = ["--flink_master=host:8081"]
    assert workers.beam_options(args) == ["--runner=FlinkRunner", "--flink_master=host:8081"]


def test_without_beam_the_error_names_the_extra_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").touch()
    with pytest.raises(UserError, match=r"install the extra beam: pip install 'jaxspeech\[beam\]'"):
        prepare(AudioFolder(str(tmp_path / "clips")), tmp_path / "out", beam=["--runner=DirectRunner"])
    assert not list((tmp_path / "out").glob("*.jsonl"))
