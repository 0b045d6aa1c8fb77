"""What the drills share: a corpus of tones that takes no time to make, and training in a process that can be killed."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np

from jaxspeech.data import audio
from jaxspeech.data.manifest import write_manifest

ROOT = pathlib.Path(__file__).parents[1]
TINY = {
    "model.dim": 32,
    "model.heads": 2,
    "model.encoder_layers": 1,
    "model.decoder_layers": 1,
    "model.rotary_dims": 8,
    "model.tokens_per_second": 10,
    "data.tokenizer": "characters:abcdef ",
    "data.batching": "buckets",
    "data.shapes": 2,
    "data.batch_seconds": 8,
    "data.row_multiple": 8,
    "data.augment.speed": 0.1,
    "optim.name": "schedule_free_adamw",
    "optim.schedule": "constant",
    "optim.learning_rate": 2e-3,
    "optim.warmup_steps": 5,
    "train.steps": 40,
    "eval.every": 20,
    "checkpoint.every": 5,
    "log.every": 1,
}
CLOCKS = {"audio_seconds_per_second", "step_seconds", "data_wait_seconds", "rtfx", "compilations", "mfu"}


def make_corpus(folder: pathlib.Path, utterances: int = 48) -> pathlib.Path:
    """Each letter is a tone of its own; returns the manifest."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(utterances):
        letters = "".join(rng.choice(list("abcdef"), size=rng.integers(2, 9)))
        t = np.arange(2400) / 16000
        tones = [np.sin(2 * np.pi * (300 + 200 * "abcdef".index(letter)) * t) for letter in letters]
        sound = 0.3 * np.concatenate(tones) + 0.01 * rng.normal(size=2400 * len(letters))
        audio.write(folder / f"{i}.wav", sound.astype(np.float32), 16000)
        rows.append({"id": f"u{i}", "audio": f"{i}.wav", "text": letters, "duration": len(sound) / 16000})
    write_manifest(folder / "train.jsonl", rows)
    return folder / "train.jsonl"


class Training:
    """`python -m jaxspeech.main` on a workdir, to be killed, stopped or waited for."""

    def __init__(
        self,
        workdir: pathlib.Path,
        manifest: pathlib.Path,
        cache: pathlib.Path,
        *,
        devices: int = 1,
        config: dict | None = None,
        environment: dict | None = None,
    ) -> None:
        self.workdir = workdir
        settings = TINY | {"data.train": manifest, "data.eval": manifest} | (config or {})
        words = [f"--config.{key}={value}" for key, value in settings.items()]
        env = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(cache),  # the drills start dozens of times
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **(environment or {}),
        }
        command = [sys.executable, "-m", "jaxspeech.main", f"--config={ROOT / 'configs' / 'digits.py'}"]
        self.log = workdir.with_name(f"{workdir.name}.log")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*command, f"--workdir={workdir}", *words], env=env, cwd=ROOT, stdout=log, stderr=log
            )

    def wait(self, timeout: float = 300) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def finish(self, timeout: float = 300) -> None:
        code = self.wait(timeout)
        assert code == 0, f"exit code {code}: {self.output()[-3000:]}"

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def steps(self) -> int:
        """Training steps that metrics.jsonl tells of by now."""
        return max((line["step"] for line in metrics(self.workdir) if line["split"] == "train"), default=0)

    def wait_for_step(self, step: int, timeout: float = 300) -> None:
        deadline = time.monotonic() + timeout
        while self.process.poll() is None and self.steps() < step:
            assert time.monotonic() < deadline, self.output()[-3000:]
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()


def metrics(workdir: pathlib.Path) -> list[dict]:
    """The lines of metrics.jsonl that are whole, without clocks."""
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in lines]
