"""`jaxspeech prepare shards --verify`: every record is read back, compared with its checksum, and decoded."""

import collections
import dataclasses
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from jaxspeech.corpora import workers
from jaxspeech.corpora.encoding import materialise
from jaxspeech.data import containers
from jaxspeech.data.audio import AudioError
from jaxspeech.data.manifest import Manifest
from jaxspeech.data.record import Record
from jaxspeech.data.rows import Rows
from jaxspeech.errors import UserError

_CHUNK = 64  # records that a process checks at a time
_SHOWN = 50

Bad = list[tuple[int, str, str, str]]  # place, id, reason, detail


def verify(
    manifest: str | os.PathLike[str], *, processes: int = 0, beam: Sequence[str] | None = None
) -> dict[str, Any]:
    """Checks all audio of a manifest, inside shards or not. Bad utterances are named on stderr.

    Args:
        manifest: path or URL.
        processes: that check; 0: one a core, at most 16.
        beam: options of a pipeline of Apache Beam, whose workers check instead.

    Returns:
        {"read", "kept", "filtered": {}, "failed": {}, "hours", "without_checksum"}: nothing failed.

    Raises:
        UserError: at least one utterance is bad.
    """
    source = Manifest.open(manifest)
    failed: collections.Counter[str] = collections.Counter()
    unchecked = 0
    where = None
    with tqdm(total=len(source), desc="verifying", unit="utt", disable=None) as bar:
        for size, without, bad in workers.in_order(_tasks(source), processes, beam, os.path.dirname(source.path)):
            for place, name, reason, detail in bad:
                where = where or Rows(source.path).where
                failed[reason] += 1
                if failed.total() <= _SHOWN:
                    tqdm.write(f"{where(place)}: {name}: {reason}: {detail}", file=sys.stderr)
            unchecked += without
            bar.update(size)
    if failed:
        more = f" ({failed.total() - _SHOWN} are not shown)" if failed.total() > _SHOWN else ""
        raise UserError(
            f"{failed.total()} of {len(source)} records of {os.fspath(manifest)} are bad{more}: "
            + ", ".join(f"{count} {reason}" for reason, count in failed.most_common())
            + "; remove the shards that they are in and pack again: the others are kept"
        )
    hours = float(source.durations.sum()) / 3600
    note = f" ({unchecked:,} have no checksum)" if unchecked else ""
    print(f"{os.fspath(manifest)}: all {len(source):,} records, {hours:.2f} hours, are good{note}", file=sys.stderr)
    return {
        "read": len(source),
        "kept": len(source),
        "filtered": {},
        "failed": {},
        "hours": hours,
        "without_checksum": unchecked,
    }


def _tasks(source: Manifest) -> "Iterator[_Check]":
    for first in range(0, len(source), _CHUNK):
        yield _Check(first, tuple(source[place] for place in range(first, min(first + _CHUNK, len(source)))))


@dataclasses.dataclass(frozen=True)
class _Check:
    """Records to be checked (`pool.Task`); the result is how many, how many without checksum, and the bad ones."""

    first: int
    records: tuple[Record, ...]

    def run(self) -> tuple[int, int, Bad]:
        bad: Bad = []
        for place, record in enumerate(self.records, self.first):
            try:
                _look(record)
            except AudioError as error:
                bad.append((place, record.id, error.reason, error.detail))
        return len(self.records), sum("crc32" not in record.extra for record in self.records), bad

    def pieces(self) -> "list[_Check]":
        return [_Check(self.first + n, (record,)) for n, record in enumerate(self.records)]

    def join(self, results: Sequence[tuple[int, int, Bad]]) -> tuple[int, int, Bad]:
        return sum(r[0] for r in results), sum(r[1] for r in results), [entry for r in results for entry in r[2]]

    def lost(self) -> tuple[int, int, Bad]:
        (record,) = self.records
        name = record.segments[0].audio
        return 1, "crc32" not in record.extra, [(self.first, record.id, "kills the process that reads it", name)]


def _look(record: Record) -> None:
    """Raises `AudioError` where a record is not what was packed, or cannot be decoded."""
    name, wanted = record.segments[0].audio, record.extra.get("crc32")
    if wanted is not None:
        try:
            found = f"{zlib.crc32(containers.read_bytes(name)):08x}"
        except FileNotFoundError as error:
            raise AudioError("missing file", str(error)) from error
        except (OSError, RuntimeError) as error:
            raise AudioError("corrupt audio", f"{name}: {error}") from error
        if found != wanted:
            raise AudioError("wrong checksum", f"{name}: {found} instead of {wanted}")
    materialise(record)
