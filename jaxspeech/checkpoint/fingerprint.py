"""What a run must not change between restarts: its data, its tokenizer and what of the config shapes the batches."""

from typing import Any

from ml_collections import ConfigDict

from jaxspeech.config import flatten
from jaxspeech.data.manifest import Collection
from jaxspeech.errors import UserError

# A run is a function of (config, manifest, seed): these keys decide which utterances a step sees, and how they sound.
_KEYS = [
    "task",
    "seed",
    "data.batching",
    "data.shapes",
    "data.batch_seconds",
    "data.batch_rows",
    "data.row_multiple",
    "data.row_seconds",
    "data.row_segments",
    "data.min_seconds",
    "data.max_seconds",
    "data.max_tokens",
    "data.audio_dtype",
]
_ONCE = {"data.audio_dtype": "float32"}  # what runs did before there was the key


def fingerprint(config: ConfigDict, manifests: Collection, tokenizer: str) -> dict[str, Any]:
    """A flat dict of what decides the batches, of the run's training manifests and its tokenizer's fingerprint."""
    values = dict(flatten(config))
    chosen = {key: values[key] for key in _KEYS}
    chosen |= _augmentation(config.data.augment)
    # Record numbers run through the manifests in their order.
    chosen["order of manifests"] = [name for name, *_ in manifests.parts]
    return chosen | _contents(manifests) | {"tokenizer": tokenizer}


def _augmentation(section: ConfigDict) -> dict[str, Any]:
    """What is done to the audio, and the manifests that it draws from. A part that is off leaves no trace."""
    chosen: dict[str, Any] = {}
    for name, value in section.items():
        key = f"data.augment.{name}"
        if not isinstance(value, ConfigDict):
            if value or name not in ("delay", "ramp"):
                chosen[key] = value
        elif value.probability:
            for part, setting in value.items():
                if part != "manifest":
                    chosen[f"{key}.{part}"] = list(setting) if isinstance(setting, tuple) else setting
                elif setting:
                    chosen |= _contents(Collection.open(setting, f"config.{key}.manifest"), f"{name}: ")
    return chosen


def _contents(manifests: Collection, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {f"manifest {prefix}{name}": part.fingerprint for name, part, _ in manifests.parts}
    return found | {f"weight of {prefix}{name}": weight for name, _, weight in manifests.parts}


def refuse_changes(before: dict[str, Any], now: dict[str, Any], workdir: str) -> None:
    """Raises `UserError` that names every difference and the ways out."""
    before, now = _ONCE | before, _ONCE | now
    changes = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if old == new or (key == "order of manifests" and sorted(old or []) != sorted(new or [])):
            continue  # manifests that came or went are named on their own
        if key.startswith("weight of ") and (old is None or new is None):
            continue
        if key == "tokenizer" or key.startswith("manifest "):
            what = "was not there" if old is None else "is not there any more" if new is None else "has other content"
            changes.append(f"{key} {what}")
        else:
            changes.append(f"{key} was {old!r}, is {new!r}")
    if changes:
        raise UserError(
            f"the run in {workdir} would silently train something else: {'; '.join(changes)}. Undo the change, use "
            "another --workdir (with --config.init_from to start from these weights), or go on all the same with "
            "--config.checkpoint.accept_changes=true"
        )
