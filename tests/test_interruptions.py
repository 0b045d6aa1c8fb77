"""Whole runs that something befalls: a signal in the middle of an evaluation, a process of several that fails alone."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import time

import drill
import pytest

from jaxspeech.checkpoint.store import Checkpoints
from jaxspeech.errors import EXIT_REQUEUE, EXIT_USER_ERROR

SHORT = {"train.steps": 4, "checkpoint.every": 4, "eval.every": 2, "data.shapes": 1, "log.tensorboard": "false"}

RUN = """
    import os, signal, sys
    from jaxspeech import main, train
    from jaxspeech.errors import UserError

    evaluate, account = train._Run.evaluate, train._Run.account

    def signalled(self):
        if os.environ.get("SIGNAL_AT") == str(self.step):
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self)

    def failing(self, batch):
        if os.environ.get("FAIL_AT") == str(self.step):
            raise UserError("only this process has failed")
        return account(self, batch)

    train._Run.evaluate, train._Run.account = signalled, failing
    if __name__ == "__main__":
        main.main()
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return drill.make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def start(folder, corpus, cache, config=None, **environment) -> subprocess.Popen:
    (folder / "run.py").write_text(textwrap.dedent(RUN))
    settings = drill.TINY | SHORT | {"data.train": corpus, "data.eval": corpus} | (config or {})
    words = [f"--config.{key}={value}" for key, value in settings.items()]
    own = {"XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen(
        [sys.executable, str(folder / "run.py"), "--config=configs/digits.py", f"--workdir={folder / 'run'}", *words],
        env=os.environ | own | environment,
        cwd=drill.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> int:
    _, errors = process.communicate(timeout=300)
    assert "Traceback" not in errors, errors[-3000:]
    return process.returncode


def saved(folder) -> dict[int, dict]:
    checkpoints = Checkpoints(folder / "run" / "checkpoints", read_only=True)
    return {step: checkpoints.meta(step) for step in checkpoints.steps()}


def evaluated(folder) -> list[int]:
    lines = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if line["split"] == "eval"]


@pytest.mark.slow
def test_an_evaluation_that_a_signal_interrupted_is_made_up_for_and_ranks_its_checkpoint(tmp_path, corpus, cache):
    assert finish(start(tmp_path, corpus, cache, SIGNAL_AT="4")) == EXIT_REQUEUE
    assert (saved(tmp_path)[4]["evaluated"], saved(tmp_path)[4]["score"]) == (False, None)
    assert finish(start(tmp_path, corpus, cache, SIGNAL_AT="4")) == EXIT_REQUEUE  # it is still owed
    assert evaluated(tmp_path) == [2]
    assert finish(start(tmp_path, corpus, cache)) == 0
    assert evaluated(tmp_path) == [2, 4]
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", read_only=True)
    assert checkpoints.scored_later(4)
    assert finish(start(tmp_path, corpus, cache)) == 0  # complete: nothing comes twice
    assert evaluated(tmp_path) == [2, 4]


@pytest.mark.slow
def test_a_checkpoint_has_no_score_but_its_own(tmp_path, corpus, cache):
    config = {"checkpoint.every": 3, "train.steps": 6, "eval.every": 4}
    assert finish(start(tmp_path, corpus, cache, config, SIGNAL_AT="6")) == EXIT_REQUEUE
    scores = {step: meta["score"] for step, meta in saved(tmp_path).items()}
    assert scores.pop(4) is not None
    assert set(scores.values()) == {None}


@pytest.mark.slow
def test_a_run_starts_from_another_one_on_more_devices(tmp_path, corpus, cache):
    first = drill.Training(tmp_path / "first", corpus, cache, config=SHORT)
    first.finish()
    second = drill.Training(
        tmp_path / "second", corpus, cache, devices=2, config=SHORT | {"init_from": tmp_path / "first"}
    )
    second.finish()
    losses = [
        [line["loss"] for line in drill.metrics(tmp_path / name) if line["split"] == "train"]
        for name in ("first", "second")
    ]
    assert losses[1][0] < losses[0][0]


@pytest.mark.slow
def test_a_process_that_fails_alone_ends_at_once_and_does_not_hold_the_others(tmp_path, corpus, cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = []
    for number in range(2):
        joined = {"JAXSPEECH_COORDINATOR": address, "JAXSPEECH_NUM_PROCESSES": "2", "JAXSPEECH_PROCESS_ID": str(number)}
        fail = {"FAIL_AT": "3"} if number == 1 else {}
        processes.append(
            start(
                tmp_path, corpus, cache, {"train.steps": 40, "eval.every": 0, "eval.decode": "false"}, **joined, **fail
            )
        )
    try:
        _, errors = processes[1].communicate(timeout=200)
        failed = time.monotonic()
        assert processes[1].returncode == EXIT_USER_ERROR
        assert "error: only this process has failed" in errors
        processes[0].communicate(timeout=150)  # Gloo tells it, or the coordination service
        assert processes[0].returncode != 0
        assert time.monotonic() - failed < 150
    finally:
        for process in processes:
            process.kill()
