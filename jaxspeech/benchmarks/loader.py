"""`jaxspeech bench loader`: files to device-ready batches, against a bare decode loop, per core."""

import argparse
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from jaxspeech import config as configs
from jaxspeech.data import audio, pipeline
from jaxspeech.data.manifest import Collection, write_manifest
from jaxspeech.data.plan import Schedule, shapes_for
from jaxspeech.task import task_class

SECONDS = 12.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=200, help=f"of {SECONDS:g} s each")
    parser.add_argument("--rounds", type=int, default=5, help="counted runs of each")


def run(args: argparse.Namespace) -> dict[str, Any]:
    results = {}
    for name, suffix in (("flac", "flac"), ("pcm16", "wav")):
        with tempfile.TemporaryDirectory() as folder:
            manifest = _files(pathlib.Path(folder), suffix, args.files)
            results[name] = _compare(name, manifest, args.rounds)
    return results


def _files(folder: pathlib.Path, suffix: str, count: int) -> pathlib.Path:
    """Something like speech: noise that swells and fades, so that FLAC has what it has with speech."""
    rng = np.random.default_rng(0)
    n = int(SECONDS * 16000)
    knots = np.arange(0, n + 4000, 4000)
    swell = np.interp(np.arange(n), knots, rng.random(len(knots)))
    rows = []
    for i in tqdm(range(count), f"writing {suffix}", disable=None, leave=False):
        sound = np.convolve(rng.standard_normal(n), np.ones(8) / 8, "same") * swell * 0.3
        audio.write(folder / f"{i}.{suffix}", sound.astype(np.float32), 16000)
        rows.append({"id": str(i), "audio": f"{i}.{suffix}", "text": "a b c d e", "duration": n / 16000})
    write_manifest(folder / "m.jsonl", rows)
    return folder / "m.jsonl"


def _compare(name: str, manifest: pathlib.Path, rounds: int) -> dict[str, float]:
    config = configs.base("jaxspeech.tasks.moonshine.Moonshine")
    config.data.tokenizer = "characters:abcde "
    config.data.batch_seconds, config.data.shapes = 16 * SECONDS, 1
    task = task_class(config.task).from_config(config)
    collection = Collection.open(str(manifest))
    lengths, everyone = task.measure(collection), np.arange(len(collection))
    schedule = Schedule(shapes_for(config.data, lengths, everyone), lengths, everyone)
    files = [collection[i].segments[0].audio for i in range(len(collection))]
    seconds = SECONDS * len(files)

    def bare() -> None:
        for path in files:
            soundfile.read(path, dtype="float32")

    def ours() -> None:
        with pipeline.batches(collection, schedule, task, stop=len(schedule), threads=1, prefetch=2) as batches:
            for batch in batches:
                assert not batch.failures

    times = []
    for _ in range(rounds + 1):  # the first one fills the page cache
        times.append((_cpu_seconds(ours), _cpu_seconds(bare)))
    counted = np.array(times[1:])
    mine, other = seconds / np.median(counted, axis=0)
    ratio = float(np.median(counted[:, 1] / counted[:, 0]))
    print(f"{name:>6}: loader {mine:,.0f}x real time a core, bare decoding {other:,.0f}x, ratio {ratio:.2f}")
    return {"realtime_per_core": float(mine), "bare_realtime_per_core": float(other), "ratio": ratio}


def _cpu_seconds(work: Callable[[], None]) -> float:
    """CPU time of all threads: what a core could do, however many there are and whoever else uses them."""
    start = time.process_time()
    work()
    return time.process_time() - start
