"""Pseudo-labels of a manifest's lines: the labels in a journal, and what becomes of each line.

The journal makes a killed run go on where it was, and write the same bytes as one that nobody disturbed: the batches
are planned before anything is read, and each is a function of its number.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxspeech.cleaning import thresholds
from jaxspeech.cleaning.criteria import IMPROBABLE, logprob_key
from jaxspeech.cleaning.outcome import Outcome
from jaxspeech.cleaning.thresholds import LOGPROB
from jaxspeech.cleaning.utterances import Utterances
from jaxspeech.data.journal import Journal
from jaxspeech.data.rows import Rows
from jaxspeech.evaluation.labels import Label, Labeler

_OPEN = 8  # batches whose labels are in memory: lines in order need one of each static shape


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be done with the labels.

    Attributes:
        key: of the label in a line; `<key>_logprob` holds its average log-probability.
        longest: seconds; longer utterances are filtered.
        min_logprob: less probable labels are filtered; None: none.
        as_text: the label becomes the text of lines that have none.
    """

    key: str = "pseudo"
    longest: float = 30.0
    min_logprob: float | None = None
    as_text: bool = False


class Labels:
    """The labels of utterances, in a journal on disk.

    Attributes:
        logprobs: float64[n], average log-probabilities; NaN where nothing was heard.
    """

    def __init__(self, journal: Journal, labeler: Labeler, count: int, key: str):
        self._journal, self._labeler, self._key = journal, labeler, key
        self._batch, self._place = labeler.places()
        self._entry = functools.lru_cache(_OPEN)(self._read)
        self.logprobs = np.full(count, np.nan)

    def make(self, progress: Callable[[int], object]) -> int:
        """Labels all that the journal does not hold; `progress` is told how many are new. Returns how many are known.

        A batch that had failures is decoded again: the reason to start again may be that they have been mended.
        """
        known = np.array([self._known(number) for number in range(len(self._labeler))])
        total = int(known.sum())
        progress(total)
        for number, labels in self._labeler.labels(np.flatnonzero(known == 0).tolist()):
            data = json.dumps([(one.text, _rounded(one.logprob), one.problem) for one in labels])
            told = {"labels": len(labels), "again": sum(one.problem is not None for one in labels)}
            self._journal.put(number, self._key, data.encode(), told)
            progress(len(labels))
        for number in np.argsort(self._batch, kind="stable").tolist():  # each batch is read once
            one = self[number]
            self.logprobs[number] = one.logprob if one.text else math.nan
        return total

    def __getitem__(self, number: int) -> Label:
        return self._entry(int(self._batch[number]))[int(self._place[number])]

    def _known(self, number: int) -> int:
        entry = self._journal.get(number, self._key)
        return 0 if entry is None or entry.told["again"] else entry.told["labels"]

    def _read(self, number: int) -> list[Label]:
        found = json.loads(self._journal.entry(number).data)
        return [
            Label(text, math.nan if logprob is None else logprob, problem and tuple(problem))
            for text, logprob, problem in found
        ]


def label(
    manifest: Rows,
    out: str,
    labeler_of: Callable[[Utterances], Labeler],
    asked: Asked,
    *,
    settings: str = "",
    max_failed: float,
    processes: int = 0,
    progress: Callable[[int, int], object] = lambda new, total: None,
) -> dict[str, Any]:
    """Writes the lines with their labels to `out`, what is left out beside it, and shows and returns the totals.

    Args:
        labeler_of: makes the labeler of the utterances that are found.
        settings: what else decides the labels, for the journal.
        max_failed: share of the lines that may fail.
        processes: that read lines, and headers of audio where a line states no duration; 0: one a core.
        progress: told (utterances newly labelled or known, utterances in all).

    Raises:
        UserError: nothing can be kept, too many lines failed, `out` cannot be written or is the manifest.
    """
    outcome = Outcome(out, manifest.path)
    assert outcome.out is not None
    heard = Utterances(manifest, asked.longest, processes)
    shown: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        labels = None
        if len(heard):
            labeler = labeler_of(heard)
            key = hashlib.sha256(f"{heard.fingerprint()} {labeler.fingerprint(settings)}".encode()).hexdigest()
            journal = Journal(outcome.out.with_name(f".{outcome.out.name}.journal"))
            stack.callback(journal.close)
            labels = Labels(journal, labeler, len(heard), key)
            known = labels.make(lambda new: progress(new, len(heard)))
            if known:
                print(f"{known:,} of {len(heard):,} utterances had been labelled before", file=sys.stderr)
            table = thresholds.show(LOGPROB, labels.logprobs, heard.seconds, asked.min_logprob, "natural logarithm")
            shown = {"logprob": table} if table else {}
        outcome.write(_kept(manifest, heard, labels, asked, outcome), max_failed)
        if labels is not None:
            journal.remove()
    print(outcome.table())
    print(f"\n{outcome.out}")
    return outcome.summary() | shown


def _kept(
    manifest: Rows, heard: Utterances, labels: Labels | None, asked: Asked, outcome: Outcome
) -> Iterator[dict[str, Any]]:
    """The lines with their labels; those that are left out are entered in the outcome."""
    number = 0
    for place in range(len(manifest)):
        row = manifest[place]
        if place in heard.rejected:
            kind, reason, detail, seconds = heard.rejected[place]
        else:
            assert labels is not None
            one, seconds = labels[number], float(heard.seconds[number])
            number += 1
            if one.problem is None:
                row = dataclasses.replace(row, row=_labelled(row.row, one, asked))
            kind, reason, detail = _judge(one, asked)
        if kind == "kept":
            outcome.keep()
            yield row.row | {"duration": seconds}
        else:
            known: Any = {"kind": kind, "seconds": seconds}
            outcome.reject(row, reason, detail, **known)


def _labelled(line: dict[str, Any], one: Label, asked: Asked) -> dict[str, Any]:
    line = line | {asked.key: one.text, logprob_key(asked.key): _rounded(one.logprob)}
    return line | {"text": one.text} if asked.as_text and not line["text"].strip() else line


def _rounded(logprob: float) -> float | None:
    return None if math.isnan(logprob) else round(logprob, 4)


def _judge(one: Label, asked: Asked) -> tuple[str, str, str]:
    if one.problem is not None:
        return "failed", *one.problem
    if not one.text:
        return "filtered", "empty pseudo-label", ""
    if asked.min_logprob is not None and one.logprob < asked.min_logprob:
        return "filtered", IMPROBABLE, f"{one.logprob:.2f}"
    return "kept", "", ""
