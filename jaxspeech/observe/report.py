"""`write_report`: one self-contained HTML page about a run, finished or still going."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxspeech.observe import inventory, page, plots, transcripts
from jaxspeech.observe.page import date, percent, size, text, write_page
from jaxspeech.observe.run import Run, last, open_run


def write_report(workdir: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Writes the page about the run in `workdir`.

    Args:
        out: where to; None for `<workdir>/report.html`.

    Returns:
        The path of the page.

    Raises:
        UserError: there is no run in `workdir`, or the page cannot be written.
    """
    run = open_run(pathlib.Path(workdir))
    path = pathlib.Path(out) if out is not None else run.folder / "report.html"
    write_page(path, render(run), "report")
    return path


def render(run: Run) -> str:
    """The page as a string."""
    sections = {
        "curves": ("Curves", _curves(run)),
        "data": ("Data", inventory.data(run)),
        "worst": ("Worst utterances", transcripts.worst(run)),
        "samples": ("Sample transcripts", transcripts.samples(run)),
        "checkpoints": ("Checkpoints", _checkpoints(run)),
        "config": ("Config", _config(run)),
    }
    links = "".join(f'<a href="#{name}">{title}</a>' for name, (title, _) in sections.items())
    body = [_header(run, links)] + [page.section(name, title, parts) for name, (title, parts) in sections.items()]
    return page.document(f"{run.folder.resolve().name} · jaxspeech", "\n".join(body))


def _header(run: Run, links: str) -> str:
    written = f", last written {date(run.updated)}" if run.updated else ""
    tiles = [page.tile(f"{run.step:,}", f"of {run.steps:,} steps" if run.steps else "steps")]
    tiles.append(page.tile(f"{run.hours:,.4g} h", "audio trained on"))
    for name in list(run.eval)[:2]:
        best = run.best(name)
        if best:
            tiles.append(page.tile(percent(best["wer"]), f"best WER on {name}, step {best['step']:,}"))
    loss = last(run.train, "loss")
    if loss is not None:
        tiles.append(page.tile(f"{loss:.4g}", "training loss, last"))
    if "parameters" in run.plan:
        parameters, trainable = run.plan["parameters"], run.plan.get("trainable", run.plan["parameters"])
        share = "all train" if trainable == parameters else f"{trainable:,} train"
        tiles.append(page.tile(_millions(parameters), f"parameters, {share}"))
    rate = last(run.train, "audio_seconds_per_second")
    if rate is not None:
        tiles.append(page.tile(f"{plots.number(rate)}×", "real time, last"))
    mfu = last(run.train, "mfu")
    if mfu is not None:
        tiles.append(page.tile(percent(mfu), "MFU, last"))
    compiled = last(run.train, "compilations")
    if compiled is not None:
        tiles.append(page.tile(f"{compiled:,}", "compilations after warm-up"))
    skipped = last(run.train, "skipped_updates")
    if skipped:
        tiles.append(page.tile(f"{skipped:,}", "updates skipped: gradient not finite"))
    task = str(run.config.get("task", "task not recorded")).rpartition(".")[2]
    device = _device(run.plan)
    return (
        f"<header><h1>{text(run.folder.resolve().name)}</h1>"
        f'<p class="sub">{text(task)} · {text(device)} · {text(run.state + written)}</p>'
        f'<nav>{links}</nav><div class="tiles">{"".join(tiles)}</div></header>'
    )


