"""`jaxspeech prepare split MANIFEST`: long recordings → pieces cut at silences, as offsets into the same files.

A pause longer than `--max-pause` is always left out, but for a margin. What lies between is cut while it is longer than
`--longest`: in the longest pause of the second half of what a piece may be, else in an earlier pause, else (counted) at
the quietest place. Where words have times, all of this happens between words, and the text is cut with them.
"""

import argparse
import bisect
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from jaxspeech.cleaning import pauses, pieces
from jaxspeech.cleaning.outcome import MAX_FAILED, Outcome
from jaxspeech.cleaning.pauses import FRAME, Interval
from jaxspeech.cleaning.pieces import Piece, Word
from jaxspeech.data import rows
from jaxspeech.data.audio import AudioError
from jaxspeech.data.record import Record
from jaxspeech.data.rows import Row, Rows
from jaxspeech.errors import UserError

_MARGIN = 0.15  # seconds of a pause that stay with the sound beside it
_LEAST = 1.0  # seconds of a piece that a cut makes
SILENCE = "silence"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = (
        "Lines up to --longest stay as they are. Longer ones must be without text, or with `words`: a text without "
        "times cannot be cut, and such lines are filtered; a `translation` is left out of pieces. No audio is copied. "
        "What is counted are pieces and the silences between them. The level of every 10 ms decides what is silent: "
        "35 dB below the loud parts of the recording, or 6 dB above its noise where that is higher."
    )
    parser.add_argument("manifest", metavar="MANIFEST")
    parser.add_argument("--out", required=True, metavar="OUT.jsonl", help="the manifest to write")
    parser.add_argument("--longest", type=float, default=30.0, metavar="S", help="limit of a piece (30)")
    parser.add_argument("--pause", type=float, default=0.3, metavar="S", help="silence that may be cut in (0.3)")
    parser.add_argument("--max-pause", type=float, default=2.0, metavar="S", help="longer silence is left out (2)")
    parser.add_argument(
        "--silence-db", type=float, metavar="DB", help="level of silence below full scale, such as -50 (by recording)"
    )
    parser.add_argument("--max-failed", type=float, default=MAX_FAILED, metavar="SHARE", help="that stop it (0.05)")
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="that decode (one a core, up to 8)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Writes the pieces and returns the totals."""
    if args.longest < 4 * _LEAST or not 0 < args.pause <= args.max_pause:
        raise UserError(
            f"--longest {args.longest:g} --pause {args.pause:g} --max-pause {args.max_pause:g}: give at least "
            f"{4 * _LEAST:g} s for the first, and 0 < pause ≤ max-pause"
        )
    if args.silence_db is not None and args.silence_db >= 0:
        raise UserError(f"--silence-db {args.silence_db:g}: give dB below full scale, such as -50")
    asked = Asked(args.longest, args.pause, args.max_pause, args.silence_db)
    manifest = Rows(args.manifest)
    outcome = Outcome(args.out, manifest.path)
    counts = dict.fromkeys(("lines", "divided", "cuts_in_pauses", "cuts_elsewhere"), 0)

    def written() -> Iterator[dict[str, Any]]:
        divided = rows.each(
            functools.partial(divide, asked=asked), manifest, processes=args.processes, block=8, what=manifest.name
        )
        for place, found in enumerate(divided):
            counts["lines"] += 1
            row = manifest[place]
            if found.kind != "kept":
                outcome.reject(row, found.reason, found.detail, kind=found.kind, seconds=found.seconds)
            elif found.parts is None:
                outcome.keep()
                yield row.row | {"duration": found.seconds}
            else:
                counts["divided"] += 1
                counts["cuts_in_pauses"] += found.parts.in_pauses
                counts["cuts_elsewhere"] += found.parts.elsewhere
                yield from _rows(row, found.parts, outcome)

    outcome.write(written(), args.max_failed)
    print(outcome.table())
    print(f"\n{counts['divided']:,} of {counts['lines']:,} lines were longer than {args.longest:g} s")
    print(f"cuts in pauses {counts['cuts_in_pauses']:,}, at the quietest place {counts['cuts_elsewhere']:,}")
    print(f"\n{outcome.out}")
    return outcome.summary() | counts


