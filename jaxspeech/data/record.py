"""One line of a manifest: what makes it valid, and the `Record` that it stands for.

    {"id": "a1", "audio": "clips/a1.flac", "text": "hello", "duration": 1.25}

`id` and `text` are required, and either `audio` or `segments`; `duration` (seconds) is read from the audio's header
where it is missing. Optional: `offset` (seconds; makes the record a piece of its file), `channel`, `speaker`,
`language`, `words` ([[word, start, end], …]), `translation`. `segments` is a list of {"audio", "offset", "duration",
"gap", "channel"}, played one after the other, each preceded by `gap` seconds of silence. Unknown keys are kept.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from jaxspeech.data import containers

# How far lengths may be off before they count as wrong: encoders pad, tools round.
TOLERANCE = 0.1  # seconds

# Names that other tools give to our keys: only to explain an error.
ALIASES = {
    "id": ("utt_id", "utterance_id", "utt", "uttid", "key", "sample_id"),
    "audio": ("audio_filepath", "audio_path", "audio_file", "path", "file", "filename", "file_name", "wav", "source"),
    "text": ("transcript", "transcription", "sentence", "normalized_text", "target", "label"),
    "duration": ("audio_duration", "length", "dur", "duration_seconds"),
}


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of an audio file.

    Attributes:
        audio: absolute path, or a name of `containers`.
        offset: where it begins, in seconds.
        duration: how long it is, in seconds; None: to the end of the file.
        gap: seconds of silence before it.
        channel: the channel to take; None: the mean of all.
    """

    audio: str
    offset: float = 0.0
    duration: float | None = None
    gap: float = 0.0
    channel: int | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """One utterance of a manifest.

    Attributes:
        duration: seconds, gaps included: what the batch plan counts on.
        segments: what is played, in order. A record whose line has `audio` and no `offset` is the whole file.
        extra: all other keys of its line, `words` and `translation` among them.
    """

    id: str
    text: str
    duration: float
    segments: tuple[Segment, ...]
    speaker: str | None = None
    language: str | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def vet(line: bytes) -> tuple[str, float | None]:
    """Id and stated duration (None: to be read from the audio) of a line. Raises `ValueError` with what is wrong."""
    try:
        usual = _read_usual(line)
    except _REFUSED:
        row = decode(line)
        duration = check(row)
        return row["id"], duration
    return usual.id, usual.duration


