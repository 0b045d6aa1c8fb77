"""What only decoding the whole audio of an utterance shows: truncation, silence, clipping, an empty channel."""

import dataclasses
import hashlib
import os
import struct
from collections.abc import Iterator

import numpy as np
import soundfile

from jaxspeech.data import audio
from jaxspeech.data.record import TOLERANCE, Record, Segment

_FULL_SCALE = 0.999
_WINDOW = 0.05  # seconds
_BLOCK = 20  # windows that are in memory at a time, times 60: a minute of audio
_FLOOR = 1e-10  # of power: -100 dB


@dataclasses.dataclass
class Heard:
    """The measures of an utterance.

    Attributes:
        loudest: highest power of any 50 ms, mean removed, of each channel that was listened to in each segment.
        clipped: share of samples at full scale.
        digest: 63 bits of a hash of its samples and their rate.
    """

    loudest: list[np.ndarray]
    clipped: float
    digest: int

    def faults(self, silence_db: float, max_clipped: float) -> Iterator[tuple[str, str]]:
        """(reason, detail) of what speaks against the utterance."""
        threshold = 10 ** (silence_db / 10)
        peak = max(float(powers.max()) for powers in self.loudest)
        if peak < threshold:
            yield "silence", f"its loudest 50 ms have {_db(peak)}, silence ends at {silence_db:g} dB"
        for powers in self.loudest:
            empty = np.flatnonzero(powers < threshold)
            if 0 < len(empty) < len(powers):
                detail = f"channel {empty[0]} of {len(powers)} is silent; name another as 'channel'"
                yield "empty channel", f"{detail}, or the mean of all is {20 * np.log10(len(powers)):.0f} dB too quiet"
        if self.clipped > max_clipped:
            yield "clipped", f"{100 * self.clipped:.1f} % of its samples are at full scale, at most {max_clipped:.1%}"


def listen(record: Record) -> Heard:
    """Decodes an utterance in blocks, at the rates that its files have. Raises `AudioError` if that fails."""
    digest = hashlib.blake2b(digest_size=8)
    loudest, full, count = [], 0, 0
    for segment in record.segments:
        powers = np.zeros(0)
        for block, rate in _blocks(segment):
            digest.update(rate.to_bytes(4, "little") + np.ascontiguousarray(block).tobytes())
            full += int(np.count_nonzero(np.abs(block) >= _FULL_SCALE))
            count += block.size
            highest = _loudest(block, max(int(_WINDOW * rate), 1))
            powers = np.maximum(powers, highest) if len(powers) else highest
        loudest.append(powers)
    return Heard(loudest, full / count, int.from_bytes(digest.digest(), "little") >> 1 or 1)


def _blocks(segment: Segment) -> Iterator[tuple[np.ndarray, int]]:
    """float32[frames, channels] of a stretch, a minute at a time, and the rate; refuses what is not whole."""
    _refuse_short_riff(segment.audio)
    with audio._open(segment.audio) as file:
        rate = file.samplerate
        first = round(segment.offset * rate)
        last = file.frames if segment.duration is None else min(first + round(segment.duration * rate), file.frames)
        try:
            skip = audio._seekable(file, first)
            file.seek(skip)
            file.read(first - skip, dtype="float32", always_2d=True)
            position = first
            while position < last:
                size = min(_BLOCK * 60 * max(int(_WINDOW * rate), 1), last - position)
                block = file.read(size, dtype="float32", always_2d=True)
                position += len(block)
                if not np.isfinite(block).all():
                    raise audio.AudioError("not a number", f"{segment.audio} has NaN or infinite samples")
                if len(block):
                    yield (block if segment.channel is None else block[:, segment.channel, None]), rate
                if len(block) < size:
                    break
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise audio.AudioError("truncated or corrupt audio", f"{segment.audio}: {error}") from error
        if last - position > TOLERANCE * rate or position == first:
            decoded = f"{position - first} of {last - first} samples could be decoded"
            raise audio.AudioError("truncated or corrupt audio", f"{segment.audio}: {decoded}")


def _refuse_short_riff(path: str) -> None:
    """A wav file whose end is missing: libsndfile takes what is there for the whole without a word."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return  # inside a container or behind a URL
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return
    stated = struct.unpack("<I", head[4:8])[0] + 8
    if stated < 0xFFFFFF00 and size + 1 < stated:  # a writer to a pipe leaves the highest number there
        raise audio.AudioError("truncated or corrupt audio", f"{path} has {size} of {stated} bytes")


def _loudest(block: np.ndarray, window: int) -> np.ndarray:
    """The power of the loudest window of each channel, without its mean."""
    count = max(len(block) // window, 1)
    windows = block[: count * window].astype(np.float64).reshape(count, -1, block.shape[1])
    return windows.var(axis=1).max(axis=0)


def _db(power: float) -> str:
    return f"{10 * np.log10(max(power, _FLOOR)):.0f} dB"
