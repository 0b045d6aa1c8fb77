"""`jaxspeech convert`: weights in and out. What comes in becomes a Hugging Face folder, our form of exchange."""

import argparse
import dataclasses
import pathlib
from typing import Any

from jaxspeech.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    ways = parser.add_subparsers(dest="way", metavar="import|export", required=True)
    into = ways.add_parser(
        "import", help="published weights → a folder that --checkpoint and init_from take", description="Weights in."
    )
    into.add_argument("--from", dest="form", choices=("hf", "keras"), required=True, help="the form that PATH has")
    into.add_argument(
        "path", metavar="PATH", help="hf: a folder with safetensors; keras: one with three .weights.h5 files"
    )
    into.add_argument(
        "--tokenizer", help="tokenizer.json, a sentencepiece .model, characters:… or words:…, where PATH has none"
    )
    out = ways.add_parser(
        "export",
        help="a checkpoint → a folder for other frameworks, with its averaged weights",
        description="Weights out.",
    )
    out.add_argument("--to", dest="form", choices=("hf", "keras"), required=True, help="the form that OUT gets")
    out.add_argument("path", metavar="CHECKPOINT", help="a workdir, DIR@step, or a folder of Hugging Face weights")
    for way in (into, out):
        way.add_argument("out", metavar="OUT", help="a new folder")
        way.add_argument("--force", action="store_true", help="replace the folder OUT and all that is in it")
        # Also here, so that it may stand last; SUPPRESS: what stood before the subcommand stays.
        way.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> dict[str, Any]:
    source, target = pathlib.Path(args.path).resolve(), pathlib.Path(args.out).resolve()
    if source == target or source.is_relative_to(target):
        raise UserError(f"OUT {args.out} holds {args.path}, which is read; give another folder")
    written = _import(args) if args.way == "import" else _export(args)
    print(
        f"{args.out}: {written.parameters:,} parameters in {written.tensors} tensors, {written.bytes / 1e6:.1f} MB, "
        f"largest absolute value {written.max_abs:.6g}"
    )
    for note in written.notes:
        print(f"note: {note}")
    return dataclasses.asdict(written) | {"out": args.out}


def _import(args: argparse.Namespace) -> Any:
    from jaxspeech.interop import moonshine_hf, moonshine_keras
    from jaxspeech.interop.folder import read_safetensors

    tokenizer = args.tokenizer or (moonshine_hf.tokenizer_of(args.path) if pathlib.Path(args.path).is_dir() else None)
    if args.form == "hf":
        config = moonshine_hf.read_sizes(args.path)
        params = moonshine_hf.from_hf_tensors(read_safetensors(args.path), config, args.path)
    else:
        config, params = moonshine_keras.read_folder(args.path)
    return moonshine_hf.write_folder(args.out, params, config, tokenizer, force=args.force)


def _export(args: argparse.Namespace) -> Any:
    from jaxspeech.checkpoint.restore import load_for_use
    from jaxspeech.interop import moonshine_hf, moonshine_keras
    from jaxspeech.models.moonshine import MoonshineConfig

    task, params, config = load_for_use(args.path)
    sizes = getattr(task, "config", None)
    if not isinstance(sizes, MoonshineConfig):
        raise UserError(
            f"{args.path} holds a {type(task).__name__}; export --to {args.form} is there for Moonshine only"
        )
    if args.form == "keras":
        return moonshine_keras.write_folder(args.out, params, sizes, force=args.force)
    # The published 194 is 30 s at 6.5 tokens a second, less one.
    longest = max(1, round(config.data.max_seconds * config.model.tokens_per_second) - 1)
    return moonshine_hf.write_folder(
        args.out, params, sizes, config.data.tokenizer, max_length=longest, force=args.force
    )
