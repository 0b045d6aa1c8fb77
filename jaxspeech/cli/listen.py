"""`jaxspeech prepare listen`: the augmented audio of an utterance, to listen to, and what was drawn for it."""

import argparse
import pathlib
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", metavar="MANIFEST", help="that has the utterance")
    parser.add_argument("id", metavar="ID", help="of the utterance")
    parser.add_argument("--config", required=True, help="a config file; --config.data.augment.key=value changes it")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the audio files")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="from the first on (3)")
    parser.add_argument("--step", type=int, metavar="N", help="at which schedules stand (at their end)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Writes the utterance as it is, and as it is heard in each epoch of a run whose one manifest this is."""
    from jaxspeech import config as configs
    from jaxspeech.data import audio
    from jaxspeech.data.augment import Augmentation, generator
    from jaxspeech.data.manifest import Manifest
    from jaxspeech.errors import UserError
    from jaxspeech.task import task_class

    config = configs.load(args.config, args.overrides)
    if not config.data.train:
        config.data.train = args.manifest  # babble comes from there
    rate = task_class(config.task).sample_rate
    augmentation = Augmentation.from_config(config.data, rate)
    record = _find(Manifest.open(args.manifest), args.id)
    folder = pathlib.Path(args.out)
    try:
        original = audio.read(record, rate)
        files = [_write(folder / "original.wav", original, rate, {})]
        for epoch in range(args.epochs):
            changed, drawn = augmentation.explain(original, generator(config.seed, epoch, record.id, step=args.step))
            files.append(_write(folder / f"epoch-{epoch}.wav", changed, rate, drawn))
    except audio.AudioError as error:
        raise UserError(f"{args.manifest}: {args.id}: {error}") from error
    except OSError as error:
        raise UserError(f"--out {args.out}: {error}; is there space and permission?") from error
    if not any(file["drawn"] for file in files):
        print("nothing was drawn: see the keys data.augment.* of the config")
    return {"id": record.id, "files": files}


def _find(manifest: Any, id: str) -> Any:
    """The record with an id; raises `UserError` with the nearest one."""
    import difflib

    from jaxspeech.errors import UserError

    ids = manifest.ids(range(len(manifest)))
    if id not in ids:
        near = difflib.get_close_matches(id, ids, n=1, cutoff=0.0)
        raise UserError(f"{manifest.path} has no utterance {id!r}; did you mean {near[0]!r}?")
    return manifest[ids.index(id)]


def _write(path: pathlib.Path, samples: Any, rate: int, drawn: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from jaxspeech.data import audio

    audio.write(path, samples, rate)
    peak = 20 * np.log10(max(float(np.abs(samples).max()), 1e-6))
    told = "; ".join(f"{part} {_told(value)}" for part, value in drawn.items())
    clipped = " (the file is clipped)" if peak > 0.01 else ""
    print(f"{path}: {len(samples) / rate:.2f} s, peak {peak:.1f} dB{clipped}{'; ' if told else ''}{told}")
    return {"file": str(path), "seconds": len(samples) / rate, "drawn": drawn}


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_told(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ",".join(value)
    return f"{value:.4g}" if isinstance(value, float) and not isinstance(value, bool) else str(value)
