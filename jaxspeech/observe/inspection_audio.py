"""What is heard in an utterance: level, clipping, silence, bandwidth; and its clip and picture for a page."""

import base64
import dataclasses
import functools
import io
import math
from typing import Any

import numpy as np

from jaxspeech.data import audio
from jaxspeech.data.record import Record
from jaxspeech.data.rows import Row
from jaxspeech.evaluation.long_audio import levels

LONGEST_HEARD = 300.0  # seconds of an utterance that are measured
LONGEST_CLIP = 20.0  # seconds that a page plays of an utterance
_SILENT_DB = -60.0  # of full scale: below, nobody hears speech
_FRAME = 0.02  # seconds
_RANGE_DB = 10.0  # speech that is not this much above the floor cannot be told from it
_FLAT = 3  # neighbouring samples at the very peak: a wave touches it with one or two


@dataclasses.dataclass(frozen=True)
class Heard:
    """An utterance, decoded at the rate of its file.

    Attributes:
        rate: Hz; channels: of the file.
        peak, level: dB of full scale: the highest sample; the mean power of what is no pause.
        clipped: share of samples in flat tops: three or more in a row at the very peak.
        silence: share of pauses: 20 ms frames nearer to the noise floor than to the speech (as `long_audio.py` cuts).
        lead, trail: seconds of pause at the beginning and at the end.
        above_floor: dB from the noise floor (10th percentile of the level) to the speech (95th).
        bandwidth: Hz; above it the spectrum lies more than 60 dB under its maximum.
        empty_channel: the file has several channels and one of them is silent.
        problem: (reason, detail) where it cannot be decoded; the rest says nothing then.
    """

    rate: int = 0
    channels: int = 0
    peak: float = -math.inf
    level: float = -math.inf
    clipped: float = 0.0
    silence: float = 0.0
    lead: float = 0.0
    trail: float = 0.0
    above_floor: float = 0.0
    bandwidth: float = 0.0
    empty_channel: bool = False
    problem: tuple[str, str] | None = None


def hear(row: Row) -> Heard:
    """Decodes and measures an utterance, of a long one its first five minutes."""
    try:
        record = row.record()
        _, rate, channels = audio.probe(record.segments[0].audio)
        samples = _read(record, rate, LONGEST_HEARD)
        empty = False
        if channels > 1 and len(record.segments) == 1 and record.segments[0].channel is None:
            alone = [
                dataclasses.replace(record, segments=(dataclasses.replace(record.segments[0], channel=channel),))
                for channel in range(channels)
            ]
            peaks = [_decibel(float(np.abs(_read(one, rate, LONGEST_HEARD)).max(initial=0.0))) for one in alone]
            empty = min(peaks) < _SILENT_DB < max(peaks)
    except audio.AudioError as error:
        return Heard(problem=(error.reason, error.detail))
    peak = _decibel(float(np.abs(samples).max(initial=0.0)))
    frame = max(1, round(_FRAME * rate))
    level = levels(samples, frame)
    floor, speech = np.percentile(level, (10, 95))
    if speech < _SILENT_DB:
        pause = np.ones(len(level), bool)
    elif speech - floor < _RANGE_DB:
        pause = np.zeros(len(level), bool)
    else:
        pause = level <= floor + 0.25 * (speech - floor)
    heard = np.flatnonzero(~pause)
    length = len(samples) / rate
    return Heard(
        rate=rate,
        channels=channels,
        peak=peak,
        level=_decibel(math.sqrt(float(np.mean(10 ** (level[heard] / 10))))) if len(heard) else float(speech),
        clipped=flat_share(samples),
        silence=float(pause.mean()),
        lead=float(heard[0]) * _FRAME if len(heard) else length,
        trail=max(0.0, length - (float(heard[-1]) + 1) * _FRAME) if len(heard) else length,
        above_floor=float(speech - floor),
        bandwidth=_bandwidth(samples, rate),
        empty_channel=empty,
    )


