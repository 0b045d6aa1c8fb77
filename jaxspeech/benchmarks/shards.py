"""`jaxspeech bench shards`: packing files into shards, against bare decoding and encoding of the same files."""

import argparse
import contextlib
import io
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile

from jaxspeech.benchmarks.loader import SECONDS, files
from jaxspeech.corpora.encoding import Encoding
from jaxspeech.corpora.shards import pack

CASES = (("flac", "pcm16"), ("wav", "flac"))  # what there is, what it becomes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=200, help=f"of {SECONDS:g} s each")
    parser.add_argument("--rounds", type=int, default=5, help="counted runs of each")


def run(args: argparse.Namespace) -> dict[str, Any]:
    results = {}
    for suffix, kind in CASES:
        with tempfile.TemporaryDirectory() as folder:
            manifest = files(pathlib.Path(folder), suffix, args.files)
            results[f"{suffix}_to_{kind}"] = _compare(manifest, suffix, kind, args.files, args.rounds)
    return results


def _compare(manifest: pathlib.Path, suffix: str, kind: Any, count: int, rounds: int) -> dict[str, float]:
    fresh = (manifest.parent / f"shards-{n}" for n in itertools.count())

    def ours() -> None:
        result = pack(manifest, next(fresh), Encoding(kind), processes=1)
        assert result["kept"] == count, result

    def bare() -> None:
        """Decodes each file, encodes it in memory, and writes all that to one file."""
        with open(manifest.parent / "bare", "wb") as out, contextlib.closing(io.BytesIO()) as buffer:
            for i in range(count):
                samples, rate = soundfile.read(manifest.parent / f"{i}.{suffix}", dtype="int16")
                buffer.seek(0), buffer.truncate()
                form, coding = ("WAV", "PCM_16") if kind == "pcm16" else ("FLAC", "PCM_16")
                soundfile.write(buffer, samples, rate, coding, format=form)
                out.write(buffer.getvalue())

    times = np.array([(_cpu_seconds(ours), _cpu_seconds(bare)) for _ in range(rounds + 1)][1:])
    mine, other = SECONDS * count / np.median(times, axis=0)
    ratio = float(np.median(times[:, 1] / times[:, 0]))
    print(f"{suffix} to {kind}: {mine:,.0f}x real time a core, bare {other:,.0f}x, ratio {ratio:.2f}")
    return {"realtime_per_core": float(mine), "bare_realtime_per_core": float(other), "ratio": ratio}


def _cpu_seconds(work: Callable[[], None]) -> float:
    """CPU time of all threads: what a core could do, whoever else uses it."""
    start = time.process_time()
    work()
    return time.process_time() - start
