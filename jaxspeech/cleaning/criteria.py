"""What a filter asks of one utterance, judged from its line (and its audio, for a hash): the same in any process."""

import dataclasses
import functools
import math

from jaxspeech.cleaning import duplicates
from jaxspeech.cleaning.distance import distance
from jaxspeech.data.audio import AudioError
from jaxspeech.data.rows import Row
from jaxspeech.data.scripts import scripts
from jaxspeech.data.text import load_tokenizer
from jaxspeech.evaluation.normalize import normalizer


@dataclasses.dataclass(frozen=True)
class Criteria:
    """Limits; None (or "") asks nothing.

    Attributes:
        language: lines that state another one are dropped. A language that is not stated is not guessed.
        scripts: that the letters of a text may be in.
        min_seconds, max_seconds: of the duration.
        min_characters, max_characters: a second.
        tokenizer: what `data.tokenizer` takes; the next three need it.
        min_tokens, max_tokens: a second.
        frame: seconds of an encoder frame (CAIMAN: 0.06, Moonshine: 0.024): texts with more tokens than their audio
            has frames cannot be learned by a transducer that emits one token a frame, nor by CTC.
        drop_empty: drops lines without a text, which teach silence otherwise.
        pseudo: key of the pseudo-label that `text` is compared with.
        max_distance: normalised Levenshtein distance between the two.
        normalizer: of both texts in that comparison and among duplicates; what is written stays as it was.
        min_logprob: average log-probability of the pseudo-label, in the key `<pseudo>_logprob`.
        same_text, same_audio: drop duplicates by text and duration, by the samples of the audio.
    """

    language: str = ""
    scripts: frozenset[str] | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    min_characters: float | None = None
    max_characters: float | None = None
    tokenizer: str = ""
    min_tokens: float | None = None
    max_tokens: float | None = None
    frame: float | None = None
    drop_empty: bool = False
    pseudo: str = "pseudo"
    max_distance: float | None = None
    normalizer: str = "basic"
    min_logprob: float | None = None
    same_text: bool = False
    same_audio: bool = False


@dataclasses.dataclass(frozen=True)
class Judged:
    """What became of a line.

    Attributes:
        kind: "kept", "filtered" or "failed"; the first reason that holds counts.
        seconds: NaN where they are not known.
        distance, logprob: to the pseudo-label, and how probable it is, also where they are not limited; NaN without.
        id_key, text_key, audio_key: 64 bits; 0 where they say nothing.
    """

    kind: str = "kept"
    reason: str = ""
    detail: str = ""
    seconds: float = math.nan
    distance: float = math.nan
    logprob: float = math.nan
    id_key: int = 0
    text_key: int = 0
    audio_key: int = 0


FAR = "far from its pseudo-label"
IMPROBABLE = "improbable pseudo-label"


def logprob_key(pseudo: str) -> str:
    """The key of a pseudo-label's average log-probability."""
    return f"{pseudo}_logprob"


def judge(row: Row, asked: Criteria) -> Judged:
    """Judges one line."""
    if row.problem is not None:
        return Judged("failed", *row.problem)
    try:
        record = row.record()
    except AudioError as error:
        return Judged("failed", error.reason, error.detail)
    clean = normalizer(asked.normalizer).clean
    pseudo = row.row.get(asked.pseudo)
    far = distance(record.text, pseudo, clean) if isinstance(pseudo, str) else math.nan
    sure = row.row.get(logprob_key(asked.pseudo))
    sure = float(sure) if isinstance(sure, int | float) else math.nan
    known = Judged(seconds=record.duration, distance=far, logprob=sure, id_key=duplicates.key(record.id))
    wrong = _text(row, record.text, asked) or _pace(record.text, record.duration, asked) or _label(known, asked)
    if wrong is not None:
        return dataclasses.replace(known, kind="filtered", reason=wrong[0], detail=wrong[1])
    text_key = duplicates.text_key(clean(record.text)) if asked.same_text else 0
    audio_key = 0
    if asked.same_audio:
        try:
            audio_key = duplicates.audio_key(record)
        except AudioError as error:
            return dataclasses.replace(known, kind="failed", reason=error.reason, detail=error.detail)
    return dataclasses.replace(known, text_key=text_key, audio_key=audio_key)


def _text(row: Row, text: str, asked: Criteria) -> tuple[str, str] | None:
    """What is wrong with the text alone."""
    if asked.drop_empty and not text.strip():
        return "no text", ""
    stated = row.row.get("language")
    if asked.language and stated and _code(stated) != _code(asked.language):
        return "another language", stated
    if asked.scripts is not None:
        foreign = scripts(text) - asked.scripts
        if foreign:
            return "another script", ", ".join(sorted(foreign))
    return None


def _pace(text: str, seconds: float, asked: Criteria) -> tuple[str, str] | None:
    """What is wrong with the duration, and with the text for its duration."""
    if asked.min_seconds is not None and seconds < asked.min_seconds:
        return "too short", f"{seconds:.2f} s"
    if asked.max_seconds is not None and seconds > asked.max_seconds:
        return "too long", f"{seconds:.2f} s"
    counts = [("characters", len(text.strip()), asked.min_characters, asked.max_characters)]
    tokens = len(_tokenizer(asked.tokenizer).encode(text)) if asked.tokenizer else 0
    counts.append(("tokens", tokens, asked.min_tokens, asked.max_tokens))
    for unit, count, least, most in counts:
        rate = count / seconds
        if most is not None and rate > most:
            return f"too many {unit} a second", f"{rate:.1f}"
        if least is not None and count > 0 and rate < least:
            return f"too few {unit} a second", f"{rate:.1f}"
    if asked.frame is not None and tokens > int(seconds / asked.frame):
        return "text too long for its audio", f"{tokens} tokens, {int(seconds / asked.frame)} frames"
    return None


def _label(known: Judged, asked: Criteria) -> tuple[str, str] | None:
    """What the pseudo-label says against the line; a line without one has nothing against it."""
    if asked.min_logprob is not None and known.logprob < asked.min_logprob:
        return IMPROBABLE, f"{known.logprob:.2f}"
    if asked.max_distance is not None and known.distance > asked.max_distance:
        return FAR, f"{known.distance:.2f}"
    return None


def _code(language: str) -> str:
    return language.replace("_", "-").lower().split("-")[0]


_tokenizer = functools.lru_cache(maxsize=1)(load_tokenizer)