def flat_share(samples: np.ndarray) -> float:
    """Share of samples that stand in flat tops at the positive or negative peak: the trace of clipping."""
    flat = 0
    for side in (samples, -samples):
        top = float(side.max(initial=0.0))
        if top < 0.01:  # quiet enough to be quantised into steps
            continue
        edges = np.flatnonzero(np.diff(side >= top * (1 - 2e-4), prepend=False, append=False))
        runs = edges[1::2] - edges[::2]
        flat += int(runs[runs >= _FLAT].sum())
    return flat / max(len(samples), 1)


def spectrogram(samples: np.ndarray, rate: int, height: int = 96, width: int = 560) -> np.ndarray:
    """uint8[height, width], low frequencies at the bottom: 25 ms windows, 70 dB from black to white."""
    window, hop = int(0.025 * rate), max(1, len(samples) // width)
    padded = np.pad(samples, (0, window))
    starts = np.arange(width) * hop
    frames = padded[np.minimum(starts, len(samples))[:, None] + np.arange(window)] * np.hanning(window)
    size = -(-window // (2 * height)) * 2 * height  # so that every row stands for as many frequencies
    power = np.abs(np.fft.rfft(frames, n=size))[:, :-1] ** 2
    decibel = 10 * np.log10(power.reshape(width, height, -1).max(axis=2).T + 1e-12)
    shade = np.clip((decibel - decibel.max() + 70) / 70, 0, 1)
    return (255 * shade[::-1]).astype(np.uint8)


def show(row: Row, most_bytes: int) -> dict[str, Any]:
    """What a page shows of an utterance: `clip` and `picture` (data URIs), `rate`, `seconds` shown, `whole`.

    The clip is FLAC at 16 kHz or the file's lower rate, or Opus where that would exceed `most_bytes`.
    """
    try:
        record = row.record()
        native = min(audio.probe(segment.audio)[1] for segment in record.segments)
        rate = min(native, 16000)
        samples = _read(record, rate, LONGEST_CLIP)
    except audio.AudioError:
        return {}
    return {
        "clip": _clip(samples, rate, most_bytes),
        "picture": _picture(spectrogram(samples, rate)),
        "rate": rate,
        "seconds": len(samples) / rate,
        "whole": record.duration <= LONGEST_CLIP,
    }


def _read(record: Record, rate: int, most: float) -> np.ndarray:
    """At most so many seconds from the beginning; of a long file no more is decoded."""
    if record.duration > most + 1 and len(record.segments) == 1:
        return audio.read_segment(dataclasses.replace(record.segments[0], duration=most), rate)
    return audio.read(record, rate)[: int(most * rate)]


def _clip(samples: np.ndarray, rate: int, most_bytes: int) -> str:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), rate, format="FLAC", subtype="PCM_16")
    kind = "flac"
    if file.tell() > most_bytes and rate in (8000, 12000, 16000):
        file, kind = io.BytesIO(), "ogg"
        with soundfile.SoundFile(file, "w", rate, 1, format="OGG", subtype="OPUS") as out:
            for first in range(0, len(samples), 1 << 14):
                out.write(samples[first : first + (1 << 14)])
    return f"data:audio/{kind};base64," + base64.b64encode(file.getvalue()).decode()


def _picture(shades: np.ndarray) -> str:
    """A PNG with a palette: a byte a pixel before compression."""
    from PIL import Image  # matplotlib brings it

    image = Image.fromarray(shades, mode="P")
    image.putpalette(_palette())
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@functools.cache
def _palette() -> bytes:
    import matplotlib

    colours = matplotlib.colormaps["magma"](np.arange(256))[:, :3]
    return (255 * colours).astype(np.uint8).tobytes()


def _bandwidth(samples: np.ndarray, rate: int) -> float:
    size = 1024
    if len(samples) < size:
        return rate / 2
    frames = samples[: len(samples) // size * size].reshape(-1, size) * np.hanning(size).astype(np.float32)
    power = np.mean(np.abs(np.fft.rfft(frames)) ** 2, axis=0)
    loud = np.flatnonzero(power > power.max() * 1e-6)
    return float((loud[-1] + 1) * rate / size) if len(loud) else 0.0


def _decibel(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 1e-5 else -100.0
