"""Audio of an utterance: any format that libsndfile reads, any rate and channel count, as mono float32 at one rate.

A stretch of a file is read by seeking, without decoding what lies before it, and equals the same slice of the whole
file resampled: the resampler is given a margin on both sides, cut on the grid where both rates have a sample.
"""

import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Int16, Num

from jaxspeech.data import containers
from jaxspeech.data.record import TOLERANCE, Record, Segment

_MARGIN = 0.05  # seconds; the high-quality filter of soxr dies out well within it
_PREROLL = 1.0  # seconds; lossy codecs carry state (MP3's bit reservoir): what follows a seek at once is not exact
_VORBIS_TAIL = 20.0  # seconds; libsndfile 1.2 misplaces what it reads after a seek into the last Ogg page
_BLOCK = 1 << 14  # frames; libsndfile overflows its stack on long Vorbis writes
_FINITE = ("PCM", "ULAW", "ALAW", "MPEG", "VORBIS", "OPUS")  # codings that cannot hold NaN or infinity


class AudioError(Exception):
    """An utterance whose audio cannot be used.

    Attributes:
        reason: one of few short phrases, such as "missing file": what the ledger counts by.
        detail: the file and what was found there.
    """

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason, detail)  # both in args: the error travels between processes
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def samples(duration: Any, rate: int) -> Any:
    """Samples of so many seconds: the rule by which batches are planned. For a number an int, for an array int64."""
    if isinstance(duration, float | int):
        return round(duration * rate)  # rounds halves to even, as numpy does
    return np.rint(np.asarray(duration, np.float64) * rate).astype(np.int64)


def probe(path: str | os.PathLike[str]) -> tuple[float, int, int]:
    """Duration in seconds, rate in Hz and channels, from the header alone. Raises `AudioError`."""
    with _open(os.fspath(path)) as file:
        return file.frames / file.samplerate, file.samplerate, file.channels


def played(record: Record) -> float:
    """Seconds that a record plays, gaps included; what its segments do not state is read from headers of the audio.

    Raises `AudioError` for audio that cannot be read, or that ends before a segment begins.
    """
    total = 0.0
    for segment in record.segments:
        length = segment.duration
        if length is None or math.isnan(length):
            length = probe(segment.audio)[0] - segment.offset
            if length <= 0:
                raise AudioError("segment beyond the end", f"{segment.audio} ends before {segment.offset:g} s")
        total += segment.gap + length
    return total


def read(record: Record, sample_rate: int = 16000, *, integers: bool = False) -> Num[np.ndarray, " samples"]:
    """The audio of an utterance: its segments one after the other, each preceded by its gap of silence.

    Segments that have one rate are joined at that rate and resampled together: so they are in a shard that holds the
    utterance in one piece, and the samples are the same from there.

    Never longer than `samples(record.duration, sample_rate)`, which the batch plan relies on. Audio that is up to 0.1 s
    longer than the manifest says is cut there; up to 0.1 s shorter is taken as it is. Raises `AudioError` for anything
    further off (a truncated file must not train with its whole text), and for audio that cannot be read.

    Args:
        integers: 16-bit samples that need no computing come as they are stored, int16, perhaps read-only: half the
            memory to move. `floats` makes of them what else would have come.
    """
    if len(record.segments) == 1 and not record.segments[0].gap:
        audio = read_segment(record.segments[0], sample_rate, integers=integers)
    else:
        audio = _joined(record.segments, sample_rate)
    planned = samples(record.duration, sample_rate)
    excess = (len(audio) - planned) / sample_rate
    if abs(excess) > TOLERANCE:
        reason = "longer than the manifest says" if excess > 0 else "shorter than the manifest says"
        found = f"{len(audio) / sample_rate:.3f} s instead of {record.duration:.3f} s"
        raise AudioError(reason, f"{record.segments[0].audio}: {found}")
    return audio[:planned]


