"""From any source to manifests: every utterance is checked, and ends as kept, filtered(reason) or failed(reason).

Utterances stream from the source in chunks through several processes, which read headers (or decode everything); a
journal keeps what was found, so that a killed run goes on and writes the same bytes as one that nobody disturbed.
What only the whole split shows (duplicates, the law of the speaking rate) is decided at its end, from 44 bytes an
utterance; then manifest and list of rejects replace older ones at once.
"""

import collections
import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxspeech.corpora import outcome, pool, workers
from jaxspeech.corpora.checks import Limits
from jaxspeech.corpora.chunks import Chunk, Settings, cut
from jaxspeech.corpora.journal import FACTS, Checked, Journal
from jaxspeech.corpora.source import Official, Source, check_share, too_many
from jaxspeech.errors import UserError

_CHUNK = 256  # utterances whose headers are read by one process at a time
_DECODED_CHUNK = 32

Progress = Callable[[str, int, int, int | None], None]


def prepare(
    source: Source,
    out: str | os.PathLike[str],
    *,
    splits: Sequence[str] | None = None,
    processes: int = 0,
    beam: Sequence[str] | None = None,
    decode: bool = False,
    limits: Limits | None = None,
    relative: bool = False,
    max_failed: float = 0.01,
    progress: Progress = lambda split, read, rejected, total: None,
) -> dict[str, Any]:
    """Writes OUT/<split>.jsonl and OUT/<split>.rejected.jsonl for the splits of a source.

    Args:
        source: a corpus or a format. Its attributes `notes` (a mapping of what was odd but harmless → how often) and
            `empty_text` (True: its utterances may have no text) are heeded where it has them, and so are `lists` (files
            that it reads, none of which may be written).
        out: folder of the manifests; audio under it is named by relative paths, other audio by absolute ones.
        splits: those wanted; None: all.
        processes: that check; 0: one a core, at most 16.
        beam: options of a pipeline of Apache Beam, whose workers check instead of processes.
        decode: decode all audio, instead of reading headers alone.
        limits: what is left out.
        relative: name all audio by relative paths.
        max_failed: share of failed utterances above which the run stops, once there are 20; 0: at the first.
        progress: told (split, utterances read, rejected, of how many if the publisher says).

    Returns:
        {"read", "kept", "filtered": {reason: n}, "failed": {reason: n}, "hours", "examples": {reason: text}, "notes",
        "splits": {name: the same of a split, its files, "clipped", "official" and "difference"}}.

    Raises:
        UserError: an unknown split, a folder that cannot be written, a file that would be written is one that is read
            or that of another split, more failures than allowed, nothing kept.
    """
    known = source.splits()
    unknown = [name for name in splits or () if name not in known]
    if unknown:
        raise UserError(f"{source.name} has no split {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    check_share(max_failed)
    folder = pathlib.Path(os.path.abspath(out))
    _refuse_to_overwrite(folder, list(splits or known), getattr(source, "lists", ()))
    limits = limits or Limits(empty_text=getattr(source, "empty_text", False))
    settings = Settings(limits, decode, str(folder), relative)
    work, done = [], {}
    for name in splits or known:
        work.append(_Split(source, name, settings, folder, processes, beam))
        done[name] = work[-1].prepare(max_failed, progress)
    for each in work:  # not before all are written: a restart takes them up
        each.forget()
    with contextlib.suppress(OSError):  # another preparation may have its own there
        (folder / ".prepare").rmdir()
    total: dict[str, Any] = {key: sum(split[key] for split in done.values()) for key in ("read", "kept", "hours")}
    for kind in ("filtered", "failed"):
        total[kind] = dict(sum((collections.Counter(split[kind]) for split in done.values()), collections.Counter()))
    assert total["read"] == total["kept"] + sum(total["filtered"].values()) + sum(total["failed"].values()), total
    examples: dict[str, str] = {}
    for split in done.values():
        examples = split.pop("examples") | examples
    if not total["kept"]:
        why = "; ".join(f"{reason} ({text})" for reason, text in examples.items()) or "it tells of none"
        raise UserError(f"{source.name}: none of {total['read']} utterances can be used: {why}")
    total |= {"examples": examples, "notes": dict(getattr(source, "notes", {})), "splits": done}
    return total


def _refuse_to_overwrite(folder: pathlib.Path, splits: Sequence[str], lists: Sequence[str]) -> None:
    """Raises `UserError` where two splits would write one file, or a split a file that is read."""
    read = {os.path.realpath(path): path for path in lists}
    writer: dict[pathlib.Path, str] = {}
    for split in splits:
        for path in outcome.paths(folder, split):
            if path in writer:
                raise UserError(
                    f"splits {writer[path]!r} and {split!r} would both write {path}; prepare them into two folders"
                )
            writer[path] = split
            if os.path.realpath(path) in read:
                mine = read[os.path.realpath(path)]
                raise UserError(f"{mine} lies in --out={folder} and would be overwritten; give another folder")


class _Split:
    """One split on its way from the source to its manifest."""

    def __init__(
        self,
        source: Source,
        name: str,
        settings: Settings,
        folder: pathlib.Path,
        processes: int,
        beam: Sequence[str] | None,
    ):
        self._source, self.name, self._settings, self._folder = source, name, settings, folder
        self._processes, self._beam = processes, beam
        self._journal = Journal(folder / ".prepare" / f"{name.replace('/', '_')}.journal")

    def prepare(self, max_failed: float, progress: Progress) -> dict[str, Any]:
        try:
            official = self._source.official(self.name)
            total = official.utterances if official else None

            def told(read: int, rejected: int) -> None:
                progress(self.name, read, rejected, total)

            facts, count = self._check(max_failed, told)
            chunks = map(self._journal.chunk, range(count))
            found = outcome.write(self._folder, self.name, chunks, facts, self._settings)
        finally:
            self._journal.close()
        failed = sum(found["failed"].values())
        if too_many(failed, found["read"], max_failed):  # a last try may have mended the rest
            raise UserError(self._too_many(found["failed"], found["read"], count, max_failed))
        if official:
            found["official"] = {"utterances": official.utterances, "hours": official.hours}
            found["difference"] = difference(official, found)
        return found

    def _check(self, max_failed: float, progress: Callable[[int, int], None]) -> tuple[np.ndarray, int]:
        """All chunks through the checks into the journal: the facts of what passed, and the number of chunks."""
        asked: collections.deque[tuple[int, str, bool, float]] = collections.deque()

        def tasks() -> Iterator[Chunk | pool.Known[Checked]]:
            size = _DECODED_CHUNK if self._settings.decode else _CHUNK
            for chunk in cut(self._source.items(self.name), size, self._settings):
                key = chunk.key()
                saved, began = self._journal.get(chunk.number, key)
                # What failed is tried again: the reason to start again may be that it has been mended.
                known = saved is not None and not saved.again and not chunk.changed_since(began)
                asked.append((chunk.number, key, known, time.time()))
                yield pool.Known(saved) if saved is not None and known else chunk

        facts = [np.zeros(0, FACTS)]
        read = kept = count = 0
        failed: collections.Counter[str] = collections.Counter()
        for checked in workers.in_order(tasks(), self._processes, self._beam, self._folder / ".prepare"):
            number, key, known, began = asked.popleft()
            if not known:
                self._journal.put(number, key, checked, began)
            facts.append(checked.facts)
            failed.update(checked.failed)
            read, kept, count = read + checked.read, kept + len(checked.facts), count + 1
            progress(read, read - kept)
            if too_many(failed.total(), read, max_failed):
                raise UserError(self._too_many(failed, read, count, max_failed))
        return np.concatenate(facts), count

    def forget(self) -> None:
        """Removes what a restart would take up."""
        self._journal.remove()

    def _too_many(self, failed: Mapping[str, int], read: int, count: int, max_failed: float) -> str:
        reason, most = max(failed.items(), key=lambda pair: pair[1])
        first = next(
            row
            for number in range(count)
            for row in outcome.rejects(self._journal.chunk(number))
            if row["reason"] == reason and row["kind"] == "failed"
        )
        return (
            f"{sum(failed.values())} of {read} utterances of {self.name} failed, more than --max-failed="
            f"{max_failed:g} allows; mostly {reason!r} ({most}), first {first['where']}: {first['detail']}; "
            "mend them and start again (what is done is kept), or raise --max-failed"
        )


def difference(official: Official, found: Mapping[str, Any]) -> str | None:
    """A sentence on where a split is not what its publisher says; None where it is."""
    parts = []
    if official.utterances is not None and official.utterances != found["read"]:
        more = found["read"] - official.utterances
        parts.append(
            f"{official.utterances:,} utterances are published, {found['read']:,} were found "
            f"({abs(more):,} {'more' if more > 0 else 'missing'})"
        )
    if official.hours is not None and abs(found["hours"] - official.hours) > max(0.01 * official.hours, 0.06):
        parts.append(f"{official.hours:,g} hours are published, {found['hours']:,.1f} were kept")
    return "; ".join(parts) or None
