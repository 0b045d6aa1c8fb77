"""`jaxspeech prepare filter MANIFEST`: drops utterances by language, pace, pseudo-label and duplicates."""

import argparse
import array
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxspeech.cleaning import duplicates, thresholds
from jaxspeech.cleaning.criteria import FAR, Criteria, Judged, judge, logprob_key
from jaxspeech.cleaning.distance import swapped
from jaxspeech.cleaning.outcome import MAX_FAILED, Outcome
from jaxspeech.cleaning.thresholds import DISTANCE, LOGPROB
from jaxspeech.data import rows
from jaxspeech.data.rows import Rows
from jaxspeech.data.scripts import parse_scripts, scripts_of
from jaxspeech.errors import UserError
from jaxspeech.evaluation.normalize import NAMES, normalizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = (
        "Of several reasons the first counts, in the order of these flags. What is dropped goes to "
        "OUT.rejected.jsonl with its file, line and reason. A language is told by its script alone: Russian from "
        "English, not German from English; use the key `language` of the lines for that."
    )
    parser.add_argument("manifest", metavar="MANIFEST")
    parser.add_argument("--out", metavar="OUT.jsonl", help="the manifest to write")
    parser.add_argument("--dry-run", action="store_true", help="show what would be dropped, write nothing")
    parser.add_argument("--drop-empty", action="store_true", help="drop lines without a text")
    parser.add_argument("--language", default="", metavar="CODE", help="keep its script, and lines that name no other")
    parser.add_argument("--scripts", metavar="A,B", help="keep texts in these scripts alone (Latin, Han, …)")
    numbers = (
        ("min-seconds", "S", "shortest"),
        ("max-seconds", "S", "longest"),
        ("max-characters-per-second", "N", "more text than anybody says (about 25 in English)"),
        ("min-characters-per-second", "N", "less"),
        ("max-tokens-per-second", "N", "the same in tokens; needs --tokenizer"),
        ("min-tokens-per-second", "N", "less"),
        ("frame", "S", "drop texts with more tokens than frames of so many seconds (CAIMAN: 0.06); needs --tokenizer"),
        ("min-logprob", "X", "least average log-probability of the pseudo-label (-1, say)"),
        ("max-distance", "X", "largest normalised Levenshtein distance between text and pseudo-label, 0 to 1"),
    )
    for name, unit, words in numbers:
        parser.add_argument(f"--{name}", type=float, metavar=unit, help=words)
    parser.add_argument("--tokenizer", default="", metavar="SPEC", help="what data.tokenizer takes")
    parser.add_argument("--pseudo", default="pseudo", metavar="KEY", help="key of the pseudo-label (pseudo)")
    parser.add_argument("--normalizer", choices=NAMES, default="basic", help="of texts that are compared (basic)")
    parser.add_argument(
        "--duplicates", default="", metavar="text,audio", help="drop all but the first: same text and duration; samples"
    )
    parser.add_argument("--max-failed", type=float, default=MAX_FAILED, metavar="SHARE", help="that stop it (0.05)")
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="that work (one a core, up to 8)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Shows the effect, writes what is kept, and returns the totals."""
    if not args.out and not args.dry_run:
        raise UserError("no --out; give the manifest to write, or --dry-run to look at the effect alone")
    asked = _criteria(args)
    manifest = Rows(args.manifest)
    verdicts = Verdicts.of(manifest, asked, args.processes)
    shown = _effects(verdicts, manifest, asked)
    outcome = Outcome(None if args.dry_run else args.out, manifest.path)
    outcome.write(verdicts.kept(manifest, outcome), args.max_failed)
    print(outcome.table())
    print("\nnothing written (--dry-run)" if args.dry_run else f"\n{outcome.out}")
    return outcome.summary() | shown


def _effects(verdicts: "Verdicts", manifest: Rows, asked: Criteria) -> dict[str, Any]:
    """Shows what thresholds on the measures of pseudo-labels would keep; the same for `--json`."""
    shown = {}
    how = f"normalised Levenshtein distance, {asked.normalizer} texts"
    for name, measure, chosen, key, note in (
        ("logprob", LOGPROB, asked.min_logprob, logprob_key(asked.pseudo), "natural logarithm"),
        ("distance", DISTANCE, asked.max_distance, asked.pseudo, how),
    ):
        found = thresholds.show(measure, getattr(verdicts, name), verdicts.seconds, chosen, note)
        if found:
            shown[name] = found
        elif chosen is not None:
            raise UserError(
                f"{manifest.path}: no line has {measure.what} in the key {key!r}; name the label's key with --pseudo"
            )
    return shown


