"""`jaxspeech prepare inspect MANIFEST…`: one HTML page about what manifests hold, and the same as a table."""

import argparse
import functools
import os
import pathlib
from typing import Any

import numpy as np

from jaxspeech.data import rows
from jaxspeech.data.rows import Rows
from jaxspeech.errors import UserError
from jaxspeech.observe import inspection_suspects as suspects
from jaxspeech.observe.inspection_audio import Heard, hear, show
from jaxspeech.observe.inspection_page import Inspection, Shown, numbers, rates, render
from jaxspeech.observe.inspection_survey import UNKNOWN, Survey, survey
from jaxspeech.observe.page import write_page

SHOWN = 20
_MOST_BYTES = 11 << 20  # of all clips before base64: the page stays under 20 MB
_OUTLIERS = 60  # lines that look wrong by their text are listened to as well


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST", help="manifests; each is a set on the page")
    parser.add_argument("--out", metavar="PAGE.html", help="where to write the page (default: beside the manifest)")
    parser.add_argument(
        "--sample", type=int, default=500, metavar="N", help="utterances to decode, drawn at random (500)"
    )
    parser.add_argument("--tokenizer", default="", metavar="SPEC", help="counts tokens a second with this tokenizer")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other utterances (0)")
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="that decode (one a core, up to 8)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Writes the page, prints the table, and returns the same for `--json`."""
    if args.sample < 0:
        raise UserError(f"--sample {args.sample}: give 0 (decode nothing) or more")
    manifests = [Rows(path) for path in args.manifests]
    first = pathlib.Path(manifests[0].path)
    out = pathlib.Path(args.out) if args.out else first.with_suffix(".html")
    if os.path.realpath(out) in {os.path.realpath(manifest.path) for manifest in manifests}:
        raise UserError(f"--out {out} is the manifest that is read; give the page another name")
    found = inspect(manifests, args.tokenizer, args.sample, args.seed, args.processes)
    write_page(out, render(found), "page")
    print(table(found))
    print(f"\n{out}: {out.stat().st_size / 1e6:.1f} MB")
    return summary(found) | {"page": str(out)}


def inspect(
    manifests: list[Rows], tokenizer: str = "", sample: int = 500, seed: int = 0, processes: int = 0
) -> Inspection:
    """Measures all lines, decodes some utterances, and picks those to show.

    Args:
        tokenizer: what `data.tokenizer` takes; "" counts no tokens.
        sample: how many utterances, drawn at random, are decoded. The statistics of sound are of these alone.
        processes: that work; 0: one a core, at most 8.
    """
    known = survey(manifests, tokenizer, processes)
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(len(known), min(sample, len(known)), replace=False)) if len(known) else np.zeros(0, int)
    findings = suspects.by_text(known)
    odd = [index for index, _ in suspects.worst(findings, min(_OUTLIERS, sample))]
    sounds = dict(_listen(known, sorted({*drawn.tolist(), *odd}), processes))
    for index, heard in sounds.items():
        findings += suspects.by_sound(index, heard, not known.characters[index])
    suspicious = suspects.worst([f for f in findings if f.index in sounds], SHOWN)
    random = rng.permutation(drawn)[:SHOWN].tolist()
    budget = _MOST_BYTES // max(len(random) + len(suspicious), 1)
    chosen: list[tuple[int, list[str]]] = [(index, []) for index in random] + suspicious
    media = dict(_present(known, sorted({index for index, _ in chosen}), budget, processes))
    pictures = [_shown(known, sounds, media, index, why) for index, why in chosen]
    return Inspection(
        title=" + ".join(known.names),
        survey=known,
        heard=[sounds[index] for index in drawn.tolist()],
        random=pictures[: len(random)],
        suspicious=pictures[len(random) :],
        trouble=suspects.kinds(findings),
    )


def table(found: Inspection) -> str:
    """What the page says, for a terminal."""
    known = found.survey
    lines = [
        f"{len(known):,} utterances, {known.hours:,.2f} h; {known.failed.total():,} of {known.read:,} lines failed"
    ]
    lines += [f"  failed: {reason}: {count:,}" for reason, count in known.failed.most_common()]
    for column in ("set", "language", "script", "speaker"):
        hours = {name or "no letters": value for name, value in known.hours_by(column).items()}
        if list(hours) != [UNKNOWN]:
            shown = ", ".join(f"{name} {value:,.3g} h" for name, value in list(hours.items())[:8])
            more = f", … ({len(hours):,} in all)" if len(hours) > 8 else ""
            lines.append(f"by {column}: {shown}{more}")
    if found.heard:
        kinds = ", ".join(f"{name}: {count:,}" for name, count in rates(found.heard).items())
        lines.append(f"files, of {len(found.heard):,} heard: {kinds}")
    head = ["", "least", "5 %", "median", "95 %", "most"]
    lines += ["", f"{head[0]:<26}" + "".join(f"{cell:>10}" for cell in head[1:])]
    lines += [f"{name:<26}" + "".join(f"{cell:>10}" for cell in cells) for name, cells in numbers(found)]
    if found.trouble:
        lines += ["", "what looks wrong: " + ", ".join(f"{kind} {count:,}" for kind, count in found.trouble.items())]
    for one in found.suspicious[:8]:
        lines.append(f"  {one.where} {one.row.get('id', '?')}: {'; '.join(one.why)}")
    return "\n".join(lines)


def summary(found: Inspection) -> dict[str, Any]:
    """What `--json` prints. Nothing is filtered by looking at it."""
    known = found.survey
    quantiles = {
        name: dict(zip(("least", "5%", "median", "95%", "most"), map(float, cells))) for name, cells in numbers(found)
    }
    return {
        "read": known.read,
        "kept": len(known),
        "filtered": {},
        "failed": dict(sorted(known.failed.items())),
        "hours": round(known.hours, 6),
        "hours_by": {
            column: {name: round(value, 6) for name, value in known.hours_by(column).items()}
            for column in ("set", "language", "script", "speaker")
        },
        "heard": len(found.heard),
        "files": rates(found.heard),
        "numbers": quantiles,
        "trouble": dict(found.trouble),
        "suspicious": [{"where": s.where, "id": s.row.get("id"), "why": list(s.why)} for s in found.suspicious],
    }


def _listen(known: Survey, indices: list[int], processes: int) -> list[tuple[int, Heard]]:
    return _on_rows(hear, known, indices, processes, "listening")


def _present(known: Survey, indices: list[int], most_bytes: int, processes: int) -> list[tuple[int, dict[str, Any]]]:
    return _on_rows(functools.partial(show, most_bytes=most_bytes), known, indices, processes, "drawing")


def _on_rows(function: Any, known: Survey, indices: list[int], processes: int, what: str) -> list[tuple[int, Any]]:
    """(index, result) of a function of the rows, manifest by manifest."""
    found = []
    for number, manifest in enumerate(known.manifests):
        own = [index for index in indices if known.sets[index] == number]
        places = known.places[own]
        results = rows.each(function, manifest, places, processes=processes, block=8, what=what)
        found += list(zip(own, results, strict=True))
    return found


def _shown(
    known: Survey, sounds: dict[int, Heard], media: dict[int, dict[str, Any]], index: int, why: list[str]
) -> Shown:
    row = known.row(index)
    return Shown(row.where, row.row, float(known.seconds[index]), sounds[index], media[index], tuple(why))
