"""The lines of a manifest as recordings: for each its pieces in the order of time, from lines, captions or words."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from jaxspeech.cleaning import captions, pieces
from jaxspeech.cleaning.duplicates import key
from jaxspeech.cleaning.outcome import Outcome
from jaxspeech.cleaning.pieces import Piece, Word
from jaxspeech.data import rows
from jaxspeech.data.audio import AudioError
from jaxspeech.data.rows import Row, Rows
from jaxspeech.errors import UserError

_MARGIN = 0.15  # seconds of a pause that stay with the words beside it: word times are tight


@dataclasses.dataclass(frozen=True)
class Cutting:
    """How lines become pieces.

    Attributes:
        by: lines that agree in this key follow one another, in the order of the manifest; None: lines of one file and
            channel do, by their offsets.
        file_gap: seconds of silence between files, with `by`.
        longest: lines longer than this, in seconds, are cut at pauses between their words.
        word_gap: seconds of such a pause.
        captioned: the lines are recordings with captions, beside the audio or in `folder`.
    """

    by: str | None = None
    file_gap: float = 0.2
    longest: float = 30.0
    word_gap: float = 0.3
    captioned: bool = False
    folder: pathlib.Path | None = None


def recordings(manifest: Rows, cutting: Cutting, outcome: Outcome, processes: int = 0) -> Iterator[list[Piece]]:
    """The pieces of each recording by time; recordings in the order of their first line.

    Lines and captions that cannot be used are entered in the outcome. Memory holds 16 bytes a line and one recording.
    """
    keys, starts = np.zeros(len(manifest), np.int64), np.zeros(len(manifest))
    locate = functools.partial(_locate, by=cutting.by)
    for place, found in enumerate(rows.each(locate, manifest, processes=processes, what=manifest.name)):
        keys[place], starts[place] = found
    order = np.lexsort((np.arange(len(keys)), starts, keys))
    groups = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    for places in sorted(groups, key=lambda group: int(group.min())):
        clock = 0.0
        found_pieces: list[Piece] = []
        for place in places:
            own = _pieces(manifest[int(place)], cutting, clock, outcome)
            found_pieces += own
            if cutting.by and own:
                clock = own[-1].end + cutting.file_gap
        if found_pieces:
            yield sorted(found_pieces, key=lambda piece: piece.start)


def _locate(row: Row, by: str | None) -> tuple[int, float]:
    """Which recording a line belongs to (a key), and where it stands there."""
    name = row.row.get(by) if by else None
    if name is not None:
        return key(f"{by}={name}"), float(row.place)
    if by or row.problem is not None or row.row.get("segments") is not None:
        return key(row.where), 0.0  # a recording of its own
    return key(f"{row.row.get('channel')} {row.row['audio']}"), float(row.row.get("offset") or 0.0)


def _pieces(row: Row, cutting: Cutting, clock: float, outcome: Outcome) -> list[Piece]:
    """The pieces of a line. `clock` is where it begins on its recording's time line, where files follow one another."""
    if row.problem is not None:
        outcome.reject(row, *row.problem, kind="failed")
        return []
    try:
        record = row.record()
    except AudioError as error:
        outcome.reject(row, error.reason, error.detail, kind="failed")
        return []
    segments = pieces.timed(record)
    alone = len(segments) == 1 and not cutting.by
    start = segments[0].offset - segments[0].gap if alone else clock
    words = row.row.get("words")
    timed = None if words is None else tuple((word, float(begin), float(end)) for word, begin, end in words)
    whole = Piece(start, start + record.duration, record.text, segments, row.row, row, timed)
    if cutting.captioned:
        return _cues(whole, cutting, outcome)
    if timed and record.duration > cutting.longest:
        return _phrases(whole, cutting)
    return [whole]


def _cues(whole: Piece, cutting: Cutting, outcome: Outcome) -> list[Piece]:
    """A recording as its captions; times of captions count from the beginning of what is played."""
    row = whole.whence
    path = captions.beside(whole.segments[0].audio, cutting.folder, row.row.get("language") or "")
    if path is None:
        outcome.reject(row, "no captions", whole.segments[0].audio, kind="failed", seconds=whole.seconds)
        return []
    try:
        cues = captions.read(path)
    except UserError as error:
        outcome.reject(row, "bad captions", str(error), kind="failed", seconds=whole.seconds)
        return []
    found = []
    for number, cue in enumerate(cues):
        own = {name: value for name, value in row.row.items() if name not in ("words", "translation")}
        own |= {"id": f"{row.row['id']}-{number:04d}", "text": cue.text}
        whence = Row(row.place, f"{path.name}:{cue.line}", own)
        end = min(cue.end, whole.seconds)
        if cue.problem:
            outcome.reject(whence, "bad caption", cue.problem, kind="failed")
        elif not cue.text:
            outcome.reject(whence, "no text", seconds=cue.end - cue.start)
        elif end <= cue.start:
            outcome.reject(whence, "beyond the end", f"{cue.start:g} of {whole.seconds:g} s", kind="failed")
        else:
            heard = pieces.stretch(whole.segments, cue.start, end)
            found.append(Piece(whole.start + cue.start, whole.start + end, cue.text, heard, own, whence))
    return found


def _phrases(whole: Piece, cutting: Cutting) -> list[Piece]:
    """A long line as phrases, each within the longest that an instance may be."""
    groups = [
        part
        for said, timed in pieces.phrases(whole.words or (), whole.text, cutting.word_gap)
        for part in _within(said.split() if len(said.split()) == len(timed) else None, timed, cutting.longest)
    ]
    found = []
    before = 0.0  # where the last phrase ended
    for number, (text, timed) in enumerate(groups):
        first, last = timed[0][1], timed[-1][2]
        following = groups[number + 1][1][0][1] if number + 1 < len(groups) else whole.seconds
        start = max(before, first - _MARGIN)
        end = min(last + min(_MARGIN, max(0.0, following - last) / 2), whole.seconds)
        before = end
        own = {name: value for name, value in whole.row.items() if name not in ("words", "translation")}
        own |= {"id": f"{whole.row['id']}-{number:04d}", "text": text}
        words = tuple((word, begin - start, min(stop, end) - start) for word, begin, stop in timed)
        whence = Row(whole.whence.place, whole.whence.where, own)
        heard = pieces.stretch(whole.segments, start, end)
        found.append(Piece(whole.start + start, whole.start + end, text, heard, own, whence, words))
    return found


def _within(said: list[str] | None, timed: Sequence[Word], longest: float) -> list[tuple[str, list[Word]]]:
    """Words cut at their longest pauses until each part is short enough."""
    texts = said if said is not None else [word for word, _, _ in timed]
    if timed[-1][2] - timed[0][1] + 2 * _MARGIN <= longest or len(timed) == 1:
        return [(pieces.join(texts), list(timed))]
    gaps = [after[1] - before[2] for before, after in itertools.pairwise(timed)]
    # Of pauses that are as long, the one nearest to the middle.
    cut = 1 + max(range(len(gaps)), key=lambda i: (round(gaps[i], 3), -abs(i + 1 - len(timed) / 2)))
    return _within(texts[:cut], timed[:cut], longest) + _within(texts[cut:], timed[cut:], longest)
