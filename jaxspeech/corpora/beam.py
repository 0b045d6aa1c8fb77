"""Work by a runner of Apache Beam, whose results come in order: what `pool.in_order` does on one machine.

Tasks and results travel as lines of text, in files that launcher and workers both reach, because this is what every
runner can do at any size. A line is the number of a task and, pickled and compressed, the task or its result. The files
are in a folder of their own under Beam's `--temp_location`, or in the scratch folder where none is given.
"""

import base64
import contextlib
import io
import os
import pickle
import sys
import tempfile
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, BinaryIO

from jaxspeech.corpora import pool
from jaxspeech.corpora.pool import Known, Result, Task
from jaxspeech.errors import UserError


def in_order(
    tasks: Iterable[Task[Result] | Known[Result]], options: Sequence[str], scratch: str | os.PathLike[str]
) -> Iterator[Result]:
    """Results in the order of the tasks. All tasks are done before the first result comes.

    What is in memory here is the number of tasks; what travels is on disk.

    Args:
        options: of the pipeline, such as ["--runner=FlinkRunner", "--flink_master=host:8081"].
        scratch: folder on a disk of this machine; one that the workers have too, unless there is a `--temp_location`.

    Raises:
        UserError: apache-beam is missing, it refuses the options, the job fails, or a task raises one.
    """
    beam = _library()
    chosen = _options(beam, options)
    files = beam.io.filesystems.FileSystems
    with _explained(os.fspath(scratch)):
        os.makedirs(scratch, exist_ok=True)
        store = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed below
    place = chosen.view_as(beam.options.pipeline_options.GoogleCloudOptions).temp_location or os.fspath(scratch)
    folder = files.join(place, f".beam-{uuid.uuid4().hex}.tmp")
    with store:
        results = _Results(store)
        try:
            with _explained(folder):
                files.mkdirs(folder)
                file = files.create(files.join(folder, "tasks"))
            with file:
                asked = _write(tasks, file, results, folder)
            if asked:
                runner = chosen.view_as(beam.options.pipeline_options.StandardOptions).runner
                print(f"pieces of work for {runner}: {asked:,}; results come when all are done", file=sys.stderr)
                _run(beam, chosen, files.join(folder, "tasks"), files.join(folder, "results"))
                for found in files.match([files.join(folder, "results*")])[0].metadata_list:
                    with _explained(folder), files.open(found.path) as file:
                        for line in iter(file.readline, b""):
                            results.add(line)
        finally:
            for name in (folder, f"{folder}/"):  # a disk knows a folder by the one, a bucket by the other
                with contextlib.suppress(Exception):
                    files.delete([name])
        yield from results


class _Results:
    """Lines with results in a file, found by their numbers."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._places: dict[int, int] = {}
        self.count = 0  # of tasks, those included whose results are yet to come

    def add(self, line: bytes) -> None:
        self._places[int(line.partition(b" ")[0])] = self._file.tell()
        self._file.write(line)

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.count):
            if number not in self._places:
                raise UserError(f"Beam: the result of piece {number} of {self.count} is missing; start again")
            self._file.seek(self._places[number])
            result = _unpack(self._file.readline())[1]
            if isinstance(result, UserError):
                raise result
            yield result


def _write(tasks: Iterable[Task | Known], file: BinaryIO, results: _Results, folder: str) -> int:
    """Writes what is to be done to a file; known results go where the others will. Returns how many are to be done."""
    asked = 0
    for number, task in enumerate(tasks):
        results.count = number + 1
        if isinstance(task, Known):
            results.add(_pack(number, task.result))
        else:
            asked += 1
            with _explained(folder):
                file.write(_pack(number, task))
    return asked


def _run(beam: ModuleType, options: Any, tasks: str, results: str) -> None:
    """The whole pipeline: lines with tasks → workers → lines with results, in any order and number of files."""
    lines = beam.coders.BytesCoder()
    try:
        pipeline = beam.Pipeline(options=options)
        todo = pipeline | "tasks" >> beam.io.ReadFromText(tasks, coder=lines) | "spread" >> beam.Reshuffle()
        done = todo | "work" >> beam.Map(_work)
        done | "results" >> beam.io.WriteToText(results, coder=lines)
        job = pipeline.run()
        try:
            state = job.wait_until_finish()
        except KeyboardInterrupt:
            with contextlib.suppress(Exception):  # not every runner can
                job.cancel()
            raise
    except ImportError as error:
        raise UserError(f"Beam lacks a package for this runner ({error}); install 'apache-beam[gcp]', say") from error
    except Exception as error:  # each runner has its own; it has told the whole story in its log
        raise UserError(f"Beam: the job failed: {_last_line(error)}; its log above tells more") from error
    if state != beam.runners.runner.PipelineState.DONE:
        raise UserError(f"Beam: the job ended as {state}; the log of the runner tells why")


def _work(line: bytes) -> bytes:
    """What a worker does: a line with a task → a line with its result."""
    number, task = _unpack(line)
    try:
        return _pack(number, pool.apart(task)).rstrip(b"\n")
    except UserError as error:  # raised where the result would be, as it is on one machine
        return _pack(number, error).rstrip(b"\n")


def _pack(number: int, content: Any) -> bytes:
    return b"%d %s\n" % (number, base64.b64encode(zlib.compress(pickle.dumps(content, 5), 1)))


def _unpack(line: bytes) -> tuple[int, Any]:
    number, _, content = line.partition(b" ")
    return int(number), pickle.loads(zlib.decompress(base64.b64decode(content)))


def _library() -> ModuleType:
    try:
        import apache_beam
        import apache_beam.runners.runner
    except ImportError:
        raise UserError("--runner needs Apache Beam; install the extra beam: pip install 'jaxspeech[beam]'") from None
    return apache_beam


def _options(beam: ModuleType, words: Sequence[str]) -> Any:
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            options = beam.options.pipeline_options.PipelineOptions(list(words))
            options.get_all_options()  # all are parsed now, not when they are first asked for
    except SystemExit:
        raise UserError(f"Beam refuses its options: {_last_line(told.getvalue())}") from None
    # What travels is in the package, not in the main module; None would send that to a service.
    options.view_as(beam.options.pipeline_options.SetupOptions).save_main_session = False
    return options


def _last_line(error: object) -> str:
    """Of a message that may hold the stack trace of a worker, or all options of Beam: what went wrong there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__


@contextlib.contextmanager
def _explained(folder: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each file system of Beam has its own
        reason = _last_line(getattr(error, "strerror", None) or error)
        raise UserError(f"{folder} cannot be written or read: {reason}; see to --temp_location or --out") from error
