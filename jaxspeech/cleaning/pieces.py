"""Timed pieces of a recording: what segments, captions or words become before they are combined or split."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from jaxspeech.data.record import Record, Segment
from jaxspeech.data.rows import Row
from jaxspeech.evaluation.normalize import join

Word = tuple[str, float, float]
_SAME = 1e-3  # seconds: closer ends are one place


@dataclasses.dataclass(frozen=True)
class Piece:
    """A stretch of a recording with what is said in it.

    Attributes:
        start, end: seconds on the time line of the recording.
        text: as written.
        segments: what is played.
        words: times in seconds from `start`; None where they are not known.
        row: the line that it is from, with an id of its own.
        whence: what it is counted as.
    """

    start: float
    end: float
    text: str
    segments: tuple[Segment, ...]
    row: dict[str, Any]
    whence: Row
    words: tuple[Word, ...] | None = None

    @property
    def seconds(self) -> float:
        return self.end - self.start


def joined(pieces: Sequence[Piece]) -> Piece:
    """Successive pieces as one. Pieces of one file become one stretch of it, with the sound of the gaps between them;
    pieces of several files are played one after the other, with gaps of silence."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return first
    end = max(piece.end for piece in pieces)
    sources = {(s.audio, s.channel) for piece in pieces for s in piece.segments}
    if len(sources) == 1 and all(len(piece.segments) == 1 for piece in pieces) and _one_clock(pieces):
        start = first.segments[0]
        segments: tuple[Segment, ...] = (dataclasses.replace(start, duration=end - first.start),)
    else:
        segments = first.segments
        for before, piece in itertools.pairwise(pieces):
            gap = max(0.0, piece.start - before.end)
            head = dataclasses.replace(piece.segments[0], gap=piece.segments[0].gap + gap)
            segments = (*segments, head, *piece.segments[1:])
        end = first.start + sum(segment.gap + (segment.duration or 0.0) for segment in segments)
    words: tuple[Word, ...] | None = None
    if all(piece.words is not None for piece in pieces):
        moved = ((piece.words or (), piece.start - first.start) for piece in pieces)
        words = tuple((word, start + by, stop + by) for every, by in moved for word, start, stop in every)
    # What all of them agree on holds for the whole.
    row = {key: value for key, value in first.row.items() if all(p.row.get(key) == value for p in pieces)}
    translations = [piece.row.get("translation") for piece in pieces]
    if all(isinstance(translation, str) for translation in translations):
        row["translation"] = join([str(translation) for translation in translations])
    row["id"] = f"{first.row['id']}+{last.row['id']}"
    return Piece(first.start, end, join([piece.text for piece in pieces]), segments, row, first.whence, words)


def stretch(segments: Sequence[Segment], start: float, stop: float) -> tuple[Segment, ...]:
    """What is played from `start` to `stop` seconds of segments that are played one after the other.

    Every segment must have a duration. A cut within a gap keeps the part of the silence that is inside.
    """
    found = []
    clock = 0.0
    for segment in segments:
        length = segment.duration or 0.0
        begin = clock + segment.gap  # of the sound
        inside = max(start, begin), min(stop, begin + length)
        if inside[1] - inside[0] > _SAME:
            gap = begin - max(start, clock) if start < begin else 0.0
            found.append(
                dataclasses.replace(
                    segment,
                    offset=segment.offset + inside[0] - begin,
                    duration=inside[1] - inside[0],
                    gap=gap if gap > _SAME else 0.0,
                )
            )
        clock = begin + length
    return tuple(found)


def phrases(words: Sequence[Word], text: str, pause: float) -> list[tuple[str, list[Word]]]:
    """Words in groups that a pause of so many seconds sets apart, each with its text.

    The text of the line has case and punctuation, which timed words often lack: where it has as many words as there
    are times, it is cut at the same places; else the timed words are the text.
    """
    written = text.split()
    spelt = written if len(written) == len(words) else [word for word, _, _ in words]
    groups: list[tuple[list[str], list[Word]]] = []
    for said, word in zip(spelt, words):
        if groups and word[1] - groups[-1][1][-1][2] < pause:
            groups[-1][0].append(said)
            groups[-1][1].append(word)
        else:
            groups.append(([said], [word]))
    return [(join(texts), timed) for texts, timed in groups]


def to_row(piece: Piece) -> dict[str, Any]:
    """The object of a manifest line, with absolute paths and times to the microsecond."""
    row = {key: value for key, value in piece.row.items() if key not in _OWN}
    found: dict[str, Any] = {"id": piece.row["id"]}
    if len(piece.segments) == 1 and not piece.segments[0].gap:
        found |= _segment(piece.segments[0])
    else:
        found["segments"] = [_segment(segment) for segment in piece.segments]
    length = sum(segment.gap + (segment.duration or 0.0) for segment in piece.segments)
    found |= {"text": piece.text, "duration": round(length, 6)} | row
    if piece.words is not None:
        found["words"] = [[word, round(start, 3), round(stop, 3)] for word, start, stop in piece.words]
    return found


def timed(record: Record) -> tuple[Segment, ...]:
    """The segments of a record, each with its duration: that of a whole file is the record's."""
    rest = record.duration - sum(segment.gap + (segment.duration or 0.0) for segment in record.segments)
    return tuple(
        dataclasses.replace(segment, duration=rest) if segment.duration is None else segment
        for segment in record.segments
    )


_OWN = ("id", "audio", "offset", "channel", "segments", "text", "duration", "words")


def _segment(segment: Segment) -> dict[str, Any]:
    found: dict[str, Any] = {"audio": segment.audio, "offset": round(segment.offset, 6)}
    found["duration"] = round(segment.duration or 0.0, 6)
    if segment.gap:
        found["gap"] = round(segment.gap, 6)
    if segment.channel is not None:
        found["channel"] = segment.channel
    return found


def _one_clock(pieces: Sequence[Piece]) -> bool:
    """Whether times on the recording's line are times in the file, shifted by the same for all pieces."""
    if any(piece.segments[0].gap for piece in pieces):
        return False
    shifts = [piece.start - piece.segments[0].offset for piece in pieces]
    return max(shifts) - min(shifts) < _SAME
