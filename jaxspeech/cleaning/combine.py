"""`jaxspeech prepare combine MANIFEST`: successive segments of a recording as instances of 4 to 30 s, without a copy.

The recipe of the Moonshine paper (§3.2): segments follow one another with gaps of at most 2 s. What an instance should
last is drawn, keyed by the seed and its first segment, so that the lengths follow a law. 4 s is an aim, not a filter:
a short segment with no neighbour stays (one in eight of the paper's instances is shorter than 3.5 s).
"""

import argparse
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxspeech.cleaning import pieces
from jaxspeech.cleaning.outcome import MAX_FAILED, Outcome
from jaxspeech.cleaning.pieces import Piece
from jaxspeech.cleaning.recordings import Cutting, recordings
from jaxspeech.data import duration_law
from jaxspeech.data.rows import Rows
from jaxspeech.errors import UserError

_TOUCH = 0.05  # seconds that neighbours may overlap: times are rounded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = (
        "Lines of one audio file (and channel) are its segments, by their offsets. A line with `words` that is longer "
        "than --longest is cut at pauses between words first. With --captions the lines are whole recordings, and the "
        "segments come from the .srt or .vtt file beside each. What is counted are segments: lines, captions, phrases."
    )
    parser.add_argument("manifest", metavar="MANIFEST")
    parser.add_argument("--out", required=True, metavar="OUT.jsonl", help="the manifest to write")
    parser.add_argument("--shortest", type=float, default=4.0, metavar="S", help="aim of an instance at least (4)")
    parser.add_argument("--longest", type=float, default=30.0, metavar="S", help="limit of an instance (30)")
    parser.add_argument("--max-gap", type=float, default=2.0, metavar="S", help="between successive segments (2)")
    parser.add_argument(
        "--law",
        choices=duration_law.LAWS,
        default="paper",
        help="of the lengths aimed at: Moonshine's histogram (default)",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other lengths (0)")
    parser.add_argument("--drop-short", action="store_true", help="drop what stays shorter than --shortest")
    parser.add_argument("--mix-speakers", action="store_true", help="combine segments of several speakers")
    parser.add_argument(
        "--captions", nargs="?", const="", metavar="DIR", help="from .srt/.vtt beside the audio, or in DIR"
    )
    parser.add_argument(
        "--by", metavar="KEY", help="lines with the same KEY follow one another though their files differ"
    )
    parser.add_argument(
        "--file-gap", type=float, default=0.2, metavar="S", help="silence between files with --by (0.2)"
    )
    parser.add_argument("--word-gap", type=float, default=0.3, metavar="S", help="pause that parts words (0.3)")
    parser.add_argument("--max-failed", type=float, default=MAX_FAILED, metavar="SHARE", help="that stop it (0.05)")
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="that read lines (one a core, up to 8)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Writes the instances, prints their lengths beside the paper's, and returns the totals."""
    if not 0 < args.shortest < args.longest:
        raise UserError(f"--shortest {args.shortest:g} and --longest {args.longest:g}: give 0 < shortest < longest")
    if args.captions is not None and args.by:
        raise UserError("--captions gives the times within a file, --by the order of files; give one of them")
    folder = pathlib.Path(args.captions) if args.captions else None
    if folder is not None and not folder.is_dir():
        raise UserError(f"--captions {folder} is no folder; give the one with the .srt or .vtt files")
    cutting = Cutting(args.by, args.file_gap, args.longest, args.word_gap, args.captions is not None, folder)
    manifest = Rows(args.manifest)
    outcome = Outcome(args.out, manifest.path)
    lengths: list[float] = []

    def written() -> Iterator[dict[str, Any]]:
        for recording in recordings(manifest, cutting, outcome, args.processes):
            for piece in instances(recording, args, outcome):
                row = pieces.to_row(piece)
                lengths.append(row["duration"])
                yield row

    outcome.write(written(), args.max_failed)
    print(outcome.table())
    print(f"{'instances':<44}{len(lengths):>12,}\n")
    print(duration_law.compare(np.array(lengths)))
    print(f"\n{outcome.out}")
    return outcome.summary() | {"instances": len(lengths)}


def combine(
    recording: Sequence[Piece],
    target: Callable[[Piece], float],
    *,
    shortest: float = 4.0,
    longest: float = 30.0,
    max_gap: float = 2.0,
    mix: bool = False,
) -> list[list[Piece]]:
    """Groups of successive pieces, each to be one instance.

    A group grows until another piece would carry it further from its target than it is, or beyond `longest`. What
    remains shorter than `shortest` joins its neighbour where that is allowed.

    Args:
        recording: in the order of time.
        target: what an instance that begins with this piece should last, in seconds.
        mix: pieces of different speakers may be together.
    """

    def follows(before: Piece, after: Piece) -> bool:
        same = mix or before.row.get("speaker") == after.row.get("speaker")
        same &= before.row.get("language") == after.row.get("language")
        return same and -_TOUCH <= after.start - before.end <= max_gap

    def seconds(first: Piece, last: Piece) -> float:
        return last.end - first.start

    groups: list[list[Piece]] = []
    aim = 0.0
    for piece in recording:
        if groups and follows(groups[-1][-1], piece):
            now, then = seconds(groups[-1][0], groups[-1][-1]), seconds(groups[-1][0], piece)
            if then <= longest and (now < shortest or abs(then - aim) <= abs(now - aim)):
                groups[-1].append(piece)
                continue
        groups.append([piece])
        aim = target(piece)
    place = 0
    while place < len(groups):
        group = groups[place]
        if seconds(group[0], group[-1]) < shortest:
            before = groups[place - 1] if place else None
            if before and follows(before[-1], group[0]) and seconds(before[0], group[-1]) <= longest:
                before.extend(groups.pop(place))
                continue
        place += 1
    return groups


def instances(recording: list[Piece], args: argparse.Namespace, outcome: Outcome) -> Iterator[Piece]:
    """The instances of a recording; its pieces are entered in the outcome as they were read."""

    def target(piece: Piece) -> float:
        seed = hashlib.blake2b(f"{args.seed}/{piece.row['id']}".encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(seed, "little"))
        return duration_law.draw(rng, args.law, args.shortest, args.longest)

    limits = {"shortest": args.shortest, "longest": args.longest, "max_gap": args.max_gap, "mix": args.mix_speakers}
    for group in combine(recording, target, **limits):
        whole = pieces.joined(group)
        reason = ""
        if whole.seconds > args.longest + 1e-6:
            reason = f"longer than {args.longest:g} s"
        elif args.drop_short and whole.seconds < args.shortest:
            reason = f"shorter than {args.shortest:g} s"
        for piece in group:
            if reason:
                outcome.reject(piece.whence, reason, f"{whole.seconds:.2f} s", seconds=piece.seconds)
            else:
                outcome.keep()
        if not reason:
            yield whole
