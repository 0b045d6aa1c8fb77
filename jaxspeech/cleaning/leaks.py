"""`jaxspeech prepare leaks TRAIN… --against TEST…`: is anything that is tested on also trained on?

Four ways to be the same: a stretch of the same file, the same samples, the same text in the same time; and the same
speaker or recording, which is no copy and is told as a warning.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

from jaxspeech.cleaning import duplicates
from jaxspeech.cleaning.outcome import Outcome
from jaxspeech.data import rows
from jaxspeech.data.audio import AudioError
from jaxspeech.data.rows import Row, Rows
from jaxspeech.errors import UserError
from jaxspeech.evaluation.normalize import normalizer

LEAKS = ("same stretch of a file", "same audio", "same text and duration")
WARNINGS = ("same speaker", "same recording")
_OVERLAP = 0.05  # seconds: cuts of neighbours may touch
_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = "Exit code 2 if there is a leak. Speakers and recordings on both sides are warnings."
    parser.add_argument("train", nargs="+", metavar="TRAIN", help="manifests that are trained on")
    parser.add_argument("--against", nargs="+", required=True, metavar="TEST", help="manifests that are tested on")
    parser.add_argument("--audio", action="store_true", help="decode everything and compare the samples too")
    parser.add_argument("--out", metavar="OUT.jsonl", help="write TRAIN (one manifest) without what leaks")
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="that work (one a core, up to 8)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Prints a table of what is on both sides.

    Raises:
        UserError: something leaks, and no `--out` mends it.
    """
    if args.out and len(args.train) != 1:
        raise UserError("--out takes one TRAIN manifest; clean them one by one")
    tests, trains = [Rows(path) for path in args.against], [Rows(path) for path in args.train]
    known = Tested()
    measure = functools.partial(fingerprint, audio=args.audio)
    for test in tests:
        for one in rows.each(measure, test, processes=args.processes, what=test.name):
            known.add(one)
    outcome = Outcome(args.out, *(manifest.path for manifest in (*tests, *trains)))
    found = Leaks(known)
    outcome.write(found.clean(trains, measure, args.processes, outcome))
    print(found.table(outcome))
    result = outcome.summary() | {
        "leaks": {name: found.counts[name] for name in LEAKS},
        "warnings": {name: found.counts[name] for name in WARNINGS},
        "tested": known.count,
        "untested": known.failed,
    }
    leaks = outcome.filtered.total()
    if leaks and not args.out:
        if getattr(args, "json", False):  # the error would swallow it
            print(json.dumps(result, ensure_ascii=False))
        reason, trained, tested = found.examples[0]
        raise UserError(
            f"{leaks:,} of {outcome.read:,} training utterances are also tested on, the first {trained} ({reason} as "
            f"{tested}); write the training set without them with --out"
        )
    return result


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What an utterance is known by.

    Attributes:
        stretches: (file, channel or -1, begin, end) of its segments, in seconds; links are followed.
        text, audio: keys of `duplicates.py`; 0: not compared.
        speaker: as the line names it; "" where it does not.
        problem: (reason, detail) where the line or its audio cannot be used.
    """

    where: str
    stretches: tuple[tuple[str, int, float, float], ...] = ()
    seconds: float = 0.0
    text: int = 0
    audio: int = 0
    speaker: str = ""
    problem: tuple[str, str] | None = None


def fingerprint(row: Row, audio: bool) -> Fingerprint:
    """Measures one line; with `audio` its samples are read."""
    if row.problem is not None:
        return Fingerprint(row.where, problem=row.problem)
    try:
        record = row.record()
        sound = duplicates.audio_key(record) if audio else 0
    except AudioError as error:
        return Fingerprint(row.where, problem=(error.reason, error.detail))
    stretches = tuple(
        (
            _real(segment.audio),
            -1 if segment.channel is None else segment.channel,
            segment.offset,
            math.inf if segment.duration is None else segment.offset + segment.duration,
        )
        for segment in record.segments
    )
    text = duplicates.text_key(normalizer("basic").clean(record.text))
    return Fingerprint(row.where, stretches, record.duration, text, sound, record.speaker or "")


class Tested:
    """The test sets: small enough to be kept."""

    def __init__(self) -> None:
        self.count = self.failed = 0
        self._files: dict[str, list[tuple[int, float, float, str]]] = {}
        self._texts: dict[int, list[tuple[float, str]]] = {}
        self._sounds: dict[int, str] = {}
        self._speakers: dict[str, str] = {}

    def add(self, one: Fingerprint) -> None:
        if one.problem is not None:
            self.failed += 1
            return
        self.count += 1
        for path, channel, begin, end in one.stretches:
            self._files.setdefault(path, []).append((channel, begin, end, one.where))
        if one.text:
            self._texts.setdefault(one.text, []).append((one.seconds, one.where))
        if one.audio:
            self._sounds.setdefault(one.audio, one.where)
        if one.speaker:
            self._speakers.setdefault(one.speaker, one.where)

    def find(self, one: Fingerprint) -> dict[str, str]:
        """In which ways a training utterance is in the test sets, each with a place there."""
        found: dict[str, str] = {}
        for path, channel, begin, end in one.stretches:
            for other, first, last, where in self._files.get(path, ()):
                found.setdefault("same recording", where)
                same_channel = channel == other or -1 in (channel, other)
                if same_channel and min(end, last) - max(begin, first) > _OVERLAP:
                    found.setdefault("same stretch of a file", where)
        for seconds, where in self._texts.get(one.text, ()):
            if abs(seconds - one.seconds) <= duplicates.TOLERANCE:
                found.setdefault("same text and duration", where)
        if one.audio in self._sounds:
            found["same audio"] = self._sounds[one.audio]
        if one.speaker in self._speakers:
            found["same speaker"] = self._speakers[one.speaker]
        return found


class Leaks:
    """What was found of the test sets in the training sets.

    Attributes:
        counts: utterances by each way of being the same; one may be counted in several.
        examples: (reason, place in training, place in the test set), a few of each reason.
    """

    def __init__(self, known: Tested) -> None:
        self.counts = dict.fromkeys((*LEAKS, *WARNINGS), 0)
        self.examples: list[tuple[str, str, str]] = []
        self._known = known

    def clean(
        self, trains: list[Rows], measure: Callable[[Row], Fingerprint], processes: int, outcome: Outcome
    ) -> Iterator[dict[str, Any]]:
        """The training rows that are not tested on; the others are entered in the outcome."""
        for train in trains:
            prints = rows.each(measure, train, processes=processes, what=train.name)
            for place, one in enumerate(prints):
                if one.problem is not None:
                    outcome.reject(train[place], *one.problem, kind="failed")
                    continue
                leak = self._leak(one)
                if leak is not None:
                    outcome.reject(train[place], leak[0], f"as {leak[1]}", seconds=one.seconds)
                    continue
                outcome.keep()
                yield train[place].row | {"duration": one.seconds}

    def table(self, outcome: Outcome) -> str:
        """The counts and the first examples, for people."""
        known = self._known
        lines = [f"{outcome.read:,} training utterances against {known.count:,} tested", ""]
        lines += [f"{name:<28}{self.counts[name]:>10,}" for name in LEAKS]
        lines += [f"{name:<28}{self.counts[name]:>10,}  (warning)" for name in WARNINGS]
        if known.failed:
            lines.append(f"{'tested lines unusable':<28}{known.failed:>10,}  (warning)")
        lines += [f"  {train}: {reason} as {test}" for reason, train, test in self.examples]
        return "\n".join(lines)

    def _leak(self, one: Fingerprint) -> tuple[str, str] | None:
        found = self._known.find(one)
        for reason, where in found.items():
            self.counts[reason] += 1
            if reason in LEAKS and self.counts[reason] <= _SHOWN:
                self.examples.append((reason, one.where, where))
        return next(((reason, found[reason]) for reason in LEAKS if reason in found), None)


def _real(path: str) -> str:
    """The file that a path leads to; what stands in a shard or on a server has no links."""
    return path if "://" in path else os.path.realpath(path)