def floats(audio: Num[np.ndarray, "samples *channels"]) -> Float[np.ndarray, "samples *channels"]:
    """Samples as float32: int16 within ±1, floats as they are."""
    if audio.dtype == np.int16:
        return np.multiply(audio, np.float32(1 / 32768), dtype=np.float32)
    return audio


def integers(sound: Num[np.ndarray, "samples *channels"]) -> Int16[np.ndarray, "samples *channels"]:
    """Samples as int16: floats within ±1 rounded, those beyond clipped. What was of 16 bits is what it was."""
    if sound.dtype == np.int16:
        return sound
    scaled = sound * np.float32(32768)
    np.rint(scaled, scaled)
    np.clip(scaled, -32768, 32767, scaled)
    return scaled.astype(np.int16)


def put(audio: Num[np.ndarray, " samples"], into: Num[np.ndarray, " samples"]) -> None:
    """Writes samples into their place in a batch, as `floats` or `integers`, whichever the batch has."""
    if into.dtype == np.int16:
        into[...] = integers(audio)
    elif audio.dtype == np.int16:
        np.multiply(audio, np.float32(1 / 32768), out=into, dtype=np.float32)
    else:
        into[...] = audio


def read_segment(segment: Segment, sample_rate: int = 16000, *, integers: bool = False) -> Num[np.ndarray, " samples"]:
    """A stretch of a file without its gap, at `sample_rate`; `integers` as in `read`. Raises `AudioError`."""
    with _open(segment.audio) as file:
        audio = _stretch(file, segment, sample_rate)
    return audio if integers else floats(audio)


def blocks(segment: Segment, seconds: float = 60.0) -> Iterator[Float[np.ndarray, " samples"]]:
    """`read_segment` at the rate of the file, a minute at a time: a recording of hours takes no memory."""
    with _open(segment.audio) as file:
        begin, stop = _bounds(file, segment, file.samplerate)
        size = samples(seconds, file.samplerate)
        for first in range(begin, stop, size):
            yield floats(_mono(file, segment, first, min(first + size, stop)))


def write(path: str | os.PathLike[str], audio: Float[np.ndarray, "samples *channels"], sample_rate: int) -> None:
    """Writes audio in the format of the path's ending (16-bit for wav and flac; beyond ±1 is clipped), atomically."""
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        channels = 1 if audio.ndim == 1 else audio.shape[1]
        kind = {"format": "OGG", "subtype": "OPUS"} if target.suffix.lower() == ".opus" else {}
        with soundfile.SoundFile(temporary, "w", sample_rate, channels, **kind) as file:
            for first in range(0, len(audio), _BLOCK):
                file.write(audio[first : first + _BLOCK])
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _open(path: str) -> soundfile.SoundFile:
    """Any name that `containers` knows, as something that reads like a `SoundFile`."""
    plain = containers.is_file(path)
    try:
        file = soundfile.SoundFile(path) if plain else containers.open_audio(path)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, OSError, EOFError) as error:
        if plain and not os.path.exists(path):
            raise AudioError("missing file", path) from error
        if isinstance(error, FileNotFoundError):
            raise AudioError("missing file", path if error.errno else str(error)) from error
        if isinstance(error, EOFError):
            raise AudioError("empty audio", str(error)) from error
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise AudioError("empty audio", f"{path} has 0 bytes") from error
        raise AudioError("corrupt audio", f"{path}: {error}") from error
    if file.frames <= 0:
        file.close()
        raise AudioError("empty audio", f"{path} has no samples")
    return file


def _joined(segments: Sequence[Segment], sample_rate: int) -> np.ndarray:
    """Several segments with their gaps, at `sample_rate`."""
    rates, pieces = set(), []
    for segment in segments:
        with _open(segment.audio) as file:
            rates.add(file.samplerate)
            pieces.append(floats(_stretch(file, segment, file.samplerate)))
    rate = rates.pop()
    if rates:  # they differ
        rate, pieces = sample_rate, [read_segment(segment, sample_rate) for segment in segments]
    gaps = [np.zeros(samples(segment.gap, rate), np.float32) for segment in segments]
    audio = np.concatenate([part for pair in zip(gaps, pieces) for part in pair])
    if rate == sample_rate:
        return audio
    return soxr.resample(audio, rate, sample_rate, quality="HQ")[: samples(len(audio) / rate, sample_rate)]


