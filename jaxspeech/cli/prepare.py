"""`jaxspeech prepare NAME`: what people have → manifests and shards; what is in them; and back.

A name of kind "source" is a module with `add_arguments` and `source(args)`, whose utterances go through the checks of
`corpora/preparation.py`. One of kind "command" is a module with `add_arguments` and `run(args) -> dict`.
"""

import argparse
import dataclasses
import difflib
import importlib
import sys
import time
from typing import Any

from jaxspeech.errors import UserError

NAMES: dict[str, tuple[str, str, str]] = {
    # Published corpora.
    "librispeech": ("jaxspeech.corpora.librispeech", "source", "LibriSpeech, unpacked or in its tars"),
    "mls": ("jaxspeech.corpora.mls", "source", "a language of Multilingual LibriSpeech"),
    "commonvoice": ("jaxspeech.corpora.commonvoice", "source", "Common Voice, 16.1 and newer"),
    "ami": ("jaxspeech.corpora.ami", "source", "the AMI meetings, by headset, mix or array"),
    "gigaspeech": ("jaxspeech.corpora.gigaspeech", "source", "GigaSpeech"),
    "peoples_speech": ("jaxspeech.corpora.peoples_speech", "source", "the People's Speech"),
    "aishell": ("jaxspeech.corpora.aishell", "source", "AISHELL-1"),
    "covost": ("jaxspeech.corpora.covost", "source", "CoVoST 2: Common Voice 4 with translations"),
    "dailytalk": ("jaxspeech.corpora.dailytalk", "source", "DailyTalkContiguous: stereo dialogues with word times"),
    # Formats.
    "jsonl": ("jaxspeech.corpora.jsonl", "source", "JSON lines: ours, NeMo's, Moonshine's"),
    "caiman": ("jaxspeech.corpora.caiman", "source", "JSON manifests of CAIMAN-ASR"),
    "kaldi": ("jaxspeech.corpora.kaldi", "source", "Kaldi folders: wav.scp, text, segments, utt2spk"),
    "folder": ("jaxspeech.corpora.folder", "source", "a folder of audio, with texts beside it or in a second folder"),
    "webdataset": ("jaxspeech.corpora.webdataset", "source", "WebDataset tars"),
    "mooer": ("jaxspeech.corpora.mooer", "source", "MooER's data.list of tars"),
    "voxlm": ("jaxspeech.corpora.voxlm", "source", "JSON manifests of VoxLM, with word times"),
    "moshi": ("jaxspeech.corpora.moshi", "source", "Moshi's JSON lines, each file with its alignments"),
    "table": ("jaxspeech.corpora.table", "source", "CSV and TSV with named columns"),
    "huggingface": ("jaxspeech.corpora.huggingface", "source", "Hugging Face datasets on disk, and parquet"),
    "tfds": ("jaxspeech.corpora.tfds", "source", "tensorflow-datasets by name; their audio is written as FLAC"),
    # What is done with manifests.
    "shards": ("jaxspeech.corpora.shards", "command", "pack a manifest into ArrayRecord shards, or verify them"),
    "combine": ("jaxspeech.cleaning.combine", "command", "successive segments of recordings → instances of 4 to 30 s"),
    "split": ("jaxspeech.cleaning.split", "command", "long recordings, cut at their silences"),
    "filter": ("jaxspeech.cleaning.filter", "command", "drop utterances by language, pace, pseudo-label, duplicates"),
    "pseudo-label": ("jaxspeech.cli.pseudo_label", "command", "what a checkpoint hears in every utterance"),
    "leaks": ("jaxspeech.cleaning.leaks", "command", "what is both trained on and tested on"),
    "inspect": ("jaxspeech.observe.inspection", "command", "one HTML page about what manifests hold"),
    "listen": ("jaxspeech.cli.listen", "command", "the augmented audio of an utterance"),
    "export-mooer": ("jaxspeech.corpora.export_mooer", "command", "a manifest → MooER's data.list and tars"),
    "export-kaldi": ("jaxspeech.corpora.export_kaldi", "command", "a manifest → a Kaldi folder"),
    "export-nemo": ("jaxspeech.corpora.export_nemo", "command", "a manifest → JSON lines as NeMo reads them"),
    # What is fetched and made.
    "download": ("jaxspeech.corpora.download", "command", "fetch the archives of published corpora, and go on later"),
    "rooms": ("jaxspeech.corpora.rooms", "command", "impulse responses of simulated rooms, to augment with"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A parser for each name; only the one that is asked for has flags, so that no other module is imported.

    Raises `UserError` for a name that is none.
    """
    # The dest is no flag of any name: what a name parses would replace it.
    names = parser.add_subparsers(dest="prepared", metavar="NAME", required=True)
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    asked = words[1] if len(words) > 1 else None
    if asked is not None and asked not in NAMES:
        near = difflib.get_close_matches(asked.lower().replace("_", "-"), NAMES, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"prepare: {asked!r} is no name; {meant}there are {', '.join(NAMES)}")
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
    module, kind, _ = NAMES[args.prepared]
    asked = importlib.import_module(module)
    if kind == "source":
        return _prepare(asked.source(args), args)
    result: dict[str, Any] = asked.run(args)
    return result


def _add_engine(parser: argparse.ArgumentParser) -> None:
    from jaxspeech.corpora import workers
    from jaxspeech.corpora.checks import Limits

    limits = Limits()
    group = parser.add_argument_group("checks and output")
    group.add_argument("--out", required=True, metavar="DIR", help="folder of the manifests, DIR/<split>.jsonl")
    group.add_argument("--splits", metavar="A,B", help="only these splits")
    workers.add_arguments(group, "check")
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
    from jaxspeech.corpora import workers
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
            beam=workers.beam_options(args),
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
