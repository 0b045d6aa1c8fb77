"""Writes a synthetic corpus: wav files and manifests, by several processes, and goes on after a crash.

Utterances are spoken in blocks that each begin with the synthesiser in its first state: any number of processes writes
the same samples, and a block that a crash left undone is made again alone.
"""

import dataclasses
import json
import multiprocessing
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import soundfile

from jaxspeech.corpora import espeak
from jaxspeech.corpora.pool import live_with_the_parent
from jaxspeech.corpora.spoken_numbers import SAMPLE_RATE, SPLITS, Recipe, Utterance, plan, speak
from jaxspeech.data.manifest import write_manifest
from jaxspeech.errors import UserError

_BLOCK = 32  # utterances that are spoken, kept and made again together


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `synthesize` made. `made` + `kept` (found from an earlier start) is every utterance of the recipe."""

    manifests: dict[str, str]
    utterances: dict[str, int]
    hours: dict[str, float]
    voices: dict[str, list[str]]
    made: int
    kept: int


def synthesize(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    processes: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Writes a corpus: 16-bit wav files of 16 kHz, `train.jsonl` and `dev.jsonl`. Goes on where an earlier start ended.

    Args:
        recipe: what to make.
        out: the folder; made if it does not exist.
        processes: how many speak at a time; 0: one a core, at most 8.
        progress: told how many utterances are done, and of how many.

    Raises:
        UserError: a recipe that cannot be followed, a folder that holds another corpus or cannot be written.
    """
    utterances = plan(recipe)
    folder = pathlib.Path(out).absolute()
    espeak.voices()  # says what is missing before anything is written
    _claim(folder, recipe)
    blocks = [
        _Block(folder, split, first // _BLOCK, tuple(utterances[split][first : first + _BLOCK]))
        for split in SPLITS
        for first in range(0, recipe.train if split == "train" else recipe.dev, _BLOCK)
    ]
    todo = [block for block in blocks if not block.complete()]
    total = sum(len(block.utterances) for block in blocks)
    kept = done = total - sum(len(block.utterances) for block in todo)
    progress(done, total)
    processes = min(processes or min(os.cpu_count() or 1, 8), len(todo))
    for count in _run(todo, processes):
        done += count
        progress(done, total)

    rows = {split: [row for block in blocks if block.split == split for row in block.rows()] for split in SPLITS}
    manifests = {split: folder / f"{split}.jsonl" for split in SPLITS}
    for split in SPLITS:
        write_manifest(manifests[split], rows[split])
    return Summary(
        manifests={split: str(path) for split, path in manifests.items()},
        utterances={split: len(rows[split]) for split in SPLITS},
        hours={split: sum(row["duration"] for row in rows[split]) / 3600 for split in SPLITS},
        voices={split: sorted({row["speaker"] for row in rows[split]}) for split in SPLITS},
        made=total - kept,
        kept=kept,
    )


@dataclasses.dataclass(frozen=True)
class _Block:
    """Utterances that are made together: a folder of wav files, whose manifest lines are written when all are there."""

    root: pathlib.Path
    split: str
    number: int
    utterances: tuple[Utterance, ...]

    @property
    def folder(self) -> pathlib.Path:
        return self.root / self.split / f"{self.number:05d}"

    @property
    def _lines(self) -> pathlib.Path:
        return self.folder / "lines.jsonl"

    def complete(self) -> bool:
        return self._lines.is_file() and all((self.folder / f"{u.id}.wav").is_file() for u in self.utterances)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The manifest lines, with paths from the root."""
        with open(self._lines, encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                yield row | {"audio": f"{self.split}/{self.folder.name}/{row['audio']}"}

    def make(self) -> int:
        """Speaks and writes all of it; returns how many utterances."""
        shutil.rmtree(self.folder, ignore_errors=True)
        espeak.restart(self.utterances[0].seed)
        rows = []
        try:
            self.folder.mkdir(parents=True)
            for utterance in self.utterances:
                audio = speak(utterance)
                name = f"{utterance.id}.wav"
                soundfile.write(self.folder / name, audio, SAMPLE_RATE, subtype="PCM_16")
                rows.append(_row(utterance, name, len(audio)))
            write_manifest(self._lines, rows)
        except (OSError, soundfile.LibsndfileError) as error:
            raise UserError(f"{self.folder} cannot be written: {error}; is there space and permission?") from error
        return len(rows)


def _row(utterance: Utterance, name: str, samples: int) -> dict[str, Any]:
    return {
        "id": utterance.id,
        "audio": name,
        "text": utterance.text,
        "duration": samples / SAMPLE_RATE,
        "speaker": utterance.voice,
        "language": "en",
        "rate": utterance.rate,
        "pitch": utterance.pitch,
        "snr_db": round(utterance.snr_db, 1),
    }


def _run(blocks: Sequence[_Block], processes: int) -> Iterator[int]:
    """Makes the blocks; yields how many utterances each that is finished holds."""
    if processes <= 1:
        yield from map(_Block.make, blocks)
        return
    # Spawned, not forked: the caller may hold threads of jax or of a progress bar.
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=live_with_the_parent,
    )
    try:
        for finished in as_completed([pool.submit(block.make) for block in blocks]):
            yield finished.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process that spoke was killed (out of memory?); run it again: what is done is kept"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _claim(folder: pathlib.Path, recipe: Recipe) -> None:
    """Marks a folder as that of a recipe; refuses one that is of another."""
    path = folder / "recipe.json"
    wanted = json.loads(json.dumps(dataclasses.asdict(recipe)))
    try:
        if path.is_file():
            found = json.loads(path.read_text("utf-8"))
            other = [f"{key} {found.get(key)}" for key in wanted if found.get(key) != wanted[key]]
            if other:
                raise UserError(f"{folder} holds another corpus ({', '.join(other)}); give another folder or remove it")
            return
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(wanted, indent=1), "utf-8")
        os.replace(temporary, path)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} cannot be used for a corpus: {error}; give another folder") from error
