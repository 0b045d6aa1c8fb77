"""`jaxspeech prepare pseudo-label MANIFEST`: what a checkpoint hears in every utterance, and how sure of it it is."""

import argparse
import sys
import time
from typing import Any

from jaxspeech.cleaning.outcome import MAX_FAILED
from jaxspeech.errors import UserError

_TAKEN = ("id", "audio", "text", "duration", "offset", "channel", "segments", "speaker", "language", "words")
_DECIDING = ("task", "model.", "train.matmul_precision")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Greedy search. KEY_logprob gets the average natural log-probability of the tokens and of the end of the text. "
        "`prepare filter` can drop by it later, and by the distance between label and text."
    )
    parser.add_argument("manifest", metavar="MANIFEST")
    parser.add_argument("--checkpoint", required=True, help="a workdir, DIR@step, or a folder of Hugging Face weights")
    parser.add_argument("--out", required=True, metavar="OUT.jsonl", help="the manifest to write")
    parser.add_argument("--pseudo", default="pseudo", metavar="KEY", help="key to write the label to (pseudo)")
    parser.add_argument("--min-logprob", type=float, metavar="X", help="drop labels with less on average (-1, say)")
    parser.add_argument("--as-text", action="store_true", help="make it the text of lines that have none")
    parser.add_argument("--longest", type=float, metavar="S", help="drop longer utterances (default: as trained)")
    parser.add_argument("--batch-seconds", type=float, metavar="S", help="audio of a batch (default: the config's)")
    parser.add_argument("--max-failed", type=float, default=MAX_FAILED, metavar="SHARE", help="that stop it (0.05)")
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="that read lines (one a core, up to 8)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Labels every utterance, writes what is kept, and returns the totals."""
    if not args.pseudo or args.pseudo in _TAKEN:
        raise UserError(f"--pseudo {args.pseudo!r} is a key of the manifest itself; give another, such as 'pseudo'")
    if not 0 <= args.max_failed <= 1:
        raise UserError(f"--max-failed {args.max_failed:g}: it is between 0 and 1")
    for name in ("longest", "batch_seconds"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: give seconds above 0")

    import jax

    from jaxspeech import config as configs
    from jaxspeech.cleaning.pseudo_label import Asked, label
    from jaxspeech.cleaning.utterances import Utterances
    from jaxspeech.cli.ready import ready
    from jaxspeech.data.rows import Rows
    from jaxspeech.evaluation import long_audio
    from jaxspeech.evaluation.labels import Labeler

    manifest = Rows(args.manifest)
    task, params, config, mesh = ready(args.checkpoint)
    longest = args.longest or min(long_audio.LONGEST, config.data.max_seconds)
    # What decides the labels beside the weights; the rest of the config does not, and paths in it change.
    keys = {name: value for name, value in configs.flatten(config) if name.startswith(_DECIDING)}
    settings = repr(sorted(keys.items()))
    labelers: list[Labeler] = []

    def labeler_of(utterances: Utterances) -> Labeler:
        seconds = args.batch_seconds or config.eval.batch_seconds
        threads = config.data.threads
        labelers.append(Labeler(task, params, utterances, mesh, batch_seconds=seconds, threads=threads))
        return labelers[0]

    asked = Asked(key=args.pseudo, longest=longest, min_logprob=args.min_logprob, as_text=args.as_text)
    with jax.set_mesh(mesh), _Progress() as progress:
        result = label(
            manifest,
            args.out,
            labeler_of,
            asked,
            settings=settings,
            max_failed=args.max_failed,
            processes=args.processes,
            progress=progress,
        )
    if labelers and labelers[0].seconds:
        rtfx = labelers[0].audio_seconds / labelers[0].seconds
        print(f"{labelers[0].audio_seconds:,.1f} s of audio decoded, RTFx {rtfx:.1f}", file=sys.stderr)
        result["rtfx"] = rtfx
    return result


class _Progress:
    """A bar on a terminal; elsewhere a line every half minute."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._done = 0
        self._told = time.monotonic()

    def __call__(self, new: int, total: int) -> None:
        self._done += new
        if sys.stderr.isatty():
            from tqdm import tqdm

            if self._bar is None:
                self._bar = tqdm(total=total, unit="utt", dynamic_ncols=True, leave=False)
            self._bar.update(new)
        elif time.monotonic() - self._told > 30:
            self._told = time.monotonic()
            print(f"{self._done:,} of {total:,} utterances labelled", file=sys.stderr, flush=True)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