class Verdicts:
    """What is to become of each line: 48 bytes a line, however long the texts are.

    Attributes:
        seconds, distance, logprob: float64[n], NaN where unknown.
        reasons: (kind, reason) by number, ("kept", "") first; codes: int64[n] of them.
        details: of what is not kept, by place.
    """

    def __init__(self) -> None:
        self.reasons: list[tuple[str, str]] = [("kept", "")]
        self.details: dict[int, str] = {}
        self.seconds = self.distance = self.logprob = np.zeros(0)
        self.codes = np.zeros(0, np.int64)

    @classmethod
    def of(cls, manifest: Rows, asked: Criteria, processes: int = 0) -> "Verdicts":
        """Judges every line, then all of them together: swapped texts and duplicates."""
        found = cls()
        floats = {name: array.array("d") for name in ("seconds", "distance", "logprob")}
        whole = {name: array.array("q") for name in ("code", "id_key", "text_key", "audio_key")}
        every: Iterator[Judged] = rows.each(
            functools.partial(judge, asked=asked), manifest, processes=processes, what=manifest.name
        )
        for place, one in enumerate(every):
            for name in floats:
                floats[name].append(getattr(one, name))
            for name in ("id_key", "text_key", "audio_key"):
                whole[name].append(getattr(one, name))
            whole["code"].append(found._code(one.kind, one.reason))
            if one.detail:
                found.details[place] = one.detail
        found.seconds, found.distance, found.logprob = (np.array(values, np.float64) for values in floats.values())
        found.codes = np.array(whole["code"], np.int64)
        found._swapped(manifest, asked)
        found._duplicates(manifest, "duplicate id", np.array(whole["id_key"], np.int64))
        if asked.same_text:
            keys = np.array(whole["text_key"], np.int64)
            found._duplicates(manifest, "same text and duration", keys, found.seconds)
        if asked.same_audio:
            found._duplicates(manifest, "same audio", np.array(whole["audio_key"], np.int64))
        return found

    def kept(self, manifest: Rows, outcome: Outcome) -> Iterator[dict[str, Any]]:
        """The rows that are kept, their durations filled in; the others are entered in the outcome."""
        for place, code in enumerate(self.codes.tolist()):
            kind, reason = self.reasons[code]
            row, seconds = manifest[place], float(self.seconds[place])
            if kind == "kept":
                outcome.keep()
                yield row.row | {"duration": seconds}
            else:
                known: Any = {"kind": kind, "seconds": 0.0 if np.isnan(seconds) else seconds}
                outcome.reject(row, reason, self.details.get(place, ""), **known)

    def _code(self, kind: str, reason: str) -> int:
        pair = (kind, reason)
        if pair not in self.reasons:
            self.reasons.append(pair)
        return self.reasons.index(pair)

    def _drop(self, place: int, reason: str, detail: str) -> None:
        self.codes[place] = self._code("filtered", reason)
        self.details[place] = detail

    def _swapped(self, manifest: Rows, asked: Criteria) -> None:
        """Of texts far from their pseudo-label: which are the words of another line nearby."""
        far = np.flatnonzero(self.codes == self._code("filtered", FAR)).tolist()
        if not far or asked.max_distance is None:
            return
        clean = normalizer(asked.normalizer).clean
        lines = [manifest[place].row for place in far]
        captions, heard = ([clean(line[key]) for line in lines] for key in ("text", asked.pseudo))
        for place, other in swapped(far, captions, heard, asked.max_distance).items():
            self._drop(place, "swapped text", f"its pseudo-label is the text of {manifest.where(other)}")

    def _duplicates(self, manifest: Rows, reason: str, keys: np.ndarray, durations: np.ndarray | None = None) -> None:
        """Drops all but the first of the lines that are kept so far."""
        places = np.flatnonzero(self.codes == 0)
        firsts = duplicates.clusters(keys[places], None if durations is None else durations[places])
        for number in np.flatnonzero(firsts != np.arange(len(places))):
            first = manifest.where(int(places[firsts[number]]))
            self._drop(int(places[number]), reason, f"as {first}")


def _criteria(args: argparse.Namespace) -> Criteria:
    named = [name for name in ("max_tokens_per_second", "min_tokens_per_second", "frame") if getattr(args, name)]
    if named and not args.tokenizer:
        raise UserError(f"--{named[0].replace('_', '-')} counts tokens; give the --tokenizer that makes them")
    wanted = {name.strip() for name in args.duplicates.split(",") if name.strip()}
    if wanted - {"text", "audio"}:
        raise UserError(f"--duplicates {args.duplicates}: give text, audio, or text,audio")
    for name in ("max_distance", "max_failed"):
        value = getattr(args, name)
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: it is between 0 and 1")
    if args.frame is not None and args.frame <= 0:
        raise UserError(f"--frame {args.frame:g}: give the seconds of an encoder frame, such as 0.06")
    allowed = parse_scripts(args.scripts) if args.scripts else scripts_of(args.language) if args.language else None
    return Criteria(
        language=args.language,
        scripts=allowed,
        min_seconds=args.min_seconds,
        max_seconds=args.max_seconds,
        min_characters=args.min_characters_per_second,
        max_characters=args.max_characters_per_second,
        tokenizer=args.tokenizer,
        min_tokens=args.min_tokens_per_second,
        max_tokens=args.max_tokens_per_second,
        frame=args.frame,
        drop_empty=args.drop_empty,
        pseudo=args.pseudo,
        max_distance=args.max_distance,
        normalizer=args.normalizer,
        min_logprob=args.min_logprob,
        same_text="text" in wanted,
        same_audio="audio" in wanted,
    )
