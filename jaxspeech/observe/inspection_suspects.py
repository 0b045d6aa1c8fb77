"""Utterances of a manifest that look wrong, each with what is wrong in words; of every kind the worst first."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from jaxspeech.observe.inspection_audio import Heard
from jaxspeech.observe.inspection_survey import Survey

_FAR = 5.0  # robust standard deviations of the logarithm of a text rate
_RARE = 0.02  # share of the utterances that are in a script


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that looks wrong.

    Attributes:
        index: of the utterance in the survey.
        kind: a short phrase; findings of one kind are ordered by `score`, worst highest.
        words: what is wrong with this one.
    """

    index: int
    kind: str
    score: float
    words: str


def by_text(survey: Survey) -> list[Finding]:
    """What the lines alone tell: too much or too little text for the time, rare scripts, odd durations."""
    found: list[Finding] = []
    said = survey.characters > 0
    rates = np.where(said, survey.rates(), np.nan)
    counts = np.bincount(survey.scripts, minlength=len(survey.values["script"]))
    for number, name in enumerate(survey.values["script"]):
        members = np.flatnonzero((survey.scripts == number) & said)
        if len(members) == 0:
            continue
        if counts[number] < _RARE * len(survey):
            found += [Finding(int(i), "rare script", 1.0, f"in {name or 'no letters'}") for i in members[:100]]
        if len(members) < 20:
            continue
        # Scripts differ in how much a character says: each is compared with its like.
        logs = np.log(rates[members])
        median = float(np.median(logs))
        spread = 1.4826 * float(np.median(np.abs(logs - median))) + 0.05
        usual = f"usual are {np.exp(median):.0f}"
        for i, far in zip(members, (logs - median) / spread):
            if abs(far) > _FAR:
                kind = "much text" if far > 0 else "little text"
                words = f"{rates[i]:.3g} characters a second, {usual}"
                found.append(Finding(int(i), kind, abs(float(far)), words))
    for i in np.flatnonzero(~said)[:100]:
        found.append(Finding(int(i), "no text", 1.0, "has no text"))
    for i in np.flatnonzero(survey.seconds > 30.5):
        found.append(Finding(int(i), "long", float(survey.seconds[i]), f"{survey.seconds[i]:,.0f} s long"))
    for i in np.flatnonzero(survey.seconds < 0.1):
        found.append(Finding(int(i), "short", 1 / float(survey.seconds[i]), f"{survey.seconds[i]:.3f} s short"))
    return found


def by_sound(index: int, heard: Heard, empty_text: bool) -> Iterator[Finding]:
    """What listening to an utterance tells."""

    def finding(kind: str, score: float, words: str) -> Finding:
        return Finding(index, kind, score, words)

    if heard.problem is not None:
        reason, detail = heard.problem
        yield finding("unreadable", 1.0, f"cannot be decoded: {reason} ({detail})")
        return
    if heard.peak < -60:
        if not empty_text:
            yield finding("silence", -heard.peak, f"has a text but is silent: peak {heard.peak:.0f} dB")
        return
    if heard.clipped > 1e-3:
        yield finding("clipped", heard.clipped, f"clipped: {100 * heard.clipped:.2g} % of samples in flat tops")
    if heard.level < -45:
        yield finding("quiet", -heard.level, f"quiet: {heard.level:.0f} dB")
    if heard.silence > 0.7:
        yield finding("pauses", heard.silence, f"{100 * heard.silence:.0f} % pauses")
    if max(heard.lead, heard.trail) > 2:
        where = "beginning" if heard.lead > heard.trail else "end"
        longest = max(heard.lead, heard.trail)
        yield finding("long pause", longest, f"{longest:.1f} s of pause at the {where}")
    if heard.empty_channel:
        yield finding("empty channel", 1.0, f"one of {heard.channels} channels is silent")
    if heard.rate >= 16000 and heard.bandwidth < 4200:
        words = f"nothing above {heard.bandwidth / 1000:.1f} kHz in a file of {heard.rate / 1000:g} kHz"
        yield finding("narrowband", 1 / heard.bandwidth, words)
    if heard.above_floor < 10:
        yield finding("noise", -heard.above_floor, f"speech is {heard.above_floor:.0f} dB above the noise")


def worst(findings: list[Finding], count: int) -> list[tuple[int, list[str]]]:
    """Up to `count` utterances with all that is wrong with them: the worst of each kind, then the second worst, …

    One kind that is everywhere does not fill the page.
    """
    kinds: dict[str, list[Finding]] = {}
    words: dict[int, list[str]] = {}
    for found in findings:
        kinds.setdefault(found.kind, []).append(found)
        words.setdefault(found.index, []).append(found.words)
    for kind in kinds.values():
        kind.sort(key=lambda found: -found.score)
    chosen: dict[int, list[str]] = {}
    for turn in itertools.zip_longest(*kinds.values()):
        for entry in turn:
            if entry is not None and len(chosen) < count:
                chosen.setdefault(entry.index, words[entry.index])
    return list(chosen.items())


def kinds(findings: list[Finding]) -> Mapping[str, int]:
    """How many utterances have each kind of trouble, most first."""
    counts: dict[str, int] = {}
    for _, kind in {(found.index, found.kind) for found in findings}:
        counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
