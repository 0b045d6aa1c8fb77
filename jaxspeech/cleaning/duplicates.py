"""Which utterances are the same: by the samples that are heard, or by text and duration."""

import hashlib

import numpy as np

from jaxspeech.data import audio
from jaxspeech.data.record import Record

TOLERANCE = 0.02  # seconds: what durations of the same audio differ by, through rounding or another coding
CHARACTERS = 20  # shorter texts ("yes") are said twice by chance in the same time


def key(text: str) -> int:
    """64 bits of a text, never 0."""
    return _signed(hashlib.blake2b(text.encode(), digest_size=8).digest())


def text_key(text: str) -> int:
    """64 bits of a text that is already normalised; 0 for one that is too short to tell anything."""
    return key(text) if len(text) >= CHARACTERS else 0


def audio_key(record: Record) -> int:
    """64 bits of the samples of an utterance, as 16-bit mono at the rate of the file.

    The same audio as WAV, as FLAC, under another name or as a stretch of a longer file has the same key; after MP3 or
    another sampling rate it has not. Gaps do not count. Raises `AudioError`.
    """
    digest = hashlib.blake2b(digest_size=8)
    for segment in record.segments:
        for samples in audio.blocks(segment):
            digest.update(np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return _signed(digest.digest())


def clusters(keys: np.ndarray, durations: np.ndarray | None = None) -> np.ndarray:
    """For each utterance the first one, in order, that is the same.

    Args:
        keys: int64[n]; 0: the same as no other.
        durations: float64[n], seconds: utterances of one key are the same only where they are within `TOLERANCE`.

    Returns:
        int64[n]; its own number for an utterance that is the first or the only one.
    """
    count = len(keys)
    times = np.zeros(count) if durations is None else durations
    order = np.lexsort((np.arange(count), times, keys))
    ordered, near = keys[order], np.diff(times[order], prepend=0.0) <= TOLERANCE
    same = (np.diff(ordered, prepend=ordered[:1] - 1) == 0) & near & (ordered != 0)
    starts = np.flatnonzero(~same)
    first = np.arange(count)
    if count:
        sizes = np.diff(np.append(starts, count))
        first[order] = np.repeat(np.minimum.reduceat(order, starts), sizes)
    return first


def _signed(digest: bytes) -> int:
    return int.from_bytes(digest, "little", signed=True) or 1
