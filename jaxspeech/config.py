"""Configs: the sections that every run has, how a file and `--config.a.b=value` become one, and what is refused.

A config file is a Python file with `get_config()`. It starts from `base("dotted.path.of.Task")` and sets what differs;
`base` locks the tree, so that a misspelt key fails where it is written.
"""

import difflib
import json
import math
import os
import pathlib
import runpy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jaxspeech.errors import UserError
from jaxspeech.task import task_class


def base(task: str) -> ConfigDict:
    """Every section with its defaults, for the family at the dotted path `task`."""
    config = ConfigDict(convert_dict=False)
    config.task = task
    config.seed = 0
    config.init_from = ""  # a workdir, DIR@step or a folder of published weights to start from

    config.model = task_class(task).defaults()

    config.data = ConfigDict(convert_dict=False)
    config.data.train = placeholder(object)  # a manifest, or a mapping of name or weight (times an epoch) to manifests
    config.data.eval = placeholder(object)  # a manifest, or a mapping of name to manifests
    config.data.tokenizer = ""  # tokenizer.json, *.model (sentencepiece), "characters:abc… " or "words:yes no"
    config.data.batching = "buckets"  # or "packed"
    config.data.shapes = 8  # static shapes at most (buckets)
    config.data.batch_seconds = 0.0  # audio of a global batch, padding included; 0: use batch_rows
    config.data.batch_rows = 0  # rows of a global batch; 0: use batch_seconds
    config.data.row_multiple = 8  # rows of every shape are a multiple of this, so that they divide over devices
    config.data.row_seconds = 64.0  # length of a packed row
    config.data.row_segments = 16  # utterances a packed row holds at most
    config.data.min_seconds = 0.1  # shorter utterances are filtered, and counted in the ledger
    config.data.max_seconds = 30.0  # longer ones likewise
    config.data.max_tokens = 0  # utterances with more tokens are filtered; 0: no cap
    config.data.audio_dtype = "float32"  # of samples in batches; int16: half the bytes; rounds what is not of 16 bits
    config.data.max_failed = 0.01  # share of utterances that may fail to load before the run stops
    config.data.workers = 0  # processes that load audio; 0: threads of this process
    config.data.threads = 4  # threads that load audio (in each worker)
    config.data.prefetch = 8  # batches loaded ahead
    config.data.augment = ConfigDict()
    config.data.augment.speed = 0.0  # speed and pitch change by up to this share (0.1: 0.9 to 1.1 times)
    config.data.augment.gain_db = 0.0  # level changes by up to this many dB
    config.data.augment.noise_db = 0.0  # white noise at this SNR or better; 0: none
    config.data.augment.time_mask = 0.0  # share of the audio silenced, in up to three stretches
    config.data.augment.delay = 0  # steps before which these four are off
    config.data.augment.ramp = 0  # steps after that over which they grow to what is set
    config.data.augment.room = _part()  # speech convolved with an impulse response
    config.data.augment.room.manifest = placeholder(object)  # of impulse responses; a mapping as in data.train
    for name, best in (("babble", (15.0, 30.0)), ("background", (0.0, 30.0))):
        part = config.data.augment[name] = _part()
        part.manifest = placeholder(object)  # of noises; babble: of utterances, those of data.train if empty
        part.snr_db = best  # drawn from this range
        part.initial_snr_db = (30.0, 60.0)  # until `delay`; over `ramp` steps the range moves to snr_db
    config.data.augment.babble.talkers = 3  # other people at once, at most
    config.data.augment.clipping = _part()
    config.data.augment.clipping.share = 0.1  # of the samples, at most
    config.data.augment.narrowband = _part()  # 8 kHz and back
    config.data.augment.codec = _part()
    config.data.augment.codec.kinds = "mp3 opus mulaw gsm"  # one of them is drawn

    config.optim = ConfigDict()
    config.optim.name = "schedule_free_adamw"  # or "adamw"
    config.optim.schedule = "constant"  # after warm-up: constant, cosine, linear, one_cycle
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 0
    config.optim.final_rate = 0.0  # share of learning_rate that cosine and linear end at
    config.optim.b1 = 0.9
    config.optim.b2 = 0.999
    config.optim.average_power = 0.0  # schedule-free: update t weighs t^this in the average
    config.optim.eps = 1e-8
    config.optim.weight_decay = 0.0  # on kernels and embeddings only
    config.optim.clip_norm = 1.0  # global gradient norm; 0: no clipping

    config.train = ConfigDict()
    config.train.steps = 1000
    config.train.accumulate = 0  # micro-batches a step; 0: as few as fit the device
    config.train.memory_gib = 0.0  # memory a device may use; 0: ask the device
    config.train.max_skipped = 10  # non-finite gradients in a row that stop the run
    config.train.matmul_precision = "default"  # jax_default_matmul_precision: default, high, highest

    config.eval = ConfigDict()
    config.eval.every = 0  # steps; 0: only at the end
    config.eval.decode = True  # WER and CER, not the loss alone
    config.eval.beams = 1
    config.eval.batch_seconds = 160.0  # audio of an evaluation batch
    config.eval.samples = 3  # transcripts shown in the log
    config.eval.normalizer = "english"  # or "basic": language-neutral; "none"

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 1000
    config.checkpoint.keep = 3  # newest ones
    config.checkpoint.keep_every = 0  # and every so many steps for good
    config.checkpoint.keep_best = 1  # and the best by WER
    config.checkpoint.accept_changes = False  # go on although data or tokenizer are not those that the run began with

    config.mesh = ConfigDict()
    config.mesh.data = -1  # -1: all devices that the other axes leave
    config.mesh.fsdp = 1
    config.mesh.tensor = 1

    config.log = ConfigDict()
    config.log.every = 10
    config.log.tensorboard = True
    config.log.wandb = ""  # a W&B project
    return config.lock()


