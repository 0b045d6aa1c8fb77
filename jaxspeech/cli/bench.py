"""`jaxspeech bench NAME`: a ratio to a peer or to the bare work, both measured in one run."""

import argparse
import importlib
import sys
from typing import Any

_NAMES = ("train_step", "loader", "decode", "prepare", "shards")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=_NAMES, metavar="NAME", help=", ".join(_NAMES))
    parser.add_argument("--peer", choices=["transformers"], default="transformers", help="whom to compare with")
    asked = next((word for word in sys.argv[1:] if word in _NAMES), None)
    if asked:
        _module(asked).add_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = _module(args.name).run(args)
    return result


def _module(name: str) -> Any:
    return importlib.import_module(f"jaxspeech.benchmarks.{name}")
