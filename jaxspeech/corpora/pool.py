"""Work in several processes whose results come in order, and that goes on when what is read kills a process."""

import collections
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, Protocol, TypeVar

from jaxspeech.errors import UserError

Result = TypeVar("Result")

_AHEAD = 4  # tasks a process that are in memory
MOST_PROCESSES = 16
_of_this_thread = threading.local()


class Task(Protocol[Result]):
    """What a process does; it travels there by pickle."""

    def run(self) -> Result: ...

    def pieces(self) -> "Sequence[Task[Result]]":
        """The same work in the smallest tasks."""
        ...

    def join(self, results: Sequence[Result]) -> Result:
        """The result of this task from those of its pieces."""
        ...

    def lost(self) -> Result:
        """The result where this task, a smallest one, kills the process that does it."""
        ...


@dataclasses.dataclass(frozen=True)
class Known(Generic[Result]):
    """A result that takes its turn among the tasks."""

    result: Result


def default_processes() -> int:
    """One a core that this process may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)


def in_order(tasks: Iterable[Task[Result] | Known[Result]], processes: int) -> Iterator[Result]:
    """Results in the order of the tasks, few of which are in memory at a time.

    With 1 process the work is done here, without protection from what kills the process.
    """
    if processes <= 1:
        for task in tasks:
            yield task.result if isinstance(task, Known) else task.run()
        return
    pool = _Pool(processes)
    try:
        for task in tasks:
            pool.put(task)
            while pool.full() or pool.ready():
                yield pool.first()
        while pool.waiting:
            yield pool.first()
    finally:
        pool.stop()


def apart(task: Task[Result]) -> Result:
    """The result of a task that another process does, so that what kills that process does not kill this one.

    Each thread that asks has one such process, as long as it lives.
    """
    if not hasattr(_of_this_thread, "pool"):
        _of_this_thread.pool = _Pool(1)
    _of_this_thread.pool.put(task)
    result: Result = _of_this_thread.pool.first()
    return result


def live_with_the_parent() -> None:
    """In a worker: Ctrl-C is the parent's to handle, and if the parent is killed, nobody waits for the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


class _Pool:
    """Processes, and the tasks that they have, in order."""

    def __init__(self, processes: int):
        self._processes = processes
        self._executor = _start(processes)
        self.waiting: collections.deque[tuple[Any, Future]] = collections.deque()

    def put(self, task: Any) -> None:
        self.waiting.append((task, self._submit(task)))

    def full(self) -> bool:
        return len(self.waiting) > _AHEAD * self._processes

    def ready(self) -> bool:
        return bool(self.waiting) and self.waiting[0][1].done()

    def first(self) -> Any:
        """The result of the task that has waited longest."""
        task, future = self.waiting.popleft()
        try:
            return future.result()
        except BrokenProcessPool:
            result = _alone(task)
            self.stop()
            self._executor = _start(self._processes)
            finished = [later.done() and later.exception() is None for _, later in self.waiting]
            again = [kept if ok else (kept[0], self._submit(kept[0])) for kept, ok in zip(self.waiting, finished)]
            self.waiting = collections.deque(again)
            return result

    def stop(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _submit(self, task: Any) -> Future:
        if not isinstance(task, Known):
            try:
                return self._executor.submit(task.run)
            except BrokenProcessPool as error:  # noticed when the first of those that wait is asked for
                broken: Future = Future()
                broken.set_exception(error)
                return broken
        known: Future = Future()
        known.set_result(task.result)
        return known


def _start(processes: int) -> ProcessPoolExecutor:
    # Not forked from here: the caller may hold threads of a progress bar or of jax. A server that has imported what
    # is needed forks them in no time, also after a crash; where there is none (Windows) each begins from nothing.
    if "forkserver" in multiprocessing.get_all_start_methods():
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["jaxspeech.corpora.chunks"])
    else:
        context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=live_with_the_parent)


def _start_one() -> ProcessPoolExecutor:
    """One process that has begun, so that what ends it from here on is what it does."""
    executor = _start(1)
    try:
        executor.submit(os.getpid).result()
    except BrokenProcessPool:
        executor.shutdown()
        raise UserError(
            "processes end as soon as they begin, for what they say above; a script that prepares data in several "
            'needs `if __name__ == "__main__":`; --processes=1 needs none'
        ) from None
    return executor


def _alone(task: Any) -> Any:
    """The result of a task that has a process for itself; piece by piece where it kills that one too."""
    try:
        with _start_one() as executor:
            return executor.submit(task.run).result()
    except BrokenProcessPool:
        pass
    results = []
    executor = _start_one()
    try:
        for piece in task.pieces():
            try:
                results.append(executor.submit(piece.run).result())
            except BrokenProcessPool:
                results.append(piece.lost())
                executor.shutdown()
                executor = _start_one()
    finally:
        executor.shutdown()
    return task.join(results)
