"""The page of an inspection: what a manifest holds, in plots, and utterances to look at and listen to."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxspeech.observe import inspection_plots as plots
from jaxspeech.observe import page
from jaxspeech.observe.inspection_audio import Heard
from jaxspeech.observe.inspection_survey import UNKNOWN, Survey
from jaxspeech.observe.page import percent, text

_STYLE = """<style>
.plots{align-items:start}
.looked{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:.3rem 1rem;align-items:center}
.looked p{margin:0;overflow-wrap:anywhere}
.looked audio{width:100%}
.seen{position:relative;line-height:0}
.seen img{width:100%;height:84px;border-radius:5px}
.seen small{position:absolute;line-height:1;font-size:.68rem;color:#fff;text-shadow:0 0 3px #000,0 0 2px #000}
.why{color:var(--bad);background:var(--bad-bg);border-radius:4px;padding:0 .4em}
@media (max-width:700px){.looked{grid-template-columns:1fr}}
</style>"""


@dataclasses.dataclass(frozen=True)
class Shown:
    """An utterance on the page.

    Attributes:
        row: the object of its line; where: the file and the line.
        media: of `inspection_audio.show`.
        why: what looks wrong.
    """

    where: str
    row: Mapping[str, Any]
    seconds: float
    heard: Heard
    media: Mapping[str, Any]
    why: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Inspection:
    """All that the page says.

    Attributes:
        heard: of the utterances drawn at random.
        trouble: how many utterances have each kind of trouble, among those looked at.
    """

    title: str
    survey: Survey
    heard: list[Heard]
    random: list[Shown]
    suspicious: list[Shown]
    trouble: Mapping[str, int]


def render(found: Inspection) -> str:
    """The page as a string."""
    sections = {
        "hours": ("Hours", _hours(found.survey)),
        "durations": ("Durations and texts", _texts(found.survey)),
        "sound": ("Sound", _sound(found.heard)),
        "ledger": ("Ledger", _ledger(found)),
        "suspicious": ("Suspicious utterances", _utterances(found.suspicious, "Nothing looks wrong.")),
        "random": ("Random utterances", _utterances(found.random, "None could be used.")),
    }
    links = "".join(f'<a href="#{name}">{title}</a>' for name, (title, _) in sections.items())
    body = [_STYLE, _header(found, links)]
    body += [page.section(name, title, parts) for name, (title, parts) in sections.items()]
    return page.document(f"{found.title} · jaxspeech", "\n".join(body))


def numbers(found: Inspection) -> list[tuple[str, list[str]]]:
    """Rows of the table of quantiles: name, then 5 %, median, 95 %, least, most."""
    survey, heard = found.survey, [one for one in found.heard if one.problem is None]
    said = survey.characters > 0
    columns: list[tuple[str, np.ndarray, str]] = [
        ("duration (s)", survey.seconds, ".2f"),
        ("characters", survey.characters, ".0f"),
        ("characters a second", survey.rates()[said], ".1f"),
    ]
    if (survey.tokens >= 0).all():
        columns.append(("tokens a second", (survey.tokens / survey.seconds)[said], ".1f"))
    if heard:
        columns += [
            ("peak (dB)", np.array([one.peak for one in heard]), ".1f"),
            ("level of speech (dB)", np.array([one.level for one in heard]), ".1f"),
            ("speech above noise (dB)", np.array([one.above_floor for one in heard]), ".1f"),
            ("pauses (%)", 100 * np.array([one.silence for one in heard]), ".0f"),
            ("clipped samples (%)", 100 * np.array([one.clipped for one in heard]), ".3f"),
            ("bandwidth (kHz)", np.array([one.bandwidth for one in heard]) / 1000, ".1f"),
        ]
    return [
        (name, [format(value, form) for value in np.quantile(values, (0, 0.05, 0.5, 0.95, 1))])
        for name, values, form in columns
        if len(values)
    ]


def rates(heard: list[Heard]) -> dict[str, int]:
    """How many files have which rate and channels, most first."""
    counts: dict[str, int] = {}
    for one in heard:
        if one.problem is None:
            channels = {1: "mono", 2: "stereo"}.get(one.channels, f"{one.channels} channels")
            name = f"{one.rate / 1000:g} kHz {channels}"
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: -pair[1]))


def _header(found: Inspection, links: str) -> str:
    survey = found.survey
    tiles = [page.tile(f"{len(survey):,}", "utterances"), page.tile(f"{survey.hours:,.3g} h", "audio")]
    if len(survey):
        tiles.append(page.tile(f"{survey.seconds.mean():.1f} s", "mean duration (14.2 s in Moonshine's paper)"))
    for column, label in (("speaker", "speakers"), ("language", "languages")):
        known = [name for name in survey.values[column] if name != UNKNOWN]
        tiles.append(page.tile(f"{len(known):,}" if known else UNKNOWN, label if known else f"{label} not told"))
    kinds = rates(found.heard)
    if kinds:
        share = next(iter(kinds.values())) / sum(kinds.values())
        tiles.append(
            page.tile(next(iter(kinds)), "all files heard" if len(kinds) == 1 else f"{percent(share)} of files")
        )
    tiles.append(page.tile(f"{survey.failed.total():,}", f"of {survey.read:,} lines cannot be used"))
    heard = f"{len(found.heard):,} utterances drawn at random were decoded" if found.heard else "no audio was decoded"
    names = ", ".join(manifest.path for manifest in survey.manifests)
    return (
        f'<header><h1>{text(found.title)}</h1><p class="sub">{text(names)} · {heard}</p>'
        f'<nav>{links}</nav><div class="tiles">{"".join(tiles)}</div></header>'
    )


def _hours(survey: Survey) -> Iterator[str]:
    yield '<div class="plots">'
    for place, column in enumerate(("set", "language", "script", "speaker")):
        named = survey.hours_by(column)
        if column == "script":
            named = {name or "no letters": value for name, value in named.items()}
        named = {"not told" if name == UNKNOWN else name: value for name, value in named.items()}
        if len(named) > 1:
            yield page.plot(f"By {column}", plots.hours(named, place))
    yield "</div>"
    single = [
        f"{column} {next(iter(survey.values[column]))}"
        for column in ("language", "script", "speaker")
        if len(survey.values[column]) == 1 and survey.values[column][0] not in (UNKNOWN, "")
    ]
    untold = [column for column in ("language", "speaker") if survey.values[column] == [UNKNOWN]]
    if single:
        yield page.none(f"All have {', '.join(single)}.")
    if untold:
        yield page.none(f"The lines tell no {' and no '.join(untold)}.")


def _texts(survey: Survey) -> Iterator[str]:
    if not len(survey):
        yield page.none("No line can be used.")
        return
    said = survey.characters > 0
    yield '<div class="plots">'
    yield page.plot("Durations", plots.durations(survey.seconds), "longer than 31 s: in the last bin")
    yield page.plot("Length of the texts", plots.distribution(survey.characters, "characters", 2))
    if said.any():
        yield page.plot("Speed of the texts", plots.distribution(survey.rates()[said], "characters a second", 2))
    if (survey.tokens >= 0).all() and said.any():
        tokens = (survey.tokens / survey.seconds)[said]
        yield page.plot("Speed in tokens", plots.distribution(tokens, "tokens a second", 2))
    yield "</div>"
    if not said.all():
        yield page.none(f"Without any text: {int((~said).sum()):,} of {len(said):,} utterances.")


def _sound(every: list[Heard]) -> Iterator[str]:
    heard = [one for one in every if one.problem is None]
    if not heard:
        yield page.none("No audio was decoded.")
        return
    clipped = sum(one.clipped > 1e-3 for one in heard)
    drawn = [
        ("Peak", [one.peak for one in heard], "dB of full scale", (-60.0, 0.0), ""),
        ("Level of the speech", [one.level for one in heard], "dB of full scale", (-60.0, 0.0), "without pauses"),
        (
            "Speech above noise",
            [one.above_floor for one in heard],
            "dB",
            (0.0, 100.0),
            "95th over 10th percentile of the level",
        ),
        ("Pauses", [100 * one.silence for one in heard], "share of the utterance (%)", (0.0, 100.0), ""),
        (
            "Clipping",
            [100 * one.clipped for one in heard],
            "samples in flat tops (%)",
            (0.0, max(1.0, 100 * max(one.clipped for one in heard))),
            f"{clipped:,} of {len(heard):,} above 0.1 %",
        ),
        ("Bandwidth", [one.bandwidth / 1000 for one in heard], "kHz", None, "60 dB under the maximum"),
    ]
    yield '<div class="plots">'
    for title, values, unit, limits, remark in drawn:
        yield page.plot(title, plots.distribution(np.array(values), unit, 3, limits), remark)
    yield "</div>"
    kinds = rates(heard)
    total = sum(kinds.values())
    yield "<h3>Files</h3>"
    yield page.table(
        ["rate and channels", "utterances", "share"],
        [[name, f"{count:,}", percent(count / total)] for name, count in kinds.items()],
    )


def _ledger(found: Inspection) -> Iterator[str]:
    survey = found.survey
    entries = [("read", survey.read), ("can be used", len(survey))]
    entries += [(f"failed: {reason}", count) for reason, count in survey.failed.most_common()]
    yield page.table(
        ["lines", "count", "share"],
        [[name, f"{count:,}", f"{100 * count / max(survey.read, 1):.2f} %"] for name, count in entries],
    )
    if survey.failures:
        listed = "\n".join(f"{where}: {reason}: {detail}" for where, reason, detail in survey.failures)
        count = len(survey.failures)
        yield f"<details><summary>failures by name ({count})</summary><pre>{text(listed)}</pre></details>"
    yield "<h3>Numbers</h3>"
    head = ["", "least", "5 %", "median", "95 %", "most"]
    yield page.table(head, [[name, *values] for name, values in numbers(found)])
    if found.trouble:
        yield "<h3>What looks wrong</h3>"
        rows = [[name, f"{count:,}"] for name, count in found.trouble.items()]
        yield page.table(["kind", "utterances"], rows)


def _utterances(shown: list[Shown], nothing: str) -> Iterator[str]:
    if not shown:
        yield page.none(nothing)
    for one in shown:
        yield _utterance(one)


def _utterance(one: Shown) -> str:
    heard, media = one.heard, one.media
    facts = [f"<b>{text(one.row.get('id', '?'))}</b>", text(one.where), f"{one.seconds:.2f} s"]
    if heard.problem is None and heard.rate:
        facts += [f"{heard.rate / 1000:g} kHz", f"peak {heard.peak:.0f} dB", f"pauses {100 * heard.silence:.0f} %"]
    facts += [text(one.row[key]) for key in ("speaker", "language") if one.row.get(key)]
    reasons = "".join(f'<span class="why">{text(reason)}</span>' for reason in one.why)
    parts = [f'<div class="facts">{"".join(f"<span>{fact}</span>" for fact in facts)}{reasons}</div>']
    said = text(one.row.get("text", "")) or '<span class="none">no text</span>'
    left = f"<p>{said}</p>"
    right = ""
    if media:
        cut = "" if media["whole"] else f'<small class="none">the first {media["seconds"]:.0f} s</small>'
        left += f'<audio controls preload="metadata" src="{media["clip"]}"></audio>{cut}'
        right = (
            f'<div class="seen"><img alt="spectrogram" src="{media["picture"]}">'
            f'<small style="left:4px;top:4px">{media["rate"] / 2000:g} kHz</small>'
            f'<small style="right:4px;bottom:4px">{media["seconds"]:.1f} s</small></div>'
        )
    parts.append(f'<div class="looked"><div>{left}</div>{right}</div>')
    return f'<div class="utterance">{"".join(parts)}</div>'