def _part() -> ConfigDict:
    """A part of the augmentation that meets some utterances and not others."""
    part = ConfigDict(convert_dict=False)
    part.probability = 0.0  # share of the utterances; 0: off
    part.delay = 0  # steps before which it is off (noise: at its mildest)
    part.ramp = 0  # steps after that over which its probability (noise: its SNR) comes to what is set
    return part


def load(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Reads a config file and applies words such as `--config.optim.learning_rate=1e-3`.

    Raises:
        UserError: no such file, a key that does not exist (with the nearest right one), a value of another type.
    """
    if not os.path.isfile(path):
        raise UserError(f"no config file {path!r}; the project's own are in configs/")
    try:
        config = runpy.run_path(path)["get_config"]()
    except KeyError as error:
        if error.args == ("get_config",):
            raise UserError(f"{path} has no get_config(); see configs/digits.py for the form") from None
        raise UserError(f"{path}: {_first_line(error)}") from error
    except (AttributeError, TypeError, SyntaxError) as error:  # ml_collections names the key and the nearest one
        raise UserError(f"{path}: {_first_line(error)}") from error
    except UserError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        line = f":{lines[-1]}" if lines else ""
        raise UserError(f"{path}{line}: {type(error).__name__}: {_first_line(error)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() returns {config!r}, not the config; does it end with `return config`?")
    for word in overrides:
        name, equals, value = word.removeprefix("--config.").partition("=")
        if not word.startswith("--config.") or not equals:
            raise UserError(f"{word!r} is no override; the form is --config.section.key=value")
        override(config, name, value)
    return config


def override(config: ConfigDict, name: str, text: str) -> None:
    """Sets `section.key` from the text of a command line, converted to the type the key has."""
    section, _, key = name.rpartition(".")
    keys = dict(flatten(config))
    if name not in keys:
        usual = _ELSEWHERE.get(key, "")
        near = [known for known in keys if usual and known.endswith(f".{usual}")][:1]
        near = near or difflib.get_close_matches(name, keys, n=1, cutoff=0.5)
        hint = f"did you mean --config.{near[0]}?" if near else f"the sections are: {', '.join(sorted(config.keys()))}"
        raise UserError(f"no config key {name!r}; {hint}")
    target = config
    for part in section.split(".") if section else []:
        target = target[part]
    old = keys[name]
    if isinstance(old, str) and text.lstrip()[:1] in ("{", "["):  # a file may have set what else takes JSON too
        old = dict(flatten(base(config.task))).get(name, old)
    value = _convert(name, text, old)
    try:
        with target.unlocked():
            target[key] = value
    except TypeError:
        kind = "a mapping" if isinstance(keys[name], Mapping) else "a list such as [1, 2]"
        raise UserError(f"--config.{name}={text}: {kind} is needed (it is {keys[name]!r} now)") from None


def _convert(name: str, text: str, old: Any) -> Any:
    try:
        if isinstance(old, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if isinstance(old, int):
            return int(text)
        if isinstance(old, float):
            value = float(text)
            if not math.isfinite(value):
                raise ValueError(text)
            return value
        if isinstance(old, str):
            return text
        return json.loads(text) if text.lstrip()[:1] in ("{", "[") else text
    except (ValueError, KeyError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(type(old), "JSON")
        raise UserError(f"--config.{name}={text}: {kind} is needed (it is {old!r} now)") from None


def flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All keys as (dotted name, value), in order."""
    for key in config:
        value = config[key]
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def dump(config: ConfigDict) -> str:
    """One line a key, sorted: what the golden files hold, so that a diff shows any change of meaning."""
    return "".join(f"{name} = {value!r}\n" for name, value in sorted(flatten(config)))


def to_json(config: ConfigDict) -> str:
    """The config as indented JSON, as `config.json` of a workdir holds it."""
    return json.dumps(config.to_dict(), indent=1, ensure_ascii=False)


def from_json(text: str) -> ConfigDict:
    """A config back from `to_json`; keys that came with later versions take their defaults."""
    stored = json.loads(text)
    config = base(stored["task"])
    with config.unlocked():
        for name, value in _leaves(stored, dict(flatten(config))):
            *sections, key = name.split(".")
            target = config
            for section in sections:
                if section not in target:
                    raise UserError(f"config.json has the section {section!r}, which this version does not know")
                target = target[section]
            if key in target:
                target[key] = tuple(value) if isinstance(target[key], tuple) else value
    return config


def _leaves(tree: dict[str, Any], known: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = prefix + key
        if isinstance(value, dict) and name not in known:
            yield from _leaves(value, known, f"{name}.")
        else:
            yield name, value


_ELSEWHERE = {  # names that other trainers give to our keys
    "lr": "learning_rate",
    "batch_size": "batch_rows",
    "epochs": "steps",
    "max_epochs": "steps",
    "max_steps": "steps",
    "warmup": "warmup_steps",
    "accumulate_grad_batches": "accumulate",
    "gradient_accumulation_steps": "accumulate",
}
_CHOICES = {
    "data.batching": ("buckets", "packed"),
    "data.audio_dtype": ("float32", "int16"),
    "optim.name": ("schedule_free_adamw", "adamw"),
    "optim.schedule": ("constant", "cosine", "linear", "one_cycle"),
    "eval.normalizer": ("english", "basic", "none"),
    "train.matmul_precision": ("default", "high", "highest"),
}
_POSITIVE = [
    "data.shapes",
    "data.row_multiple",
    "data.row_segments",
    "data.threads",
    "data.prefetch",
    "optim.learning_rate",
    "optim.eps",
    "train.max_skipped",
    "eval.beams",
    "eval.batch_seconds",
    "checkpoint.every",
    "checkpoint.keep",
    "log.every",
]


def validate(config: ConfigDict, *, training: bool = True) -> None:
    """Refuses values that cannot work and files that are not there, before anything is loaded.

    Raises:
        UserError: naming the key, its value and what it may be.
    """
    values = dict(flatten(config))
    for name, choices in _CHOICES.items():
        if values[name] not in choices:
            near = difflib.get_close_matches(str(values[name]), choices, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"config.{name} = {values[name]!r}: it must be one of {', '.join(choices)}{hint}")
    for name in _POSITIVE:
        if not values[name] > 0:
            raise UserError(f"config.{name} = {values[name]}: it must be greater than 0")
    for name, value in values.items():
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and value < 0
            and not name.startswith("mesh.")
        ):
            raise UserError(f"config.{name} = {value}: it must not be negative")
    if config.data.max_failed > 1:
        raise UserError(f"config.data.max_failed = {config.data.max_failed}: it is a share, from 0 to 1")
    if config.seed >= 2**63:
        raise UserError(f"config.seed = {config.seed}: it must be less than 2**63")
    if config.data.min_seconds >= config.data.max_seconds:
        raise UserError(
            f"config.data.min_seconds = {config.data.min_seconds} leaves nothing below "
            f"config.data.max_seconds = {config.data.max_seconds}"
        )
    if config.data.batch_rows and config.data.batch_seconds:
        raise UserError("config.data.batch_rows and config.data.batch_seconds are both set; set one of them to 0")
    if config.data.batching == "packed" and config.data.row_seconds < config.data.max_seconds:
        raise UserError(
            f"config.data.row_seconds = {config.data.row_seconds} is shorter than config.data.max_seconds = "
            f"{config.data.max_seconds}: the longest utterance would fit no row"
        )
    if training and not config.data.train:
        raise UserError("config.data.train is empty; give a manifest: --config.data.train=train.jsonl")
    for key in ("train", "eval"):
        for path in manifest_paths(config.data[key]):
            if not os.path.isfile(path):
                raise UserError(f"config.data.{key}: no manifest {path!r} (seen from {os.getcwd()})")
    _validate_augmentation(config.data.augment, training)
    tokenizer = config.data.tokenizer
    if not tokenizer:
        raise UserError(
            "config.data.tokenizer is empty; give a tokenizer.json, a *.model, 'characters:abc… ' or 'words:yes no'"
        )
    if not tokenizer.startswith(("characters:", "words:")) and not os.path.isfile(tokenizer):
        raise UserError(f"config.data.tokenizer: no file {tokenizer!r} (seen from {os.getcwd()})")
    if config.init_from and not os.path.exists(config.init_from.partition("@")[0]):
        raise UserError(f"config.init_from: no folder {config.init_from!r} (seen from {os.getcwd()})")


def _validate_augmentation(section: ConfigDict, training: bool) -> None:
    for name, part in section.items():
        if not isinstance(part, ConfigDict):
            continue
        key = f"config.data.augment.{name}"
        for share in ("probability", "share"):
            if part.get(share, 0) > 1:
                raise UserError(f"{key}.{share} = {part[share]}: it must be from 0 to 1")
        for pair in ("snr_db", "initial_snr_db"):
            numbers = all(isinstance(bound, int | float) for bound in part.get(pair, ()))
            if pair in part and not (numbers and len(part[pair]) == 2 and part[pair][0] <= part[pair][1]):
                raise UserError(f"{key}.{pair} = {part[pair]}: it must be two numbers of dB, the lower one first")
        if training and part.probability and "manifest" in part:
            if not part.manifest and name != "babble":
                raise UserError(f"{key}.probability = {part.probability}, but {key}.manifest is empty; give a manifest")
            for path in manifest_paths(part.manifest):
                if "://" not in path and not os.path.isfile(path):
                    raise UserError(f"{key}.manifest: no manifest {path!r} (seen from {os.getcwd()})")
    if section.babble.talkers < 1:
        raise UserError("config.data.augment.babble.talkers = 0: it must be greater than 0")


def manifest_paths(spec: Any) -> list[str]:
    """All manifest paths that `data.train` or `data.eval` names."""
    if not spec:
        return []
    if isinstance(spec, str | pathlib.Path):
        return [str(spec)]
    if isinstance(spec, list | tuple):
        return [path for part in spec for path in manifest_paths(part)]
    if isinstance(spec, dict):
        return [path for part in spec.values() for path in manifest_paths(part)]
    raise UserError(f"{spec!r} is neither a manifest nor a mapping of name or weight to manifests")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
