"""Text of audio files of any length, format, rate and channel count.

Each file is cut at pauses into pieces that the model can take (`long_audio.py`); the pieces of many files are sorted by
length into a few static shapes, decoded together, and joined again.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxspeech.data import audio, pipeline
from jaxspeech.data.buckets import rows_for
from jaxspeech.data.plan import Schedule
from jaxspeech.data.record import Record, Segment
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.evaluation import long_audio
from jaxspeech.evaluation.by_shape import ByShape
from jaxspeech.evaluation.normalize import join
from jaxspeech.parallel import sharding
from jaxspeech.task import Params, Task

_TOGETHER = 3600.0  # seconds of audio that are cut before any of it is decoded: many files, little memory
_EDGES = (1 / 6, 1 / 3, 2 / 3, 1.0)  # static shapes hold so much of the longest piece: 5, 10, 20 and 30 s


@dataclasses.dataclass
class Transcript:
    """What one file says.

    Attributes:
        audio: the path as it was given.
        text: of all pieces.
        tokens: their ids, one piece after the other.
        duration: seconds.
        error: why the file could not be read; the rest is then empty.
    """

    audio: str
    text: str = ""
    tokens: list[int] = dataclasses.field(default_factory=list)
    duration: float = 0.0
    error: str = ""


class Transcriber:
    """Decodes files with one model; shapes compile when first met and stay compiled.

    Args:
        task: the model family.
        params: the whole tree, on the mesh.
        mesh: rows of a batch are spread over its axes `data` and `fsdp`.
        beams: 1 is greedy search.
        longest: seconds that a piece may have: no more than the model was trained on.
        batch_seconds: audio decoded at once, padding included.
        language: of all files, where the task makes a difference (Moonshine's cap on tokens a second).

    Attributes:
        audio_seconds: decoded so far.
        seconds: that decoding took, by the wall clock, without compiling and loading.
    """

    def __init__(
        self,
        task: Task,
        params: Params,
        mesh: Mesh,
        *,
        beams: int = 1,
        longest: float = long_audio.LONGEST,
        batch_seconds: float = 160.0,
        language: str | None = None,
        threads: int = 4,
    ) -> None:
        self._task, self._params, self._mesh = task, params, mesh
        self._longest, self._batch_seconds = longest, batch_seconds
        self._language, self._threads = language, threads
        self._decode = ByShape(functools.partial(task.decode, beams=beams), task, mesh)
        self._most_rows = 1
        self.audio_seconds = 0.0

    @property
    def seconds(self) -> float:
        return self._decode.seconds

    def transcripts(
        self, paths: Iterable[str], progress: Callable[[float], object] | None = None
    ) -> Iterator[Transcript]:
        """The transcripts of files, in the order given; a file that cannot be read has an `error` and no text.

        Args:
            progress: told the seconds of audio that each batch decoded.
        """
        waiting: list[tuple[Transcript, list[Record]]] = []
        for path in paths:
            waiting.append(self._cut(os.fspath(path)))
            if sum(transcript.duration for transcript, _ in waiting) >= _TOGETHER:
                yield from self._together(waiting, progress)
                waiting = []
        yield from self._together(waiting, progress)

    def _cut(self, path: str) -> tuple[Transcript, list[Record]]:
        """An empty transcript of a file and the pieces to decode; digital silence is none."""
        rate = self._task.sample_rate
        whole = Segment(os.path.abspath(path))
        try:
            samples = audio.read_segment(whole, rate)
        except audio.AudioError as error:
            if os.path.isdir(path):
                return Transcript(path, error="it is a folder; give the files in it"), []
            return Transcript(path, error=error.reason), []
        records = []
        for start, stop in long_audio.pieces(samples, rate, longest=self._longest):
            if not long_audio.is_silent(samples[start:stop]):
                # What is too short for a model gets silence before it.
                gap = max(0.0, long_audio.SHORTEST - (stop - start) / rate)
                segment = dataclasses.replace(whole, offset=start / rate, duration=(stop - start) / rate, gap=gap)
                name = f"{path}:{start / rate:.2f}"
                records.append(Record(name, "", gap + (stop - start) / rate, (segment,), language=self._language))
        return Transcript(path, duration=len(samples) / rate), records

    def _together(
        self, files: list[tuple[Transcript, list[Record]]], progress: Callable[[float], object] | None
    ) -> Iterator[Transcript]:
        pieces = Pieces([record for _, records in files for record in records])
        decoded = self._decode_all(pieces, progress) if len(pieces) else {}
        first = 0
        for transcript, records in files:
            parts = [decoded[number] for number in range(first, first + len(records))]
            first += len(records)
            transcript.error = transcript.error or next((error for _, error in parts if error), "")
            if not transcript.error:
                transcript.tokens = [token for tokens, _ in parts for token in tokens]
                transcript.text = join([self._task.tokenizer.decode(tokens) for tokens, _ in parts])
            yield transcript

    def _decode_all(
        self, pieces: "Pieces", progress: Callable[[float], object] | None
    ) -> dict[int, tuple[list[int], str]]:
        """Tokens of each piece, or why it could not be read."""
        schedule = self._plan(pieces)
        batches = pipeline.batches(
            pieces,
            schedule,
            self._task,
            rows=lambda shape: sharding.host_rows(shape, self._mesh)[1],
            threads=self._threads,
        )
        decoded: dict[int, tuple[list[int], str]] = {}
        with batches:
            for batch in batches:
                arrays = sharding.to_device(batch.arrays, self._mesh)
                heard = self._decode(self._params, arrays, schedule.shapes[batch.shape])
                errors = {name: reason for name, reason, _ in batch.failures}
                for number, row in zip(batch.records.tolist(), batch.rows.tolist(), strict=True):
                    tokens = heard.tokens[row, : heard.length[row]].tolist()
                    decoded[number] = tokens, errors.get(pieces[number].id, "")
                self.audio_seconds += batch.audio_seconds
                if progress is not None:
                    progress(batch.audio_seconds)
        return decoded

    def _plan(self, pieces: "Pieces") -> Schedule:
        """Every piece once. The edges are fixed, so that few shapes compile however many files come."""
        records: Any = pieces
        lengths: Lengths = self._task.measure(records)
        rate, longest, tokens = self._task.sample_rate, int(lengths.audio.max()), int(lengths.text.max())
        # A lone file gets a small batch; the next power of two keeps the number of shapes down.
        self._most_rows = max(self._most_rows, 1 << (len(pieces) - 1).bit_length())
        multiple = math.prod(self._mesh.shape[axis] for axis in sharding.ROWS)
        shapes = []
        for share in _EDGES:
            samples = math.ceil(share * self._longest * rate)
            if share == _EDGES[-1]:
                samples = max(samples, longest)
            rows = min(rows_for(samples, self._batch_seconds * rate, multiple), self._most_rows)
            shapes.append(Shape(rows=rows, samples=samples, tokens=tokens))
            if samples >= longest:
                break
        return Schedule.once(tuple(shapes), lengths, np.arange(len(pieces)))


class Pieces:
    """Records that no manifest lists, in the form that the pipeline reads."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records
        self.durations = np.array([record.duration for record in records])

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        return self._records[index]

    def ids(self, indices: Iterable[int]) -> list[str]:
        return [self._records[index].id for index in indices]

    def texts(self) -> Iterator[str]:
        return (record.text for record in self._records)
