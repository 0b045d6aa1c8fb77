"""What is checked of one utterance before a manifest names it: its line, the header of its audio, the text it has."""

import dataclasses
import errno
import json
import os
import stat
import unicodedata
from typing import Any

from jaxspeech.corpora import decoded
from jaxspeech.corpora.source import Rejected
from jaxspeech.data import audio, record
from jaxspeech.data.record import TOLERANCE


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is left out.

    Attributes:
        min_seconds: shorter utterances are filtered.
        max_seconds: longer ones are filtered; 0: none is too long.
        max_characters: a second, more than which nobody says; wide characters (Chinese, Japanese, Korean) count three
            times. 0: no limit. Fast English readers reach 25.
        empty_text: keep utterances without text.
        repeated_audio: keep utterances whose audio another one has too.
        header_duration: where a stated duration is not that of the audio, take that of the audio.
        max_clipped: with decoding, the share of samples at full scale above which an utterance is filtered.
        silence_db: with decoding, an utterance none of whose 50 ms is louder than this (dB of full scale) is silence.
        speaking_rate: with decoding, filter utterances spoken much faster or slower than the rest (`rates.py`).
    """

    min_seconds: float = 0.05
    max_seconds: float = 3600.0
    max_characters: float = 40.0
    empty_text: bool = False
    repeated_audio: bool = False
    header_duration: bool = False
    max_clipped: float = 0.01
    silence_db: float = -66.0
    speaking_rate: bool = True


@dataclasses.dataclass(frozen=True)
class Kept:
    """An utterance that passed.

    Attributes:
        row: its manifest line, with the duration that the audio has.
        characters: of its text, wide ones counted three times.
        rate: that the header of its first file states, in Hz.
        clipped: share of samples at full scale; 0 where nothing was decoded.
        sound: a hash of its samples; 0 where nothing was decoded.
    """

    row: dict[str, Any]
    characters: int
    rate: int
    clipped: float = 0.0
    sound: int = 0


_MOST = 1e9  # seconds, as in data/record.py
_ORDER = ("id", "audio", "segments", "offset", "channel", "text", "duration", "speaker", "language")


def examine(where: str, row: dict[str, Any], limits: Limits, decode: bool) -> Kept | Rejected:
    """Checks an utterance. Whatever is wrong with it or its audio is an answer, never an exception."""
    try:
        return _examine(where, row, limits, decode)
    except audio.AudioError as error:
        return Rejected(where, error.reason, error.detail)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        return Rejected(where, "not a record", str(error))


def _examine(where: str, row: dict[str, Any], limits: Limits, decode: bool) -> Kept | Rejected:
    wrong = _line(row)
    if wrong:
        return Rejected(where, *wrong)
    text: str = row["text"]
    if not limits.empty_text and (not text or text.isspace()):
        return Rejected(where, "empty text", f"{row['id']}", kind="filtered")
    seconds, rate = _headers(row, limits)
    row = {key: row[key] for key in _ORDER if key in row} | row | {"duration": seconds}
    record.check(row)  # what is written can be read back
    if seconds < limits.min_seconds:
        return Rejected(where, "too short", f"{seconds:g} s, at least {limits.min_seconds:g}", kind="filtered")
    if limits.max_seconds and seconds > limits.max_seconds:
        detail = f"{seconds:.1f} s, at most {limits.max_seconds:g}; cut it with `jaxspeech prepare split`"
        return Rejected(where, "too long", detail, kind="filtered")
    characters = spoken(text)
    if limits.max_characters and characters > limits.max_characters * seconds:
        detail = f"{characters} characters in {seconds:.2f} s, at most {limits.max_characters:g} a second"
        return Rejected(where, "text too long for its audio", detail, kind="filtered")
    if not decode:
        return Kept(row, characters, rate)
    heard = decoded.listen(record.build(row, seconds, ""))
    for reason, detail in heard.faults(limits.silence_db, limits.max_clipped):
        return Rejected(where, reason, detail, kind="filtered")
    return Kept(row, characters, rate, heard.clipped, heard.digest)


def spoken(text: str) -> int:
    """Characters of a text, wide ones counted three times: one of them is a syllable."""
    if text.isascii():
        return len(text)
    return len(text) + 2 * sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)


def _line(row: dict[str, Any]) -> tuple[str, str] | None:
    """The reason and what was found, where a line alone shows that it cannot be used."""
    for key in ("id", "text"):
        value = row.get(key)
        if type(value) is not str or (key == "id" and not value):
            return f"no {key}", f"{key} is {json.dumps(value)[:60]}"
    for piece in row.get("segments") or (row,):
        if not isinstance(piece, dict):
            return "not a record", "segments is a list of objects"
        if type(piece.get("audio")) is not str or not piece["audio"]:
            return "no audio", f"audio is {json.dumps(piece.get('audio'))[:60]}"
        channel = piece.get("channel")
        if channel is not None and (type(channel) is not int or channel < 0):
            return "bad channel", f"channel is {json.dumps(channel)[:60]}, which is no whole number from 0 on"
        for key, least in (("duration", 0.0), ("offset", 0.0)):
            value = piece.get(key)
            if value is None:
                continue
            if type(value) not in (int, float) or not abs(value) <= _MOST:
                return f"bad {key}", f"{key} is {json.dumps(value)[:60]}, which is no number of seconds"
            if value < least or (key == "duration" and value == 0):
                return f"bad {key}", f"{key} is {value:g} s"
    return None


def _headers(row: dict[str, Any], limits: Limits) -> tuple[float, int]:
    """Seconds of the utterance by the headers of its files, and the rate of the first; raises `AudioError`."""
    stated = row.get("duration")
    if row.get("segments") is None:
        return _stretch(row, row.get("channel"), limits)
    total, rates, pieces = 0.0, [], []
    for piece in row["segments"]:
        channel = piece.get("channel")
        seconds, rate = _stretch(piece, row.get("channel") if channel is None else channel, limits)
        total += seconds + (piece.get("gap") or 0.0)
        rates.append(rate)
        pieces.append(piece | {"duration": seconds} if piece.get("duration") is not None else piece)
    row["segments"] = pieces
    return _agreed(stated, total, row["segments"][0]["audio"], limits), rates[0]


def _stretch(piece: dict[str, Any], channel: int | None, limits: Limits) -> tuple[float, int]:
    path = piece["audio"]
    seconds, rate, channels = _probe(path)
    if channel is not None and channel >= channels:
        raise audio.AudioError("channel out of range", f"{path}: channel {channel} of {channels}")
    offset, stated = piece.get("offset"), piece.get("duration")
    if offset is None:
        return _agreed(stated, seconds, path, limits), rate
    end = seconds if stated is None else offset + stated
    if offset >= seconds or end > seconds + TOLERANCE:
        raise audio.AudioError("segment beyond the end", f"{path}: {offset:.3f}-{end:.3f} s of {seconds:.3f} s")
    return (stated if stated is not None and end <= seconds else seconds - offset), rate


def _agreed(stated: float | None, seconds: float, path: str, limits: Limits) -> float:
    """The duration that the audio has, if the stated one is nearly that."""
    if stated is not None and abs(stated - seconds) > TOLERANCE and not limits.header_duration:
        raise audio.AudioError(
            "duration differs from the audio", f"{path}: stated are {stated:g} s, its header says {seconds:.3f} s"
        )
    return seconds


def _probe(path: str) -> tuple[float, int, int]:
    """`audio.probe`, with the fault of a file named more finely."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        if getattr(error, "errno", 0) == errno.ELOOP:
            raise audio.AudioError("symlink loop", path) from None
        if getattr(error, "errno", 0) == errno.EACCES:
            raise audio.AudioError("no read permission", path) from None
        try:
            return audio.probe(path)  # inside a container, behind a URL, or missing
        except audio.AudioError as missing:
            if missing.reason == "missing file" and missing.detail == path:
                raise audio.AudioError(missing.reason, _missing(path)) from None
            raise
    if not stat.S_ISREG(mode):  # opening a named pipe would wait for ever
        raise audio.AudioError("not a file", path)
    try:
        return audio.probe(path)
    except audio.AudioError:
        if not os.access(path, os.R_OK):
            raise audio.AudioError("no read permission", path) from None
        if os.path.getsize(path) == 0:
            raise audio.AudioError("zero bytes", path) from None
        raise


def _missing(path: str) -> str:
    """A path where no file is; where its folder is not there either, with the highest folder that is missing."""
    folder = os.path.dirname(path)
    if not os.path.isabs(path) or os.path.isdir(folder):
        return path
    while not os.path.isdir(os.path.dirname(folder)):
        folder = os.path.dirname(folder)
    return f"{path} (there is no folder {folder}; was it moved, or is its disk not mounted?)"
