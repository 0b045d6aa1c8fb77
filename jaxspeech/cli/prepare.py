"""`jaxspeech prepare NAME`: what people have → manifests and shards; what is in them; and back.

A name of kind "source" is a module with `add_arguments` and `source(args)`, whose utterances go through the checks of
`corpora/preparation.py`. One of kind "command" is a module with `add_arguments` and `run(args) -> dict`.
"""

import argparse
import dataclasses
import importlib
import sys
import time
from typing import Any

NAMES: dict[str, tuple[str, str, str]] = {
    "jsonl": ("jaxspeech.corpora.jsonl", "source", "JSON lines: ours, NeMo's, Moonshine's"),
    "folder": ("jaxspeech.corpora.folder", "source", "a folder of audio, with texts beside it or in a second folder"),
    "download": ("jaxspeech.corpora.download", "command", "fetch the archives of published corpora, and go on later"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A parser for each name; only the one that is asked for has flags, so that no other module is imported."""
    names = parser.add_subparsers(dest="name", metavar="NAME", required=True)
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    asked = words[1] if len(words) > 1 else None
    for name, (module, kind, description) in NAMES.items():
        sub = names.add_parser(name, help=description, description=description[0].upper() + description[1:] + ".")
        if name != asked:
            continue
        importlib.import_module(module).add_arguments(sub)
        if kind == "source":
            _add_engine(sub)
        # Also here, so that it may stand last; SUPPRESS: what stood before the name stays.
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Runs what is asked for."""
    module, kind, _ = NAMES[args.name]
    asked = importlib.import_module(module)
    if kind == "source":
        return _prepare(asked.source(args), args)
    result: dict[str, Any] = asked.run(args)
    return result


def _add_engine(parser: argparse.ArgumentParser) -> None:
    from jaxspeech.corpora.checks import Limits

    limits = Limits()
    group = parser.add_argument_group("checks and output")
    group.add_argument("--out", required=True, metavar="DIR", help="folder of the manifests, DIR/<split>.jsonl")
    group.add_argument("--splits", metavar="A,B", help="only these splits")
    group.add_argument("--processes", type=int, default=0, metavar="N", help="that check (one a core, up to 16)")
    group.add_argument(
        "--decode", action="store_true", help="decode all audio: finds truncation, silence, clipping, wrong headers"
    )
    group.add_argument("--relative", action="store_true", help="relative paths also to audio that is not under DIR")
    group.add_argument(
        "--max-failed",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="of utterances that may fail before it stops (0.01)",
    )
    for flag, key, kind, text in (
        ("--min-seconds", "min_seconds", float, "shorter utterances are filtered"),
        ("--max-seconds", "max_seconds", float, "longer utterances are filtered; 0: none"),
        ("--max-characters", "max_characters", float, "a second, more than which nobody says; 0: no limit"),
        ("--max-clipped", "max_clipped", float, "share of samples at full scale, with --decode"),
        ("--silence-db", "silence_db", float, "level below which audio is silence, with --decode"),
    ):
        default = getattr(limits, key)
        group.add_argument(flag, dest=key, type=kind, default=default, metavar="X", help=f"{text} ({default:g})")
    group.add_argument("--allow-empty-text", action="store_true", help="keep utterances without text")
    group.add_argument("--allow-repeated-audio", action="store_true", help="keep utterances with the same audio")
    group.add_argument(
        "--header-durations", action="store_true", help="where a stated duration is wrong, take that of the header"
    )
    group.add_argument(
        "--any-speaking-rate", action="store_true", help="keep what is spoken far faster or slower, with --decode"
    )


def _prepare(source: Any, args: argparse.Namespace) -> dict[str, Any]:
    from jaxspeech.corpora.checks import Limits
    from jaxspeech.corpora.preparation import prepare
    from jaxspeech.corpora.summary import lines

    keys = ("min_seconds", "max_seconds", "max_characters", "max_clipped", "silence_db")
    limits = dataclasses.replace(
        Limits(**{key: getattr(args, key) for key in keys}),
        empty_text=args.allow_empty_text or getattr(source, "empty_text", False),
        repeated_audio=args.allow_repeated_audio,
        header_duration=args.header_durations,
        speaking_rate=not args.any_speaking_rate,
    )
    start = time.perf_counter()
    with _Progress() as progress:
        found = prepare(
            source,
            args.out,
            splits=[name for name in args.splits.split(",") if name] if args.splits else None,
            processes=args.processes,
            decode=args.decode,
            limits=limits,
            relative=args.relative,
            max_failed=args.max_failed,
            progress=progress,
        )
    for line in lines(found):
        print(line)
    return found | {"seconds": round(time.perf_counter() - start, 2)}


class _Progress:
    """A bar on a terminal; elsewhere a line every ten seconds."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._split = ""
        self._shown = time.monotonic()

    def __call__(self, split: str, read: int, rejected: int, total: int | None) -> None:
        if sys.stderr.isatty():
            from tqdm import tqdm

            if split != self._split:
                self.__exit__()
                self._bar, self._split = tqdm(total=total, desc=split, unit="utt", dynamic_ncols=True), split
            self._bar.update(read - self._bar.n)
            self._bar.set_postfix(rejected=rejected, refresh=False)
        elif time.monotonic() - self._shown > 10:
            self._shown = time.monotonic()
            print(f"{split}: {read:,} utterances read, {rejected:,} of them rejected", file=sys.stderr)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
