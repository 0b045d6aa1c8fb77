"""Who does the work of a preparation: processes of this machine, or a runner of Apache Beam on others."""

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence

from jaxspeech.corpora import beam, pool
from jaxspeech.corpora.pool import Known, Result, Task


def add_arguments(parser: argparse._ActionsContainer, verb: str) -> None:
    """`--processes` and `--runner`; `verb` is what is done. What stands after `--` is parsed by Beam."""
    parser.add_argument(
        "--processes", type=int, default=0, metavar="N", help=f"that {verb} (one a core, at most {pool.MOST_PROCESSES})"
    )
    parser.add_argument(
        "--runner",
        metavar="NAME",
        help=f"of Apache Beam, whose workers {verb} instead: DataflowRunner, FlinkRunner, SparkRunner, …; "
        "its own options stand last, after --",
    )
    parser.set_defaults(beam_options=())


def beam_options(args: argparse.Namespace) -> list[str] | None:
    """What Beam is to be told; None: it is not asked for."""
    return None if args.runner is None else [f"--runner={args.runner}", *args.beam_options]


def in_order(
    tasks: Iterable[Task[Result] | Known[Result]],
    processes: int,
    options: Sequence[str] | None,
    scratch: str | os.PathLike[str],
) -> Iterator[Result]:
    """Results in the order of the tasks.

    Args:
        processes: of this machine; 0: one a core, at most 16.
        options: of a pipeline of Apache Beam, the runner among them; None: processes of this machine do it.
        scratch: folder for what travels to the workers of Beam and back.
    """
    if options is None:
        return pool.in_order(tasks, processes or pool.default_processes())
    return beam.in_order(tasks, options, scratch)