def _stretch(file: soundfile.SoundFile, segment: Segment, sample_rate: int) -> np.ndarray:
    """`read_segment` of an open file; int16 where it holds such samples and nothing is computed from them."""
    rate, frames = file.samplerate, file.frames
    begin, stop = _bounds(file, segment, sample_rate)
    if rate == sample_rate:
        return _mono(file, segment, begin, stop)
    # On multiples of `step` input samples both rates have a sample at the same moment.
    divisor = math.gcd(rate, sample_rate)
    step, margin = rate // divisor, int(_MARGIN * rate)
    first = max(begin * rate // sample_rate - margin, 0) // step * step
    last = min(-(-stop * rate // sample_rate) + margin, frames)
    audio = soxr.resample(floats(_mono(file, segment, first, last)), rate, sample_rate, quality="HQ")
    before = begin - first * sample_rate // rate
    return audio[before : before + stop - begin]


def _bounds(file: soundfile.SoundFile, segment: Segment, sample_rate: int) -> tuple[int, int]:
    """The first sample of a stretch and that after its last, at `sample_rate`. Raises `AudioError`."""
    rate, frames = file.samplerate, file.frames
    if segment.channel is not None and segment.channel >= file.channels:
        raise AudioError("channel out of range", f"{segment.audio}: channel {segment.channel} of {file.channels}")
    end = frames / rate if segment.duration is None else segment.offset + segment.duration
    if end > frames / rate + TOLERANCE or segment.offset >= frames / rate:
        wanted = f"{segment.offset:.3f}-{end:.3f} s of {frames / rate:.3f} s"
        raise AudioError("segment beyond the end", f"{segment.audio}: {wanted}")
    begin = samples(segment.offset, sample_rate)
    stop = min(begin + samples(end - segment.offset, sample_rate), samples(frames / rate, sample_rate))
    if stop <= begin:
        raise AudioError("empty audio", f"{segment.audio}: no sample lies within {segment.offset:.6f}-{end:.6f} s")
    return begin, stop


def _seekable(file: soundfile.SoundFile, first: int) -> int:
    """The frame to seek to so that frame `first` and those after it are read as if from the beginning."""
    begin = first
    if file.subtype.startswith(("MPEG", "OPUS", "VORBIS")):
        begin -= int(_PREROLL * file.samplerate)
    if file.subtype == "VORBIS":
        begin = min(begin, file.frames - int(_VORBIS_TAIL * file.samplerate))
    return max(begin, 0)


def _mono(file: soundfile.SoundFile, segment: Segment, first: int, last: int) -> np.ndarray:
    """Frames first to last: the channel asked for, or the mean of all; float32, or int16 where it holds such."""
    kind = "int16" if file.subtype == "PCM_16" else "float32"
    try:
        begin = _seekable(file, first)
        if begin:
            file.seek(begin)
        audio = file.read(last - begin, dtype=kind, always_2d=True)[first - begin :]
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise AudioError("corrupt audio", f"{segment.audio}: {error}") from error
    if last - first - len(audio) > TOLERANCE * file.samplerate:
        lost = f"{len(audio)} of {last - first} samples could be decoded"
        raise AudioError("corrupt audio", f"{segment.audio}: {lost}")
    if not len(audio):
        raise AudioError("empty audio", f"{segment.audio} has no samples there")
    if segment.channel is not None:
        mono = np.ascontiguousarray(audio[:, segment.channel])
    elif audio.shape[1] == 1:
        mono = audio[:, 0]
    else:
        mono = floats(audio) @ np.full(audio.shape[1], 1 / audio.shape[1], np.float32)
    if not file.subtype.startswith(_FINITE) and not np.isfinite(mono).all():
        raise AudioError("not a number", f"{segment.audio} has NaN or infinite samples")
    return mono
