"""The look of a report: one style sheet and the few pieces of HTML that it is made of. No script, nothing loaded."""

import html
import os
import pathlib
import time
from collections.abc import Iterable, Sequence

from jaxspeech.errors import UserError

STYLE = """
:root{color-scheme:light dark;--paper:#fbfbfa;--card:#fff;--ink:#1d2126;--muted:#667079;--line:#e3e5e8;
--s1:#2769b5;--s2:#d26a1b;--s3:#2c8f5f;--s4:#8757b8;--s5:#c43a55;--s6:#857a1d;
--good:#1d7f4e;--bad:#b3261e;--sub:#9a5b00;--good-bg:#e2f3e9;--bad-bg:#fbe6e4;--sub-bg:#fdf0d8}
@media (prefers-color-scheme:dark){:root{--paper:#14171a;--card:#1c2024;--ink:#e6e8ea;--muted:#98a1aa;--line:#30363c;
--s1:#6aa7ee;--s2:#f0954f;--s3:#5fc592;--s4:#b892e6;--s5:#f0788f;--s6:#cdbf55;
--good:#6fd3a0;--bad:#ff8d84;--sub:#f0b95c;--good-bg:#153425;--bad-bg:#43201e;--sub-bg:#3d2e10}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1120px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.6rem 0 .8rem}
h3{font-size:1rem;margin:1.4rem 0 .5rem}
a{color:var(--s1);text-decoration:none}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:.7rem 0 0;font-size:.9rem}
.sub,.none,figcaption small,.facts{color:var(--muted)}
.sub{margin:.35rem 0 0}
.none{margin:.3rem 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(132px,1fr));gap:.75rem;margin:1.5rem 0 0}
.tile,.plot,.utterance{background:var(--card);border:1px solid var(--line);border-radius:9px}
.tile{padding:.7rem .9rem .75rem}
.tile b{display:block;font-size:1.35rem;line-height:1.25;font-weight:600}
.tile span{color:var(--muted);font-size:.82rem}
.plots,.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:.9rem}
.samples{gap:.6rem}
.samples .utterance{margin:0}
.plot{margin:0;padding:.75rem .9rem .4rem}
figcaption{font-weight:600;font-size:.93rem}
figcaption small{font-weight:400;margin-left:.4rem;font-size:.85rem}
.plot svg{display:block;width:100%;height:auto}
.plot svg *{stroke-linejoin:round}
.plot svg text,.plot svg tspan{font-family:inherit!important}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem}
th,td{padding:.32rem .9rem .32rem 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:baseline}
th{color:var(--muted);font-weight:500;font-size:.84rem}
td.n,th.n{text-align:right;padding-left:.9rem}
tr.best td{font-weight:600}
.utterance{padding:.75rem .95rem .8rem;margin:0 0 .7rem}
.facts{font-size:.84rem;display:flex;flex-wrap:wrap;gap:.1rem 1rem;margin-bottom:.35rem}
.facts b{color:var(--ink);font-weight:600;overflow-wrap:anywhere}
.pair{display:inline-grid;grid-template-rows:minmax(1.6em,auto) minmax(1.6em,auto);justify-items:start;max-width:100%;
margin:.15rem .1rem .35rem 0;
vertical-align:top}
.pair i,.pair u{font-style:normal;text-decoration:none;padding:0 .28em;border-radius:4px;overflow-wrap:anywhere}
.pair u{color:var(--muted)}
.substitute u{background:var(--sub-bg);color:var(--sub)}
.insert u{background:var(--good-bg);color:var(--good)}
.delete i{background:var(--bad-bg);color:var(--bad);text-decoration:line-through}
.heard{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;align-items:center}
.words{flex:1 1 320px}
audio{flex:0 1 300px;height:34px;min-width:0}
.key{font-size:.88rem;color:var(--muted);margin:0 0 .8rem}
.key .pair{grid-template-rows:1.6em;margin:0;vertical-align:baseline}
dl.said{display:grid;grid-template-columns:max-content 1fr;gap:.1rem .8rem;margin:0}
dl.said dt{color:var(--muted);font-size:.84rem}
dl.said dd{margin:0;overflow-wrap:anywhere}
details{margin:.4rem 0}
summary{cursor:pointer;color:var(--s1)}
pre{background:var(--card);border:1px solid var(--line);border-radius:9px;padding:.8rem 1rem;overflow-x:auto;
font:.84rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media print{body{background:#fff}.plot,.utterance,.tile{break-inside:avoid}audio{display:none}}
"""


def text(value: object) -> str:
    """Escaped for HTML."""
    return html.escape(str(value))


def document(title: str, body: str) -> str:
    """A whole page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def section(name: str, title: str, parts: Iterable[str]) -> str:
    """A part of the page with an anchor."""
    return f'<section id="{text(name)}"><h2>{text(title)}</h2>\n' + "\n".join(parts) + "</section>"


def none(what: str) -> str:
    """What is not there, and why."""
    return f'<p class="none">{text(what)}</p>'


def tile(value: str, label: str) -> str:
    """A fact in large."""
    return f'<div class="tile"><b>{text(value)}</b><span>{text(label)}</span></div>'


def plot(title: str, svg: str, remark: str = "") -> str:
    """A plot with its title."""
    small = f"<small>{text(remark)}</small>" if remark else ""
    return f'<figure class="plot"><figcaption>{text(title)}{small}</figcaption>{svg}</figure>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1, best: int | None = None) -> str:
    """A table; columns from `numbers_from` on hold numbers, row `best` is set off."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if place >= numbers_from else ''}>{text(cell)}</{tag}>"
            for place, cell in enumerate(row)
        )

    lines = [f"<tr{' class=best' if place == best else ''}>{cells(row, 'td')}</tr>" for place, row in enumerate(rows)]
    return f'<div class="scroll"><table><tr>{cells(head, "th")}</tr>{"".join(lines)}</table></div>'


def percent(rate: float | None) -> str:
    """A share or a rate in per cent; a dash where there is none."""
    return "–" if rate is None else f"{100 * rate:.1f} %"


def size(count: int) -> str:
    """Bytes as MiB or GiB."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def date(seconds: float) -> str:
    """Seconds since the epoch as local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def write_page(path: pathlib.Path, content: str, what: str) -> None:
    """Writes a page by way of a file beside it. Raises `UserError`, which calls it `what`, if that cannot be done."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(content, "utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"the {what} cannot be written to {path}: {error.strerror}; give another place with --out"
        ) from error
