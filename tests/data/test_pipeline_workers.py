"""Worker processes of the pipeline: killed, signalled, orphaned; and memory over thousands of batches."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from tones import Task, Tones, schedule_of

from jaxspeech.data import pipeline
from jaxspeech.errors import UserError


def test_a_killed_worker_is_an_error_and_not_a_hang():
    tones = Tones()
    others = {child.pid for child in multiprocessing.active_children()}  # of tests that ran before in this process

    def workers() -> list[int]:
        return [child.pid for child in multiprocessing.active_children() if child.pid not in others]

    with pipeline.batches(tones, schedule_of(tones), Task(), workers=2) as stream:
        next(stream)
        began = time.perf_counter()
        os.kill(workers()[0], signal.SIGKILL)
        with pytest.raises(UserError, match=r"data worker died \(exit code -9"):
            list(itertools.islice(stream, 10_000))
        assert time.perf_counter() - began < 60
    end = time.monotonic() + 60  # a busy machine takes a moment to end a process
    while workers() and time.monotonic() < end:
        time.sleep(0.05)
    assert not workers()


@pytest.mark.slow
def test_a_signal_to_the_whole_job_leaves_the_workers_loading():
    tones = Tones()
    with pipeline.batches(tones, schedule_of(tones), Task(), workers=2) as stream:
        next(stream)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGINT)
        assert [next(stream).index for _ in range(30)] == list(range(1, 31))


SCRIPT = """
    import multiprocessing, os, sys
    sys.path.insert(0, {folder!r})
    import numpy as np
    from tones import Task, Tones, schedule_of
    from jaxspeech.data import pipeline

    if __name__ == "__main__":
        tones = Tones()
        stream = pipeline.batches(tones, schedule_of(tones), Task(), workers=2)
        next(stream), next(stream)  # one of each worker
        print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
        {ending}
"""


def run_script(tmp_path, ending: str) -> subprocess.CompletedProcess:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).format(folder=os.path.dirname(os.path.dirname(__file__)), ending=ending))
    paths = [os.path.dirname(os.path.dirname(os.path.dirname(__file__))), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["stream.close()", "pass"])
def test_the_interpreter_ends_without_noise(tmp_path, ending):
    result = run_script(tmp_path, ending)
    assert result.returncode == 0
    assert result.stderr == ""


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    result = run_script(tmp_path, "os.kill(os.getpid(), 9)")
    workers = [int(word) for word in result.stdout.split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while workers and time.monotonic() < deadline:
        for worker in list(workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, 0)
                continue
            workers.remove(worker)
        time.sleep(0.2)
    assert not workers


@pytest.mark.slow
def test_memory_stays_flat_over_ten_thousand_batches():
    def resident() -> float:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    tones = Tones(2000)
    readings = []
    with pipeline.batches(tones, schedule_of(tones), Task(), stop=10_000) as stream:
        for batch in stream:
            if batch.index % 500 == 499:
                readings.append(resident())
    assert np.mean(readings[-3:]) - np.mean(readings[1:4]) < 8  # MiB