def _curves(run: Run) -> Iterator[str]:
    if not run.train and not run.eval:
        yield page.none("No metrics yet: the first line comes after config.log.every steps.")
        return
    steps = plots.column(run.train, "step")

    def trained(key: str, scale: float = 1.0, noisy: bool = True, name: str = "train") -> list[plots.Series]:
        values = plots.column(run.train, key, scale)
        return [plots.Series(name, steps, values, noisy)] if np.isfinite(values).any() else []

    def evaluated(key: str, scale: float = 1.0) -> list[plots.Series]:
        found = []
        for place, (name, lines) in enumerate(run.eval.items(), start=1):
            values = plots.column(lines, key, scale)
            if np.isfinite(values).any():
                found.append(plots.Series(name, plots.column(lines, "step"), values, marked=True, colour=place))
        return found

    wait = plots.column(run.train, "data_wait_seconds") / np.maximum(plots.column(run.train, "step_seconds"), 1e-9)
    waited = [plots.Series("train", steps, 100 * wait, noisy=True)] if np.isfinite(wait).any() else []
    expected = 100 * run.plan["padding"] if run.plan.get("padding") is not None else None
    drawn: list[tuple[str, list[plots.Series], str, dict[str, Any], str]] = [
        ("Loss", trained("loss") + evaluated("loss"), "loss", {"log": True}, ""),
        ("Word error rate", evaluated("wer", 100), "WER (%)", {"log": True, "zero": True}, ""),
        ("Character error rate", evaluated("cer", 100), "CER (%)", {"log": True, "zero": True}, ""),
        ("Learning rate", trained("lr", noisy=False), "learning rate", {"zero": True}, ""),
        ("Gradient norm", trained("grad_norm"), "gradient norm", {"log": True}, "before clipping"),
        ("Throughput", trained("audio_seconds_per_second"), "audio s / s", {"zero": True}, ""),
        ("Waiting for data", waited, "share of step (%)", {"zero": True}, ""),
        (
            "Padding",
            trained("padding", 100),
            "padding (%)",
            {"zero": True, "level": expected},
            f"dashed: {expected:.1f} % expected by the plan" if expected is not None else "",
        ),
        ("Model FLOPs utilisation", trained("mfu", 100), "MFU (%)", {"zero": True}, ""),
    ]
    yield '<div class="plots">'
    for title, series, unit, options, remark in drawn:
        if series:
            yield page.plot(title, plots.curves(series, unit, run.step, **options), remark)
    yield "</div>"
    if run.eval:
        yield "<h3>Evaluations</h3>"
        yield _evaluation_table(run)
    else:
        yield page.none("No evaluation yet.")


def _evaluation_table(run: Run) -> str:
    rows = []
    for name, lines in run.eval.items():
        best, newest = run.best(name), lines[-1]
        rows.append(
            [
                name,
                f"{percent(best['wer'])} at {best['step']:,}" if best else "–",
                f"{newest['step']:,}",
                *(percent(newest.get(key)) for key in ("wer", "cer")),
                f"{newest['loss']:.4g}" if newest.get("loss") is not None else "–",
            ]
        )
    return page.table(["set", "best WER", "last step", "WER", "CER", "loss"], rows)


def _checkpoints(run: Run) -> Iterator[str]:
    if not run.checkpoints:
        yield page.none("None yet.")
        return
    sets = [name for name in run.eval if run.best(name)]
    wer: dict[str, dict[int, Any]] = {name: {line["step"]: line.get("wer") for line in run.eval[name]} for name in sets}
    steps = [checkpoint.step for checkpoint in run.checkpoints]
    scored = [step for step in steps if sets and wer[sets[0]].get(step) is not None]
    best = min(scored, key=lambda step: float(wer[sets[0]][step]), default=None)
    yield page.table(
        ["step", "size", "written", *(f"WER on {name}" for name in sets)],
        [
            [f"{c.step:,}", size(c.size), date(c.written), *(percent(wer[name].get(c.step)) for name in sets)]
            for c in run.checkpoints
        ],
        numbers_from=0,
        best=steps.index(best) if best is not None else None,
    )


def _config(run: Run) -> Iterator[str]:
    if not run.config:
        yield page.none("No config.json.")
        return
    dump = json.dumps(run.config, indent=2, ensure_ascii=False)
    yield f"<details><summary>config.json</summary><pre>{text(dump)}</pre></details>"


def _device(plan: Mapping[str, Any]) -> str:
    if not plan.get("device"):
        return "device not recorded"
    return f"{plan['devices']} × {plan['device']}" if plan.get("devices", 1) != 1 else str(plan["device"])


def _millions(count: int) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count:,}"
