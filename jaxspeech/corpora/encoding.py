"""What an utterance becomes inside a shard: one piece of audio, as the bytes of a wav, FLAC or source file."""

import dataclasses
import io
from typing import Literal

import numpy as np
import soundfile

from jaxspeech.data import audio, containers
from jaxspeech.data.audio import AudioError
from jaxspeech.data.pcm16 import wav
from jaxspeech.data.record import TOLERANCE, Record, Segment

ENCODINGS = ("pcm16", "flac", "source")
_FLAC_SHARE = 0.6  # of the bytes of 16-bit samples; only to guess sizes


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How audio is stored.

    Attributes:
        kind: "pcm16" and "flac" hold the same 16-bit samples; "source" copies files as they are, and stores as FLAC
            what is no whole file.
        rate: Hz that everything is resampled to; None: each utterance keeps its own.
    """

    kind: Literal["pcm16", "flac", "source"]
    rate: int | None = None

    def encode(self, record: Record) -> bytes:
        """The bytes of an utterance. Raises `AudioError` where `audio.read` would, and for what FLAC cannot hold."""
        if self.kind == "source" and self.rate is None and _is_a_file(record):
            return _copied(record)
        sound, rate = materialise(record, self.rate)
        samples = audio.integers(sound)
        if self.kind == "pcm16":
            return wav(samples, rate)
        buffer = io.BytesIO()
        try:
            soundfile.write(buffer, samples, rate, "PCM_16", format="FLAC")
        except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
            what = f"{samples.shape[1]} channels at {rate} Hz"
            raise AudioError("not for FLAC", f"{record.segments[0].audio}: {what}: {error}") from error
        return buffer.getvalue()

    def bytes_per_second(self, record: Record) -> float:
        """About how large an utterance becomes, from headers alone. Raises `AudioError`."""
        first = record.segments[0]
        seconds, rate, channels = audio.probe(first.audio)
        if self.kind == "source" and self.rate is None and _is_a_file(record):
            return len(_content(first.audio)) / seconds
        if first.channel is not None or len(record.segments) > 1:
            channels = 1
        return 2 * channels * (self.rate or rate) * (1.0 if self.kind == "pcm16" else _FLAC_SHARE)


def materialise(record: Record, rate: int | None = None) -> tuple[np.ndarray, int]:
    """The audio of an utterance in one piece, float32[samples, channels], and its rate.

    An utterance in one piece keeps all channels of its file unless it names one, so that its mean is taken later just
    as it would be from the file. Several pieces become mono, at the highest of their rates. `rate` resamples. Raises
    `AudioError`, also where the audio is not as long as the record says.
    """
    headers = [audio.probe(segment.audio) for segment in record.segments]
    rate = rate or max(found for _, found, _ in headers)
    first, channels = record.segments[0], headers[0][2]
    if len(record.segments) == 1 and not first.gap:
        if first.channel is None and channels > 1:
            each = [audio.read_segment(dataclasses.replace(first, channel=c), rate) for c in range(channels)]
            sound = np.stack(each, 1)
        else:
            sound = audio.read_segment(first, rate)[:, None]
    else:
        pieces = []
        for segment in record.segments:
            pieces += [np.zeros(audio.samples(segment.gap, rate), np.float32), audio.read_segment(segment, rate)]
        sound = np.concatenate(pieces)[:, None]
    excess = len(sound) / rate - record.duration
    if abs(excess) > TOLERANCE:
        reason = "longer than the manifest says" if excess > 0 else "shorter than the manifest says"
        raise AudioError(reason, f"{first.audio}: {len(sound) / rate:.3f} s instead of {record.duration:.3f} s")
    return sound, rate


def _is_a_file(record: Record) -> bool:
    """Whether an utterance is a whole file, and no stretch or channel of one."""
    if len(record.segments) > 1:
        return False
    return record.segments[0] == Segment(record.segments[0].audio)


def _copied(record: Record) -> bytes:
    """The bytes of a file whose header says what the record says."""
    name = record.segments[0].audio
    seconds = audio.probe(name)[0]
    if abs(seconds - record.duration) > TOLERANCE:
        reason = "longer than the manifest says" if seconds > record.duration else "shorter than the manifest says"
        raise AudioError(reason, f"{name}: {seconds:.3f} s instead of {record.duration:.3f} s")
    return _content(name)


def _content(name: str) -> bytes:
    try:
        return containers.read_bytes(name)
    except (OSError, RuntimeError) as error:
        raise AudioError("corrupt audio", f"{name}: {error}") from error
