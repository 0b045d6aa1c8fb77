"""Captions: SubRip (.srt) and WebVTT (.vtt) files as timed texts. What a player would not show is dropped."""

import dataclasses
import html
import pathlib
import re

from jaxspeech.errors import UserError

ENDINGS = (".srt", ".vtt")

# 00:01:02,345 (SubRip), 01:02.345 (WebVTT may leave out hours)
_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$")
_TAG = re.compile(r"</?[a-zA-Z][^>\n]*>|<\d[\d:.]*>|\{\\[^}]*\}")  # <i>, <c.yellow>, <v Anna>, <00:01.5>, {\an8}


@dataclasses.dataclass(frozen=True)
class Cue:
    """One caption.

    Attributes:
        line: number of its timing line in the file, from 1.
        start, end: seconds.
        text: without mark-up, on one line; may be empty.
        problem: why it cannot be used; "" if it can.
    """

    line: int
    start: float
    end: float
    text: str
    problem: str = ""


def read(path: pathlib.Path) -> list[Cue]:
    """All cues of a file, in its order. Bad ones have a `problem`, none stops the rest.

    Raises:
        UserError: the file cannot be read, or it holds no cue at all.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"captions {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"captions {path} are not UTF-8 (byte {error.start + 1}); convert them first") from error
    lines = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    cues: list[Cue] = []
    place = 0
    while place < len(lines):
        line = lines[place]
        place += 1
        if "-->" not in line or line.lstrip().startswith("NOTE"):
            continue
        number, body = place, []
        while place < len(lines) and lines[place].strip() and "-->" not in lines[place]:
            body.append(lines[place])
            place += 1
        if place < len(lines) and "-->" in lines[place] and body and body[-1].strip().isdigit():
            body.pop()  # no blank line before the next cue: this is its number
        cues.append(_cue(number, line, body))
    if not cues:
        raise UserError(f"captions {path} hold no timed text; are they SubRip or WebVTT?")
    return cues


def beside(audio: str, folder: pathlib.Path | None = None, language: str = "") -> pathlib.Path | None:
    """The captions of an audio file: `talk.srt`, `talk.vtt`, or `talk.en.vtt` beside `talk.mp3` or in `folder`."""
    place = pathlib.Path(audio)
    where = place.parent if folder is None else folder
    endings = [*ENDINGS, *map(str.upper, ENDINGS)]
    names = [f"{place.stem}{ending}" for ending in endings]
    names += [f"{place.stem}.{language}{ending}" for ending in endings if language]
    return next((where / name for name in names if (where / name).is_file()), None)


def _cue(number: int, timing: str, body: list[str]) -> Cue:
    text = " ".join(html.unescape(_TAG.sub("", " ".join(body))).split())
    found = _TIMING.match(timing)
    if found is None:
        return Cue(number, 0.0, 0.0, text, f"not a time: {timing.strip()[:60]}")
    start, end = _seconds(*found.groups()[:3]), _seconds(*found.groups()[3:])
    if end <= start:
        return Cue(number, start, end, text, f"it ends ({end:g} s) before it begins ({start:g} s)")
    return Cue(number, start, end, text)


def _seconds(hours: str | None, minutes: str, seconds: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
