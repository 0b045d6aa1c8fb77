"""What `jaxspeech prepare` prints at its end: splits, reasons with an example each, and where a corpus is not whole."""

from collections.abc import Iterator, Mapping
from typing import Any

_EXAMPLE = 110  # characters


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The lines that tell what `preparation.prepare` gave."""
    width = max([len(name) for name in found["splits"]] + [5])
    yield f"{'split':<{width}}  {'read':>10}  {'kept':>10}  {'filtered':>9}  {'failed':>7}  {'hours':>9}  manifest"
    for name, split in found["splits"].items():
        yield f"{name:<{width}}  {_numbers(split)}  {split['manifest'] if split['kept'] else '-'}"
    if len(found["splits"]) > 1:
        yield f"{'all':<{width}}  {_numbers(found)}"
    rejected = found["filtered"] | found["failed"]
    if rejected:
        yield ""
        width = max(map(len, rejected))
        for kind in ("filtered", "failed"):
            for reason, count in sorted(found[kind].items(), key=lambda pair: -pair[1]):
                example = found["examples"].get(reason, "")
                shown = example if len(example) <= _EXAMPLE else f"{example[: _EXAMPLE - 1]}…"
                yield f"{kind:<8}  {reason:<{width}}  {count:>9,}  {shown}"
        files = [split["rejected"] for split in found["splits"].values() if split["read"] > split["kept"]]
        yield f"all of them, with file and line: {', '.join(files)}"
    for name, split in found["splits"].items():
        if split["clipped"]:
            yield f"note: {name}: {split['clipped']:,} utterances that were kept have some clipped samples"
        if split.get("difference"):
            yield f"note: {name} is not as published: {split['difference']}"
    for note, count in found["notes"].items():
        yield f"note: {note}: {count:,}"


def _numbers(counts: Mapping[str, Any]) -> str:
    filtered, failed = sum(counts["filtered"].values()), sum(counts["failed"].values())
    return f"{counts['read']:>10,}  {counts['kept']:>10,}  {filtered:>9,}  {failed:>7,}  {counts['hours']:>9,.2f}"