def decode(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; raises `ValueError` with what is wrong in words."""
    try:
        row = read_json(line, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"not valid UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"not valid JSON ({error.msg} at column {error.colno}); each line is one JSON object"
        ) from error
    except RecursionError as error:
        raise ValueError("not valid JSON (nested too deeply); each line is one JSON object") from error
    if type(row) is not dict:
        raise ValueError(f"a JSON {_name(row)}, not an object; each line is one JSON object")
    return row


def read_json(line: bytes, **options: Any) -> Any:
    """What `json.loads(line.decode("utf-8"), **options)` gives or raises, several times faster.

    msgspec reads alike, but for rarities (NaN, 1e400, half a surrogate pair) that it refuses: `json` has the last word.
    """
    try:
        return _read(line)
    except _REFUSED:
        return json.loads(line.decode("utf-8"), **options)


def check(row: dict[str, Any]) -> float | None:
    """The duration that a line states; None: to be read from the audio. Raises `ValueError` with what is wrong."""
    text = row.get("text")
    name = row.get("id")
    if type(name) is not str or not name:
        raise ValueError(_wrong(row, "id", "a non-empty string"))
    if type(text) is not str:
        raise ValueError(_wrong(row, "text", "a string (it may be empty)"))
    if not (text.isascii() and name.isascii()):
        _check_characters(name + text)
    duration = row.get("duration")
    if duration is not None and not (_number(duration) and duration > 0):
        raise ValueError(_wrong(row, "duration", "a finite number of seconds above 0"))
    if row.get("segments") is not None:
        duration = _check_segments(row, duration)
    else:
        _check_stretch(row, "")
    if row.get("words") is not None:
        _check_words(row["words"])
    for key in _STRINGS:
        value = row.get(key)
        if value is not None and type(value) is not str:
            raise ValueError(_wrong(row, key, "a string"))
    return None if duration is None else float(duration)


def build(row: dict[str, Any], duration: float, folder: str) -> Record:
    """The record of a checked line. Relative paths are taken from `folder`."""
    channel = row.get("channel")
    if row.get("segments") is not None:
        segments = tuple(
            _segment(piece, piece.get("duration"), channel, float(piece.get("gap") or 0.0), folder)
            for piece in row["segments"]
        )
    else:
        # Without an offset the record is the whole file, however long that turns out to be.
        segments = (_segment(row, duration if row.get("offset") is not None else None, channel, 0.0, folder),)
    extra = {key: value for key, value in row.items() if key not in _KNOWN}
    return Record(row["id"], row["text"], duration, segments, row.get("speaker"), row.get("language"), extra)


_MOST = 1e9  # seconds: JSON can write numbers that no float holds
_STRINGS = ("speaker", "language", "translation")
_KNOWN = frozenset(("id", "text", "duration", "audio", "offset", "channel", "segments", "speaker", "language"))


def _no_constant(name: str) -> float:
    raise json.JSONDecodeError(f"{name} is no JSON number", name, 0)


_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_read = msgspec.json.Decoder().decode


class _Usual(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A line in whose reading `check` would find nothing: the keys of a plain recogniser's data, with valid values."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    audio: Annotated[str, msgspec.Meta(min_length=1)]
    text: str
    duration: Annotated[float, msgspec.Meta(gt=0, lt=_MOST)] | None = None
    offset: Annotated[float, msgspec.Meta(ge=0, lt=_MOST)] | None = None
    channel: Annotated[int, msgspec.Meta(ge=0)] | None = None
    speaker: str | None = None
    language: str | None = None
    translation: str | None = None


_read_usual = msgspec.json.Decoder(_Usual).decode


def _segment(piece: dict[str, Any], duration: float | None, channel: int | None, gap: float, folder: str) -> Segment:
    own = piece.get("channel")
    return Segment(
        audio=containers.join(folder, piece["audio"]),
        offset=float(piece.get("offset") or 0.0),
        duration=None if duration is None else float(duration),
        gap=gap,
        channel=channel if own is None else own,
    )


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "its id or text has half of a surrogate pair (\\ud800…\\udfff), which is no character"
        ) from None


def _check_segments(row: dict[str, Any], duration: float | None) -> float | None:
    segments = row["segments"]
    if row.get("audio") is not None or row.get("offset") is not None:
        raise ValueError("it has both 'segments' and 'audio' or 'offset'; keep 'segments' alone")
    if type(segments) is not list or not segments:
        raise ValueError(_wrong(row, "segments", "a non-empty list of objects"))
    _check_channel(row, "")
    total: float | None = 0.0
    for number, piece in enumerate(segments):
        where = f" of segment {number + 1}"
        if type(piece) is not dict:
            raise ValueError(f"segment {number + 1} is a JSON {_name(piece)}, not an object")
        _check_stretch(piece, where)
        length, gap = piece.get("duration"), piece.get("gap")
        if length is not None and not (_number(length) and length > 0):
            raise ValueError(_wrong(piece, "duration", "a finite number of seconds above 0", where))
        if gap is not None and not (_number(gap) and gap >= 0):
            raise ValueError(_wrong(piece, "gap", "a finite number of seconds, 0 or above", where))
        total = None if total is None or length is None else total + length + (gap or 0.0)
    if total is not None and duration is not None and abs(total - duration) > TOLERANCE:
        raise ValueError(f"duration is {duration:g} s but its segments and gaps last {total:g} s; correct one of them")
    return total if duration is None else duration


def _check_stretch(piece: dict[str, Any], where: str) -> None:
    audio = piece.get("audio")
    if type(audio) is not str or not audio:
        raise ValueError(_wrong(piece, "audio", "a path", where))
    offset = piece.get("offset")
    if offset is not None and not (_number(offset) and offset >= 0):
        raise ValueError(_wrong(piece, "offset", "a finite number of seconds, 0 or above", where))
    _check_channel(piece, where)


def _check_channel(piece: dict[str, Any], where: str) -> None:
    channel = piece.get("channel")
    if channel is not None and not (type(channel) is int and channel >= 0):
        raise ValueError(_wrong(piece, "channel", "a whole number, 0 or above", where))


def _check_words(words: Any) -> None:
    if type(words) is not list:
        raise ValueError(f"words is a JSON {_name(words)}; give a list of [word, start, end]")
    for number, word in enumerate(words):
        well_formed = type(word) is list and len(word) == 3 and type(word[0]) is str
        if not (well_formed and _number(word[1]) and _number(word[2]) and 0 <= word[1] <= word[2]):
            raise ValueError(f"word {number + 1} is {_show(word)}; give [word, start, end] in seconds, start ≤ end")


def _number(value: Any) -> bool:
    return (type(value) is float or type(value) is int) and abs(value) < _MOST  # bool is an int to isinstance


def _wrong(row: dict[str, Any], key: str, wanted: str, where: str = "") -> str:
    if row.get(key) is not None:
        return f"{key}{where} is {_show(row[key])}; it must be {wanted}"
    alias = next((name for name in ALIASES.get(key, ()) if name in row), None)
    if alias:
        return f"no {key!r}{where}, but {alias!r}; rename that key to {key!r}"
    extra = " (or 'segments')" if key == "audio" and not where else ""
    return f"no {key!r}{extra}{where}; it must be {wanted}"


def _show(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:57] + "…"


def _name(value: Any) -> str:
    if value is None:
        return "null"
    return {list: "array", str: "string", bool: "boolean", dict: "object"}.get(type(value), "number")