@dataclasses.dataclass(frozen=True)
class Asked:
    """Limits in seconds, and the level of silence in dB (None: by recording)."""

    longest: float = 30.0
    pause: float = 0.3
    max_pause: float = 2.0
    silence_db: float | None = None


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a recording is divided into, in seconds from its beginning.

    Attributes:
        spans: the pieces.
        silences: what is left out; with the spans this is all of it.
        in_pauses, elsewhere: how often it was cut in a pause, and at a quiet place for want of one.
    """

    spans: list[Interval]
    silences: list[Interval]
    in_pauses: int = 0
    elsewhere: int = 0


@dataclasses.dataclass(frozen=True)
class Divided:
    """What becomes of a line: `parts` is None where it stays whole. `kind` and `reason` as in `source.Rejected`."""

    kind: Literal["kept", "filtered", "failed"] = "kept"
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0
    parts: Parts | None = None


def divide(row: Row, asked: Asked) -> Divided:
    """Decides on a line; the audio of long ones is read."""
    if row.problem is not None:
        return Divided("failed", *row.problem)
    try:
        record = row.record()
        if record.duration <= asked.longest:
            return Divided(seconds=record.duration)
        words = row.row.get("words") or None
        if record.text.strip() and words is None:
            return Divided("filtered", "text without word times", f"{record.duration:.2f} s", record.duration)
        level = pauses.levels(pieces.timed(record), record.duration)
    except AudioError as error:
        return Divided("failed", error.reason, error.detail)
    gaps = None if words is None else between(words, record.duration)
    found = parts(level, record.duration, asked, gaps)
    if found is None:
        return Divided("filtered", "no place between words", f"{record.duration:.2f} s", record.duration)
    return Divided(seconds=record.duration, parts=found)


def parts(level: np.ndarray, seconds: float, asked: Asked, gaps: Sequence[Interval] | None = None) -> Parts | None:
    """Divides a recording by its levels.

    Args:
        level: float64[frames], of `pauses.levels`.
        gaps: where no word is; None: words are not known, and any place will do.

    Returns:
        None where words leave no place for a cut that is needed.
    """
    limit = pauses.threshold(level) if asked.silence_db is None else asked.silence_db
    quiet = pauses.pauses(level, limit, asked.pause, seconds)
    if gaps is not None:
        quiet = [gap for gap in pauses.within(quiet, gaps) if gap[1] - gap[0] >= asked.pause - FRAME / 2]
    longest = max(asked.max_pause, 3 * _MARGIN)
    long = [pause for pause in quiet if pause[1] - pause[0] > longest]
    silences = [
        (start + _MARGIN if start > 0 else 0.0, stop - _MARGIN if stop < seconds else seconds) for start, stop in long
    ]
    ends = [0.0, *itertools.chain.from_iterable(silences), seconds]
    stretches = [(start, stop) for start, stop in zip(ends[::2], ends[1::2]) if stop > start]
    spans: list[Interval] = []
    in_pauses = elsewhere = 0
    for start, stop in stretches:
        inside = [pause for pause in quiet if start < pause[0] and pause[1] < stop]
        while stop - start > asked.longest:
            low, high = start + asked.longest / 2, min(start + asked.longest, stop - _LEAST)
            cut = _in_pause(inside, low, high)
            cut = _in_pause(inside, start + _LEAST, low) if cut is None else cut
            if cut is not None:
                in_pauses += 1
            else:
                for least in (low, start + _LEAST):
                    among = [(least, high)] if gaps is None else pauses.within(gaps, [(least, high)])
                    if among:
                        break
                else:
                    return None
                cut = pauses.quietest(level, among)
                elsewhere += 1
            spans.append((start, cut))
            start = cut
        spans.append((start, stop))
    return Parts(spans, silences, in_pauses, elsewhere)


def between(words: Sequence[Sequence[Any]], seconds: float) -> list[Interval]:
    """Where no word is: before the first, between two, and after the last; of length 0 where two words touch."""
    found, clock = [], 0.0
    for _, start, stop in sorted(words, key=lambda word: word[1]):
        if start >= clock:
            found.append((clock, float(start)))
        clock = max(clock, float(stop))
    return found + ([(clock, seconds)] if clock <= seconds else [])


def _in_pause(quiet: Sequence[Interval], low: float, high: float) -> float | None:
    """The middle of the longest pause that has it between low and high; of those as long to 0.1 s, of the last."""
    middles = [((start + stop) / 2, round(stop - start, 1)) for start, stop in quiet]
    fitting = [(length, middle) for middle, length in middles if low <= middle <= high]
    return max(fitting)[1] if fitting else None


def _rows(row: Row, found: Parts, outcome: Outcome) -> Iterator[dict[str, Any]]:
    """The manifest lines of the pieces; pieces and silences are entered in the outcome.

    Where a piece ends within the gap before a segment, that silence, which is in no file, falls away.
    """
    record = row.record()
    for silence in found.silences:
        left_out = pieces.to_row(_piece(row, record, silence, row.row["id"], "", None))
        whence = Row(row.place, row.where, left_out)
        outcome.reject(whence, SILENCE, f"at {silence[0]:.2f} s", seconds=silence[1] - silence[0])
    words = row.row.get("words") or []
    written = record.text.split()
    spelt = written if len(written) == len(words) else [word for word, _, _ in words]
    begins = [start for start, _ in found.spans]
    owners = [max(bisect.bisect_right(begins, (start + stop) / 2) - 1, 0) for _, start, stop in words]
    for number, (begin, end) in enumerate(found.spans):
        own = [place for place, owner in enumerate(owners) if owner == number]
        timed = tuple(_moved(words[place], begin, end) for place in own) if words else None
        text = pieces.join([spelt[place] for place in own])
        outcome.keep()
        yield pieces.to_row(_piece(row, record, (begin, end), f"{row.row['id']}-{number:04d}", text, timed))


def _moved(word: Sequence[Any], begin: float, end: float) -> Word:
    """A word with its times from the beginning of its piece, and not beyond its end."""
    text, start, stop = word
    return text, min(max(start, begin), end) - begin, min(max(stop, begin), end) - begin


def _piece(row: Row, record: Record, span: Interval, name: str, text: str, words: tuple[Word, ...] | None) -> Piece:
    heard = pieces.stretch(pieces.timed(record), *span)
    own = {key: value for key, value in row.row.items() if key not in ("words", "translation")}
    return Piece(*span, text, heard, own | {"id": name}, row, words)
