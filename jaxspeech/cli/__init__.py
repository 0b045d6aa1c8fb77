"""`jaxspeech <command>`. A command is a module here with `add_arguments(parser)` and `run(args) -> dict | None`."""

import argparse
import importlib
import json
import os
import sys

from jaxspeech.errors import EXIT_USER_ERROR, run_or_explain
from jaxspeech.parallel.host_memory import keep_freed_memory

COMMANDS = {
    "prepare": "published corpora and foreign formats → manifests and shards, every utterance accounted for",
    "plan": "shapes, expected padding, compiled memory and time of an epoch, before anything is spent",
    "evaluate": "loss, WER and CER of a checkpoint on a manifest",
    "transcribe": "text of audio files of any length",
    "convert": "weights in and out: Hugging Face, Keras",
    "tokenizer": "train a sentencepiece model from a manifest",
    "report": "one HTML page about a run",
    "synthesize": "a small corpus of spoken numbers and commands, made with espeak-ng",
    "bench": "ratios to a peer or to the bare work, measured in one run",
}


def main() -> None:
    """Entry point of the console script."""
    # A pipe that closes early (`jaxspeech plan | head`) is no error worth a stack trace.
    try:
        code = run_or_explain(_dispatch)
        if sys.stdout is not None:  # somebody may have closed it: `>&-`
            code = _flush() or code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


def _flush() -> int:
    """Writes out what has been printed; 2 and a line where that cannot be, for a full disk."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        print(
            f"error: standard output cannot be written: {error.strerror}; what was asked for is done", file=sys.stderr
        )
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USER_ERROR
    return 0


def _dispatch() -> int:
    parser = argparse.ArgumentParser(
        prog="jaxspeech",
        description="Train, evaluate and use speech models.",
        epilog="Train with: python -m jaxspeech.main --help",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    module = None
    for name, description in COMMANDS.items():
        command = commands.add_parser(
            name, help=description, description=description[0].upper() + description[1:] + "."
        )
        if name == asked:  # only the command that runs is imported: `jaxspeech --help` stays fast
            module = importlib.import_module(f"jaxspeech.cli.{name}")
            module.add_arguments(command)
            command.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")
    if module is None:
        parser.parse_args()
        return 0
    words, further = _split(sys.argv[1:])
    args, rest = parser.parse_known_args(words)
    if rest and not (hasattr(args, "config") and all(word.startswith("--config.") for word in rest)):
        place = "; options of Beam stand after --" if getattr(args, "runner", None) else ""
        parser.error(f"unrecognised arguments: {' '.join(rest)}{place}")
    args.overrides = rest
    if further:
        args.beam_options = further
    keep_freed_memory()
    result = module.run(args)
    if args.json and result is not None:
        print(json.dumps(result, ensure_ascii=False))
    return 0


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of ours, and those after `--`, which with `--runner` are Beam's."""
    if "--" not in words or not any(word.partition("=")[0] == "--runner" for word in words):
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]
