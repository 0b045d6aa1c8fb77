"""`jaxspeech evaluate`: loss, WER and CER of a checkpoint on a manifest, as it is and under conditions."""

import argparse
import functools
import math
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from jaxspeech.errors import UserError
from jaxspeech.evaluation.normalize import NAMES

_WORST = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "People are shown per cent; --json and the files in --out have fractions (0.083). --out gets hypotheses.jsonl "
        "(an object an utterance) and result.json. "
        "A condition is noise=DB (white noise at that SNR), background=DB (a noise of --noises), babble=DB (other "
        "utterances of the manifest), gain=DB (louder or quieter, cut at full scale), codec=mp3|opus|mulaw|alaw|gsm, "
        "narrowband (8 kHz), clipping=SHARE, room (one of --rooms), or several of them between commas."
    )
    parser.add_argument("--checkpoint", required=True, help="a workdir, DIR@step, or a folder of Hugging Face weights")
    parser.add_argument("--manifest", required=True, help="the set: a .jsonl manifest")
    parser.add_argument("--out", help="a folder for every hypothesis and the result")
    parser.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="C",
        help="one more result with the set heard under it, such as noise=10, gain=-30 or codec=gsm; may be repeated",
    )
    parser.add_argument("--noises", metavar="M", help="manifest of noises, for the condition background")
    parser.add_argument("--rooms", metavar="M", help="manifest of impulse responses, for the condition room")
    parser.add_argument("--beams", type=int, help="hypotheses kept in the search (default: the config's, 1 is greedy)")
    parser.add_argument("--normalizer", choices=NAMES, help="what counts as the same text (default: the config's)")
    parser.add_argument("--batch-seconds", type=float, help="audio of a batch (default: the config's)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.beams is not None and args.beams < 1:
        raise UserError(f"--beams {args.beams}: give 1 (greedy) or more")
    if args.batch_seconds is not None and not 0 < args.batch_seconds < math.inf:
        raise UserError(f"--batch-seconds {args.batch_seconds:g}: give more than 0")

    import jax
    from tqdm import tqdm

    from jaxspeech.cli.ready import ready
    from jaxspeech.data.manifest import Collection
    from jaxspeech.evaluation import conditions
    from jaxspeech.evaluation.evaluate import Evaluator
    from jaxspeech.evaluation.result import write_lines

    collection = Collection.open(args.manifest, "--manifest")
    sounds = {"manifest": args.manifest, "noises": args.noises, "rooms": args.rooms}
    asked: list[Any] = [None, *(conditions.parse(text, **sounds) for text in dict.fromkeys(args.condition))]
    task, params, config, mesh = ready(args.checkpoint)
    section = config.eval.copy_and_resolve_references()
    with section.unlocked():
        section.decode = True
        section.beams = args.beams or section.beams
        section.normalizer = args.normalizer or section.normalizer
        if args.batch_seconds is not None:
            section.batch_seconds = args.batch_seconds
    name = pathlib.Path(args.manifest).stem
    total, hidden = len(collection) * len(asked), not sys.stderr.isatty()
    for condition in asked[1:]:
        conditions.under(task, condition)  # refused now, not when the clean set has been decoded
    results: list[Any] = []
    with jax.set_mesh(mesh), tqdm(total=total, unit="utt", disable=hidden, leave=False) as bar:
        evaluator = Evaluator(task, name, collection, section, mesh, threads=config.data.threads)
        for number, condition in enumerate(asked):
            before = number * len(collection)
            advance = functools.partial(lambda before, done, _: bar.update(before + done - bar.n), before)
            results.append(evaluator.run(params, condition=condition, progress=advance))
            rows = results[-1].records
            if all("error" in row for row in rows):
                raise UserError(
                    f"none of the {len(rows)} utterances of {args.manifest} can be read; {_reason(rows[0])}"
                )
    result, *others = results
    summary = result.summary() | ({"conditions": [other.summary() for other in others]} if others else {})
    if args.out:
        for found in results:
            suffix = f".{found.condition}" if found.condition else ""
            write_lines(os.path.join(args.out, f"hypotheses{suffix}.jsonl"), found.records)
        write_lines(os.path.join(args.out, "result.json"), [summary])
    print(_table(results))
    _tell_unread(results)
    worst = result.worst(_WORST)
    if worst:
        print("\nworst utterances:")
    for row in worst:
        print(f"  {row['id']}  WER {100 * row['wer']:.0f} %")
        print(f"    said:  {row['reference']}\n    heard: {row['hypothesis']}")
    return summary


def _reason(row: dict[str, Any]) -> str:
    return f"the first is {row['id']}: {row['error']}"


def _tell_unread(results: Sequence[Any]) -> None:
    """Each utterance once: what cannot be read as it is cannot be under a condition."""
    told: set[str] = set()
    for result in results:
        unread = [row for row in result.records if "error" in row and row["id"] not in told]
        told |= {row["id"] for row in unread}
        if unread:
            under = f"under {result.condition}, " if result.condition else ""
            many = "utterance could not be read and counts"
            if len(unread) > 1:
                many = "utterances could not be read and count"
            print(f"{under}{len(unread)} {many} as missed; {_reason(unread[0])}")


def _table(results: Sequence[Any]) -> str:
    """A row a result; what counted the errors, and which there are in the first."""
    rows = [_cells(result, len(results) > 1) for result in results]
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in (rows[0], *map(dict.values, rows))
    ]
    scores = results[0].scores
    counts = (
        f"{scores.errors:,} errors in {scores.words:,} words: {scores.substitutions:,} substituted, "
        f"{scores.insertions:,} inserted, {scores.deletions:,} deleted"
    )
    return "\n".join([*lines, counts, f"scorer: {scores.scorer}, normalizer: {scores.normalizer}"])


def _cells(result: Any, conditions: bool) -> dict[str, str]:
    condition = {"condition": result.condition or "clean"} if conditions else {}
    return {
        "set": result.set,
        **condition,
        "utterances": f"{result.utterances:,}",
        "WER": f"{100 * result.wer:.2f} %",
        "CER": f"{100 * result.cer:.2f} %",
        "loss": f"{result.loss:.4f}",
        "hours": f"{result.audio_seconds / 3600:.2f}",
        "RTFx": f"{result.rtfx:.1f}",
    }
