"""What the lines of manifests tell without their audio, as columns: durations, texts, speakers, languages, scripts."""

import array
import collections
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from jaxspeech.data import rows
from jaxspeech.data.audio import AudioError
from jaxspeech.data.rows import Row, Rows
from jaxspeech.data.scripts import scripts
from jaxspeech.data.text import load_tokenizer

UNKNOWN = "–"
_SHOWN = 20  # failures by name, per reason


@dataclasses.dataclass(frozen=True)
class Line:
    """One line, measured.

    Attributes:
        seconds: NaN where they are not known.
        tokens: -1 without a tokenizer.
        scripts: of the text, joined with "+": "Latin"; "" where there are no letters.
        problem: (reason, detail) where it cannot be used.
    """

    seconds: float = np.nan
    characters: int = 0
    words: int = 0
    tokens: int = -1
    speaker: str = UNKNOWN
    language: str = UNKNOWN
    scripts: str = ""
    problem: tuple[str, str] | None = None


@dataclasses.dataclass
class Survey:
    """All lines of the manifests that can be used; line i is `places[i]` of the manifest `manifests[sets[i]]`.

    Attributes:
        names: of the manifests, as the page calls them.
        sets, places, characters, words, tokens: int64[n]; seconds: float64[n].
        speakers, languages, scripts: number[n] of each line's value in `values[column]`.
        failed: how many could not be used, by reason.
        failures: some of them: (where, reason, detail).
    """

    manifests: list[Rows]
    names: list[str]
    sets: np.ndarray
    places: np.ndarray
    seconds: np.ndarray
    characters: np.ndarray
    words: np.ndarray
    tokens: np.ndarray
    speakers: np.ndarray
    languages: np.ndarray
    scripts: np.ndarray
    values: dict[str, list[str]]
    failed: collections.Counter[str]
    failures: list[tuple[str, str, str]]

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def read(self) -> int:
        return len(self) + self.failed.total()

    @property
    def hours(self) -> float:
        return float(self.seconds.sum()) / 3600

    def row(self, index: int) -> Row:
        return self.manifests[self.sets[index]][int(self.places[index])]

    def hours_by(self, column: str) -> dict[str, float]:
        """Hours of each set, speaker, language or script, most first."""
        numbers = {"set": self.sets, "speaker": self.speakers, "language": self.languages, "script": self.scripts}
        names = self.names if column == "set" else self.values[column]
        hours = np.bincount(numbers[column], self.seconds, len(names)) / 3600
        return {names[i]: float(hours[i]) for i in np.argsort(-hours, kind="stable")}

    def rates(self) -> np.ndarray:
        """float64[n]: characters a second."""
        return self.characters / self.seconds


def survey(manifests: Sequence[Rows], tokenizer: str = "", processes: int = 0) -> Survey:
    """Measures every line; durations that no line states are read from the headers.

    Args:
        tokenizer: what `data.tokenizer` takes; "" counts no tokens.
    """
    names = _names(manifests)
    failed: collections.Counter[str] = collections.Counter()
    failures: list[tuple[str, str, str]] = []
    known: dict[str, dict[str, int]] = {name: {} for name in ("speaker", "language", "script")}
    seconds = array.array("d")
    whole = {name: array.array("q") for name in ("set", "place", "characters", "words", "tokens", *known)}
    measure = functools.partial(_measure, tokenizer=tokenizer)
    for number, manifest in enumerate(manifests):
        for place, line in enumerate(rows.each(measure, manifest, processes=processes, what=names[number])):
            if line.problem is not None:
                failed[line.problem[0]] += 1
                if failed[line.problem[0]] <= _SHOWN:
                    failures.append((manifest.where(place), *line.problem))
                continue
            seconds.append(line.seconds)
            counts = (number, place, line.characters, line.words, line.tokens)
            for name, count in zip(whole, counts):
                whole[name].append(count)
            for name, value in zip(known, (line.speaker, line.language, line.scripts)):
                whole[name].append(known[name].setdefault(value, len(known[name])))
    column = {name: np.array(values, np.int64) for name, values in whole.items()}
    return Survey(
        manifests=list(manifests),
        names=names,
        sets=column["set"],
        places=column["place"],
        seconds=np.array(seconds, np.float64),
        characters=column["characters"],
        words=column["words"],
        tokens=column["tokens"],
        speakers=column["speaker"],
        languages=column["language"],
        scripts=column["script"],
        values={name: list(numbers) for name, numbers in known.items()},
        failed=failed,
        failures=failures,
    )


def _measure(row: Row, tokenizer: str) -> Line:
    if row.problem is not None:
        return Line(problem=row.problem)
    try:
        seconds = row.record().duration
    except AudioError as error:
        return Line(problem=(error.reason, error.detail))
    text = row.row["text"]
    tokens = len(_tokenizer(tokenizer).encode(text)) if tokenizer else -1
    return Line(
        seconds,
        len(text.strip()),
        len(text.split()),
        tokens,
        row.row.get("speaker") or UNKNOWN,
        row.row.get("language") or UNKNOWN,
        "+".join(sorted(scripts(text))),
    )


_tokenizer = functools.lru_cache(maxsize=1)(load_tokenizer)


def _names(manifests: Sequence[Rows]) -> list[str]:
    """File names without ending; with their folder where two are the same."""
    plain = [manifest.name.removesuffix(".jsonl") for manifest in manifests]
    full = ["/".join(manifest.path.removesuffix(".jsonl").split("/")[-2:]) for manifest in manifests]
    return [long if plain.count(short) > 1 else short for short, long in zip(plain, full)]
