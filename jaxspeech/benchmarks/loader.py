"""`jaxspeech bench loader`: files and shards to device-ready batches, against a bare decode loop, per core."""

import argparse
import io
import pathlib
import re
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from jaxspeech import config as configs
from jaxspeech.corpora.encoding import Encoding
from jaxspeech.corpora.shards import pack
from jaxspeech.data import audio, pipeline
from jaxspeech.data.manifest import Collection, write_manifest
from jaxspeech.data.plan import Schedule, shapes_for
from jaxspeech.task import task_class

SECONDS = 12.0
CASES = {  # → suffix of the files, data.audio_dtype
    "flac": ("flac", "float32"),
    "pcm16": ("wav", "float32"),
    "flac_shard": ("flac", "float32"),
    "pcm16_shard": ("wav", "float32"),
    "pcm16_shard_int16": ("wav", "int16"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=200, help=f"of {SECONDS:g} s each")
    parser.add_argument("--rounds", type=int, default=5, help="counted runs of each")


def run(args: argparse.Namespace) -> dict[str, Any]:
    results = {}
    for name, (suffix, dtype) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            manifest = files(pathlib.Path(folder), suffix, args.files)
            if "_shard" in name:
                encoding = Encoding("flac" if suffix == "flac" else "pcm16")
                manifest = pathlib.Path(pack(manifest, f"{folder}/shards", encoding, processes=1)["manifest"])
            results[name] = _compare(name, manifest, dtype, args.rounds)
    return results


def files(folder: pathlib.Path, suffix: str, count: int) -> pathlib.Path:
    """Something like speech: noise that swells and fades, so that FLAC has what it has with speech; its manifest."""
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


def _compare(name: str, manifest: pathlib.Path, audio_dtype: str, rounds: int) -> dict[str, float]:
    config = configs.base("jaxspeech.tasks.moonshine.Moonshine")
    config.data.tokenizer, config.data.audio_dtype = "characters:abcde ", audio_dtype
    config.data.batch_seconds, config.data.shapes = 16 * SECONDS, 1
    task = task_class(config.task).from_config(config)
    collection = Collection.open(str(manifest))
    lengths, everyone = task.measure(collection), np.arange(len(collection))
    schedule = Schedule(shapes_for(config.data, lengths, everyone), lengths, everyone)
    names = [collection[i].segments[0].audio for i in range(len(collection))]
    seconds = SECONDS * len(names)
    bare = _bare(name, names)

    def ours() -> None:
        with pipeline.batches(collection, schedule, task, stop=len(schedule), threads=1, prefetch=2) as batches:
            for batch in batches:
                assert not batch.failures

    times, memory = [], []
    for _ in range(rounds + 1):  # the first one fills the page cache
        times.append((_cpu_seconds(ours), _cpu_seconds(bare)))
        memory.append(_resident_mib())
    counted = np.array(times[1:])
    mine, other = seconds / np.median(counted, axis=0)
    ratio = float(np.median(counted[:, 1] / counted[:, 0]))
    grown = memory[-1] - memory[0]
    print(
        f"{name:>17}: loader {mine:,.0f}x real time a core, bare decoding {other:,.0f}x, ratio {ratio:.2f}; "
        f"memory {grown:+.0f} MiB over {rounds * len(schedule)} batches"
    )
    return {
        "realtime_per_core": float(mine),
        "bare_realtime_per_core": float(other),
        "ratio": ratio,
        "memory_growth_mib": grown,
        "batches": rounds * len(schedule),
    }


def _bare(name: str, names: list[str]) -> Callable[[], None]:
    """Reading and decoding alone, in random order as the loader does: from files, or from one ArrayRecord reader."""
    order = np.random.default_rng(0).permutation(len(names)).tolist()

    def decode_files() -> None:
        for i in order:
            soundfile.read(names[i], dtype="float32")

    if "_shard" not in name:
        return decode_files
    from array_record.python.array_record_module import ArrayRecordReader

    places = [(path, int(number)) for path, _, number in (each.rpartition("#") for each in names)]
    options = "readahead_buffer_size:0,max_parallelism:0"
    readers = {path: ArrayRecordReader(path, options) for path, _ in places}

    def decode_records() -> None:
        for i in order:
            path, number = places[i]
            (content,) = readers[path].read([number])
            if name.startswith("pcm16"):
                samples = np.frombuffer(content, "<i2", offset=44)
                np.multiply(samples, np.float32(1 / 32768), dtype=np.float32)
            else:
                soundfile.read(io.BytesIO(content), dtype="float32")

    return decode_records


def _cpu_seconds(work: Callable[[], None]) -> float:
    """CPU time of all threads: what a core could do, however many there are and whoever else uses them."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _resident_mib() -> float:
    """Memory that this process holds; 0 where the system does not say it in the way of Linux."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
