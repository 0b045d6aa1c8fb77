"""`jaxspeech bench prepare`: manifests of many files against a bare loop of header reads, and loading large ones."""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from jaxspeech.corpora.jsonl import JsonLines
from jaxspeech.corpora.pool import default_processes
from jaxspeech.corpora.preparation import prepare

SECONDS = 0.1

_LOAD = """
import json, resource, sys, time
from jaxspeech.data.manifest import Manifest
start = time.perf_counter()
manifest = Manifest.open(sys.argv[1])
seconds = time.perf_counter() - start
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, len(manifest)]))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=100_000, help=f"of {SECONDS:g} s each, 16-bit wav (100000)")
    parser.add_argument("--rounds", type=int, default=3, help="counted runs of each (3)")
    parser.add_argument("--processes", type=int, default=default_processes(), help="up to which scaling is measured")
    parser.add_argument("--records", type=int, default=1_000_000, help="of the manifest that is loaded (1000000)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return _headers(args, pathlib.Path(folder)) | _load(args.records, pathlib.Path(folder))


def _headers(args: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    """Files a second of ours, by processes, and of a bare loop over the same files, in turn."""
    listed = _files(folder, args.files)
    paths = [str(folder / "audio" / f"{i % 1000:03d}" / f"{i}.wav") for i in range(args.files)]

    def bare() -> None:
        for path in paths:
            soundfile.info(path)

    def ours(processes: int) -> Callable[[], None]:
        def work() -> None:
            found = prepare(JsonLines([str(listed)]), folder / "out", processes=processes)
            assert found["kept"] == args.files, found

        return work

    counts = [1]
    while counts[-1] * 2 <= args.processes:
        counts.append(counts[-1] * 2)
    works = [bare, *(ours(count) for count in counts)]
    for work in works:  # the first run fills the page cache
        work()
    measured = np.array([[_seconds(work) for work in works] for _ in range(args.rounds)])
    times, processor = measured[..., 0], measured[..., 1]
    ratios = np.median(times[:, :1] / times[:, 1:], axis=0)
    processor_ratio = float(np.median(processor[:, 0] / processor[:, 1]))
    speeds = args.files / np.median(times, axis=0)
    print(f"headers: a bare loop of soundfile.info reads {speeds[0]:,.0f} files/s")
    for count, speed, ratio in zip(counts, speeds[1:], ratios):
        print(f"headers: {count:2d} processes make a manifest of {speed:,.0f} files/s, ratio {ratio:.2f}")
    print(f"headers: of the processor's time on one core, ratio {processor_ratio:.2f}, whoever else uses the machine")
    return {
        "processor_ratio": processor_ratio,
        "bare_files_per_second": float(speeds[0]),
        "files_per_second": {str(count): float(speed) for count, speed in zip(counts, speeds[1:])},
        "ratio": {str(count): float(ratio) for count, ratio in zip(counts, ratios)},
    }


def _load(records: int, folder: pathlib.Path) -> dict[str, Any]:
    """Seconds and memory of a process that opens a manifest for the first time: every line is validated."""
    path = folder / "large.jsonl"
    with open(path, "w") as file:
        for i in range(records):
            row = {
                "id": f"1001-{i:07d}",
                "audio": f"train/1001/{i:07d}.flac",
                "text": "and so it went on from day to day until the evening came at last",
                "duration": 4.0 + i % 1000 / 100,
                "speaker": str(i % 2000),
            }
            file.write(json.dumps(row) + "\n")
    done = subprocess.run([sys.executable, "-c", _LOAD, str(path)], capture_output=True, text=True, check=True)
    seconds, gigabytes, count = json.loads(done.stdout)
    assert count == records
    print(f"loading: {records:,} records in {seconds:.2f} s, {gigabytes:.2f} GB")
    return {"records": records, "load_seconds": seconds, "load_gigabytes": gigabytes}


def _files(folder: pathlib.Path, count: int) -> pathlib.Path:
    rng = np.random.default_rng(0)
    listed = folder / "train.jsonl"
    with open(listed, "w") as file:
        for i in tqdm(range(count), "writing files", disable=None, leave=False):
            name = f"audio/{i % 1000:03d}/{i}.wav"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            sound = rng.integers(-3000, 3000, int(SECONDS * 16000), np.int16)
            soundfile.write(folder / name, sound, 16000)
            row = {"audio": name, "text": "yes"}
            file.write(json.dumps(row) + "\n")
    return listed


def _seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds on the clock, and of the processor in this process."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy
