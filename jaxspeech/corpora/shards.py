"""`jaxspeech prepare shards`: the audio of a manifest packed into ArrayRecord files, for access at random.

OUT/shard-00000.array_record, … hold one utterance a record, as the bytes of an audio file; OUT/manifest.jsonl names
them as `shard-00000.array_record#17` and has a checksum of each. Which utterance goes where is decided before anything
is written, so any number of processes, killed and started again at any time, writes the same bytes.
"""

import argparse
import collections
import fcntl
import itertools
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxspeech.corpora import pool, workers
from jaxspeech.corpora.encoding import ENCODINGS, Encoding
from jaxspeech.corpora.shard import Note, Place, Shard, not_written
from jaxspeech.corpora.source import check_share, too_many
from jaxspeech.data.audio import AudioError
from jaxspeech.data.manifest import Manifest, write_manifest
from jaxspeech.data.rows import Rows
from jaxspeech.errors import UserError

_SAMPLE = 64  # records whose headers tell how large a shard becomes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is packed, how, and where it goes."""
    parser.add_argument("manifest", metavar="MANIFEST", help="path or URL of a manifest")
    parser.add_argument("--out", metavar="DIR", help="folder of the shards; an unfinished one is completed")
    parser.add_argument(
        "--encoding",
        choices=ENCODINGS,
        default="flac",
        help="pcm16: fastest to read; flac (default): the same samples in about 60%% of the bytes; source: files as is",
    )
    parser.add_argument("--rate", type=int, metavar="HZ", help="resample (by default every utterance keeps its rate)")
    parser.add_argument("--shard-mib", type=float, default=256, metavar="MIB", help="about how large a shard is (256)")
    workers.add_arguments(parser, "work")
    parser.add_argument(
        "--max-failed", type=float, default=0.01, metavar="SHARE", help="of failures that stops the run (0.01)"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read all records back, compare checksums, decode; without --out: those that MANIFEST names",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Packs, verifies, or both, and says what came of it."""
    from jaxspeech.corpora.shard_check import verify

    beam = workers.beam_options(args)
    if args.out is None:
        if not args.verify:
            raise UserError("prepare shards: no --out; give the folder of the shards (or --verify, to check some)")
        return verify(args.manifest, processes=args.processes, beam=beam)
    encoding = Encoding(args.encoding, args.rate)
    result = pack(
        args.manifest,
        args.out,
        encoding,
        args.shard_mib,
        processes=args.processes,
        beam=beam,
        max_failed=args.max_failed,
    )
    failed = "".join(f"; {count} failed: {reason}" for reason, count in result["failed"].items())
    print(
        f"{result['manifest']}: {result['kept']:,} of {result['read']:,} utterances, {result['hours']:.2f} hours, "
        f"{result['bytes'] / 2**20:,.1f} MiB in {result['shards']} shards{failed}",
        file=sys.stderr,
    )
    if args.verify:
        result["verified"] = verify(result["manifest"], processes=args.processes, beam=beam)
    return result


def pack(
    manifest: str | os.PathLike[str],
    out: str | os.PathLike[str],
    encoding: Encoding,
    shard_mib: float = 256,
    *,
    processes: int = 0,
    beam: Sequence[str] | None = None,
    max_failed: float = 0.01,
) -> dict[str, Any]:
    """Packs the audio of a manifest into OUT. Goes on where an earlier start ended; what failed is tried again.

    Args:
        manifest: path or URL.
        out: folder; gets the shards, manifest.jsonl, manifest.rejected.jsonl, shards.json and a hidden note a shard.
        encoding: how audio is stored.
        shard_mib: about how large a shard becomes.
        processes: that work; 0: one a core, at most 16.
        beam: options of a pipeline of Apache Beam, whose workers write the shards instead; OUT is on a disk that they
            and this machine share.
        max_failed: share of failed utterances above which the run stops, once there are 20.

    Returns:
        {"read", "kept", "filtered": {}, "failed": {reason: n}, "hours", "shards", "bytes", "manifest"}.

    Raises:
        UserError: a manifest that is none, a folder of other shards or that cannot be written, too many failures.
    """
    if not 0 < shard_mib < 1 << 20 or (encoding.rate is not None and not 1000 <= encoding.rate <= 384000):
        raise UserError("prepare shards: --shard-mib must be above 0, and --rate between 1000 and 384000 Hz")
    check_share(max_failed)
    source = Manifest.open(manifest)
    folder = pathlib.Path(out).absolute()
    if pathlib.Path(source.path) == folder / "manifest.jsonl":
        raise UserError(f"{source.path} is where the manifest of the shards goes; give another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        try:
            for left in folder.glob(".*.tmp"):  # of a run that was killed
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            begins = _plan(source, folder, encoding, shard_mib)
            places = [Place(folder, n, *span) for n, span in enumerate(itertools.pairwise([*begins, len(source)]))]
            failed = _write(source, places, encoding, processes, beam, max_failed)
            return _finish(source, folder, places, failed)
        finally:
            os.close(lock)
    except OSError as error:
        raise not_written(folder, error) from error


def _write(
    source: Manifest,
    places: list[Place],
    encoding: Encoding,
    processes: int,
    beam: Sequence[str] | None,
    max_failed: float,
) -> Mapping[str, int]:
    """Writes the shards that are not finished; how many utterances failed, by reason."""

    def tasks() -> Iterator[Shard | pool.Known[Note]]:
        for place in places:
            note = place.note()
            if note is not None and not note["rejected"]:
                yield pool.Known(note)
            else:
                yield Shard(place, encoding, tuple(source[i] for i in range(place.first, place.last)))

    failed: collections.Counter[str] = collections.Counter()
    first: dict[str, str] = {}
    read = 0
    with tqdm(total=len(source), desc="packing", unit="utt", disable=None) as bar:
        notes = workers.in_order(tasks(), processes, beam, places[0].folder)
        for place, note in zip(places, notes):
            for entry in note["rejected"]:
                failed[entry["reason"]] += 1
                first.setdefault(entry["reason"], f"{entry['id']}: {entry['detail']}")
            read += place.last - place.first
            bar.update(place.last - place.first)
            if too_many(failed.total(), read, max_failed) or failed.total() == len(source):
                reason, most = failed.most_common(1)[0]
                raise UserError(
                    f"{failed.total()} of {read} utterances of {source.path} failed, more than --max-failed="
                    f"{max_failed:g} allows; mostly {reason!r} ({most}), first {first[reason]}; mend them and start "
                    "again (what is done is kept), or raise --max-failed"
                )
    return failed


def _finish(source: Manifest, folder: pathlib.Path, places: list[Place], failed: Mapping[str, int]) -> dict[str, Any]:
    """Writes the manifest and the list of what failed, from the notes of all shards; counts."""
    counts: collections.Counter[str] = collections.Counter()
    seconds: list[float] = []

    def rows() -> Iterator[dict[str, Any]]:
        for place in places:
            note = _noted(place)
            counts.update(shards=int(bool(note["rows"])), bytes=note["size"])
            for row in note["rows"]:
                seconds.append(row["duration"])
                yield row

    rejected = folder / "manifest.rejected.jsonl"
    if failed:
        where = Rows(source.path).where
        temporary = rejected.with_name(f".{rejected.name}.tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            for place in places:
                for entry in _noted(place)["rejected"]:
                    line = {"where": where(entry.pop("place")), "kind": "failed"} | entry
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
        os.replace(temporary, rejected)
    else:
        rejected.unlink(missing_ok=True)
    kept = write_manifest(folder / "manifest.jsonl", rows())
    assert len(source) == kept + sum(failed.values()), f"{len(source)} read, {kept} kept, {failed} failed"
    return {
        "read": len(source),
        "kept": kept,
        "filtered": {},
        "failed": dict(sorted(failed.items())),
        "hours": sum(seconds) / 3600,
        "shards": counts["shards"],
        "bytes": counts["bytes"],
        "manifest": str(folder / "manifest.jsonl"),
    }


def _noted(place: Place) -> Note:
    note = place.note()
    if note is None:
        raise UserError(f"{place.path} has changed since it was written; start again")
    return note


def _plan(source: Manifest, folder: pathlib.Path, encoding: Encoding, shard_mib: float) -> list[int]:
    """The first record of each shard: decided at the first start, then read from OUT/shards.json."""
    path = folder / "shards.json"
    wanted = {
        "manifest": source.fingerprint,
        "encoding": encoding.kind,
        "rate": encoding.rate,
        "shard_mib": shard_mib,
        "records": len(source),
    }
    if path.exists():
        try:
            found = json.loads(path.read_text("utf-8"))
            begins: list[int] = found.pop("first")
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{path} is not what it was when it was written; remove {folder}, start again") from error
        other = [f"{key} {found.get(key)}, not {value}" for key, value in wanted.items() if found.get(key) != value]
        if other:
            raise UserError(f"{folder} holds other shards ({'; '.join(other)}); give another --out or remove it")
        return begins
    # The same whatever the number of processes: records in order, a new shard where the next full size is reached.
    size = source.durations * _bytes_per_second(source, encoding)
    shard = (np.cumsum(size) - size) // (shard_mib * 2**20)
    begins = np.flatnonzero(np.diff(shard, prepend=-1)).tolist()
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(wanted | {"first": begins}) + "\n", "utf-8")
    os.replace(temporary, path)
    return begins


def _bytes_per_second(source: Manifest, encoding: Encoding) -> float:
    """Mean over records from all of the manifest."""
    found = []
    for place in np.unique(np.linspace(0, len(source) - 1, _SAMPLE).astype(int)).tolist():
        try:
            found.append(encoding.bytes_per_second(source[place]))
        except AudioError:  # it is told of when its turn comes
            continue
    return float(np.mean(found)) if found else 32000.0


def _lock(folder: pathlib.Path) -> int:
    """A descriptor that keeps other processes out of the folder until it is closed, be it by a kill."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"another process writes shards into {folder}; wait for it or give another --out") from None
    except OSError:  # a file system that cannot lock folders
        pass
    return descriptor
