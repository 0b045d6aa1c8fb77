"""Wav files of 16-bit samples in memory: what shards hold, read many times faster than through libsndfile."""

import struct

import numpy as np

# RIFF, size, WAVE, "fmt ", 16, PCM, channels, rate, bytes a second, bytes a frame, 16 bits, "data", size
_WAV = struct.Struct("<4sI4s4sIHHIIHH4sI")


def wav(samples: np.ndarray, rate: int) -> bytes:
    """A wav file of int16[samples, channels]: the shortest header and the samples, which `Pcm16` reads."""
    channels = samples.shape[1]
    data = np.ascontiguousarray(samples, "<i2").tobytes()
    head = (b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, channels, rate, 2 * channels * rate, 2 * channels, 16)
    return _WAV.pack(*head, b"data", len(data)) + data


class Pcm16:
    """A wav file of 16-bit samples in memory, read as `soundfile.SoundFile` reads it: many times faster, bit by bit.

    Attributes:
        frames, samplerate, channels, subtype: as those of `soundfile.SoundFile`.
    """

    subtype = "PCM_16"

    def __init__(self, samples: np.ndarray, rate: int):
        """`samples` is int16[frames, channels]."""
        self.frames, self.channels = samples.shape
        self.samplerate = rate
        self._samples = samples
        self._position = 0

    @classmethod
    def of(cls, content: bytes) -> "Pcm16 | None":
        """A wav file with nothing but 16-bit samples behind the shortest header, as `wav` writes it; None: another."""
        if len(content) <= _WAV.size or content[:4] != b"RIFF":
            return None
        _, _, kind, chunk, length, coding, channels, rate, _, frame, bits, data, size = _WAV.unpack_from(content)
        if (kind, chunk, length, coding, bits, data) != (b"WAVE", b"fmt ", 16, 1, 16, b"data"):
            return None
        if not channels or frame != 2 * channels or size != len(content) - _WAV.size or size % frame:
            return None
        return cls(np.frombuffer(content, "<i2", offset=_WAV.size).reshape(-1, channels), rate)

    def seek(self, frame: int) -> None:
        self._position = frame

    def read(self, frames: int = -1, dtype: str = "float32", always_2d: bool = False) -> np.ndarray:
        """float32 within ±1, or the int16 samples, read-only: [frames, channels], or [frames] of one channel."""
        stop = self.frames if frames < 0 else self._position + frames
        taken = self._samples[self._position : stop]
        self._position += len(taken)
        if not always_2d and self.channels == 1:
            taken = taken[:, 0]
        if dtype == "int16":
            return taken
        return np.multiply(taken, np.float32(1 / 32768), dtype=np.float32)

    def close(self) -> None:
        """Nothing is open; `soundfile.SoundFile` has it."""

    def __enter__(self) -> "Pcm16":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
