"""Processes that work in order: what kills one of them costs no other task, and one that cannot begin blames none."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap

from jaxspeech.corpora import pool


@dataclasses.dataclass(frozen=True)
class Deadly:
    """A task one of whose numbers kills the process that sees it, as a decoder may that meets a bad file."""

    numbers: tuple[int, ...]

    def run(self):
        if 7 in self.numbers:
            os.kill(os.getpid(), signal.SIGSEGV)
        assert "jax" not in sys.modules
        return list(self.numbers)

    def pieces(self):
        return [Deadly((number,)) for number in self.numbers]

    def join(self, results):
        return [number for result in results for number in result]

    def lost(self):
        return ["lost"]


def test_a_file_that_kills_its_process_is_lost_alone():
    tasks = [Deadly((0, 1)), pool.Known(["known"]), Deadly((6, 7, 8)), Deadly((9,)), Deadly((10,))]
    found = list(pool.in_order(tasks, 2))
    assert found == [[0, 1], ["known"], [6, "lost", 8], [9], [10]]


UNGUARDED = """
    import dataclasses
    from jaxspeech.corpora import pool

    @dataclasses.dataclass(frozen=True)
    class Harmless:
        number: int

        def run(self):
            return self.number

        def pieces(self):
            return [self]

        def join(self, results):
            return results[0]

        def lost(self):
            return "lost"

    print(list(pool.in_order([Harmless(number) for number in range(20)], 2)))
"""


def test_a_script_that_every_process_runs_again_is_told_so_and_no_task_is_blamed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(UNGUARDED))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert done.stdout == ""
    # Python's own resource tracker, which lives longest, may speak after it.
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("jaxspeech.errors.UserError")]
    assert "processes end as soon as they begin" in said
    assert '__name__ == "__main__"' in said
