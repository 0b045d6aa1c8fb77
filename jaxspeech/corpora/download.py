"""Archives of published corpora from their official addresses, with the publisher's checksums; resumable.

Only corpora that anybody may fetch without an account. The checksums are those of the `md5sum.txt` and pages of
openslr.org (12: LibriSpeech, 31: Mini LibriSpeech, 33: AISHELL-1).
"""

import argparse
import dataclasses
import os
import pathlib
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from jaxspeech.errors import UserError

MIRROR = "https://www.openslr.org/resources"

ARCHIVES = {
    "librispeech": {
        "dev-clean": ("12/dev-clean.tar.gz", "42e2234ba48799c1f50f24a7926300a1"),
        "dev-other": ("12/dev-other.tar.gz", "c8d0bcc9cca99d4f8b62fcc847357931"),
        "test-clean": ("12/test-clean.tar.gz", "32fa31d27d2e1cad72775fee3f4849a9"),
        "test-other": ("12/test-other.tar.gz", "fb5a50374b501bb3bac4815ee91d3135"),
        "train-clean-100": ("12/train-clean-100.tar.gz", "2a93770f6d5c6c964bc36631d331a522"),
        "train-clean-360": ("12/train-clean-360.tar.gz", "c0e676e450a7ff2f54aeade5171606fa"),
        "train-other-500": ("12/train-other-500.tar.gz", "d1a0fd59409feb2c614ce4d30c387708"),
    },
    "mini-librispeech": {
        "dev-clean-2": ("31/dev-clean-2.tar.gz", "6d7ab67ac6a1d2c993d050e16d61080d"),
        "train-clean-5": ("31/train-clean-5.tar.gz", "5df7d4e78065366204ca6845bb08f490"),
    },
    "aishell": {
        "data": ("33/data_aishell.tgz", "2f494334227864a8a8fec932999db9d8"),
        "resource": ("33/resource_aishell.tgz", "957d480a0fcac85fc18e550756f624e5"),
    },
}

_TRIES = 5  # in a row without a new byte
_WAIT = 2.0  # seconds before the second, then twice as long each time
_TIMEOUT = (20, 60)  # seconds to connect, and without a byte
_PIECE = 1 << 16  # bytes; what came of a piece is lost when the connection breaks

Progress = Callable[[str, int, int | None], None]


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file to fetch.

    Attributes:
        checksum: "md5:…" or "sha256:…".
    """

    url: str
    checksum: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", metavar="CORPUS", help=", ".join(ARCHIVES))
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the archives; what is there is kept")
    parser.add_argument("--parts", metavar="A,B", help="only these (default: all)")
    parser.add_argument("--unpack", action="store_true", help="unpack them into DIR too")
    parser.add_argument("--mirror", default=MIRROR, metavar="URL", help=f"another address than {MIRROR}")


def run(args: argparse.Namespace) -> dict[str, Any]:
    parts = [part for part in args.parts.split(",") if part] if args.parts else None
    with _Bar() as bar:
        files = download(args.corpus, args.out, parts, mirror=args.mirror, unpack=args.unpack, progress=bar)
    sizes = {part: file.stat().st_size for part, file in files.items()}
    for part, file in files.items():
        print(f"{file}: {sizes[part]:,} bytes, its checksum is the published one")
    return {"files": {part: str(file) for part, file in files.items()}, "bytes": sum(sizes.values())}


def download(
    corpus: str,
    out: str | os.PathLike[str],
    parts: Sequence[str] | None = None,
    *,
    mirror: str = MIRROR,
    unpack: bool = False,
    progress: Progress = lambda name, done, total: None,
) -> dict[str, pathlib.Path]:
    """Fetches archives of a corpus: part → file. Goes on where an earlier start ended; what is there is only checked.

    Args:
        corpus: a key of ARCHIVES.
        parts: names of its parts; None: all.
        unpack: unpack each into `out` as well, with the layout that the publisher gave it.
        progress: told (name, bytes here, of how many).

    Raises:
        UserError: an unknown name, pooch is not installed, no connection, a wrong checksum, no space.
    """
    if corpus not in ARCHIVES:
        raise UserError(f"{corpus!r} cannot be fetched without an account or is unknown; there are {_names(ARCHIVES)}")
    known = ARCHIVES[corpus]
    unknown = [part for part in parts or () if part not in known]
    if unknown:
        raise UserError(f"{corpus} has no part {unknown[0]!r}; there are {_names(known)}")
    files = {}
    for part in parts or known:
        path, digest = known[part]
        archive = Archive(f"{mirror.rstrip('/')}/{path}", f"md5:{digest}")
        files[part] = fetch(archive, out, progress=progress)
        if unpack:
            extract(files[part], out)
    return files


def fetch(
    archive: Archive, out: str | os.PathLike[str], *, progress: Progress = lambda name, done, total: None
) -> pathlib.Path:
    """Fetches a file into a folder; raises `UserError`. What came before an interruption lies beside it as `.part`."""
    try:
        import pooch
    except ImportError as error:
        raise UserError(
            "downloads need pooch, which is not installed; run: pip install 'jaxspeech[download]'"
        ) from error
    pooch.get_logger().setLevel("WARNING")
    folder = pathlib.Path(out).absolute()
    name = archive.url.rpartition("/")[2]
    part = folder / f".{name}.part"

    def downloader(url: str, output_file: str, pooch: Any) -> None:
        _fetch_all(url, part, lambda done, total: progress(name, done, total))
        # Both names until the checksum is known to be right: a kill in the meantime costs nothing.
        os.unlink(output_file)
        try:
            os.link(part, output_file)
        except OSError:  # a file system without hard links
            os.replace(part, output_file)

    try:
        found = pooch.retrieve(archive.url, archive.checksum, fname=name, path=folder, downloader=downloader)
        part.unlink(missing_ok=True)
    except ValueError as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{archive.url} has not the published checksum {archive.checksum}; it was removed: run it again, "
            "or give another --mirror"
        ) from error
    except OSError as error:
        raise UserError(f"{folder / name} cannot be written: {error.strerror}; is there space?") from error
    return pathlib.Path(found)


def extract(archive: pathlib.Path, out: str | os.PathLike[str]) -> None:
    """Unpacks a tar into a folder; files that are there with their full size stay. Raises `UserError`."""
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                target = pathlib.Path(out, member.name)
                if not (member.isfile() and target.is_file() and target.stat().st_size == member.size):
                    tar.extract(member, out, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} cannot be unpacked: {error}; remove it and fetch it again") from error
    except OSError as error:
        raise UserError(f"{archive} cannot be unpacked into {out}: {error}; is there space?") from error


def _fetch_all(url: str, part: pathlib.Path, progress: Callable[[int, int | None], None]) -> None:
    """Fetches what is missing of a file, and tries again as long as something comes."""
    import requests

    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _fetch_rest(url, part, progress):
                return
            trouble = "the connection ended early"
        except requests.RequestException as error:
            trouble = str(error)
        here = part.stat().st_size if part.exists() else 0
        failures = 0 if here > before else failures + 1
        if failures >= _TRIES:
            raise UserError(f"{url}: {trouble}; {here:,} bytes are here: run it again, and it goes on from there")
        time.sleep(_WAIT * 2**failures if failures else 0)


def _fetch_rest(url: str, part: pathlib.Path, progress: Callable[[int, int | None], None]) -> bool:
    """One request for what is missing; whether the file is whole then."""
    import requests

    begin = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        if answer.status_code == 416:  # nothing lies beyond what is here
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(begin):
                return True
            part.unlink()
            return False
        if 400 <= answer.status_code < 500:
            raise UserError(f"{url} cannot be fetched: {answer.status_code} {answer.reason}; give another --mirror")
        answer.raise_for_status()
        if answer.status_code != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
            begin = 0  # the server sends all of it
        length = answer.headers.get("Content-Length")
        total_bytes = None if length is None else begin + int(length)
        with open(part, "r+b" if begin else "wb") as file:
            file.seek(begin)
            for piece in answer.iter_content(_PIECE):
                file.write(piece)
                progress(file.tell(), total_bytes)
            return total_bytes is None or file.tell() == total_bytes


def _names(known: Any) -> str:
    return ", ".join(known)


class _Bar:
    """A bar on a terminal; elsewhere a line every ten seconds."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._name = ""
        self._shown = time.monotonic()

    def __call__(self, name: str, done: int, total: int | None) -> None:
        if sys.stderr.isatty():
            from tqdm import tqdm

            if name != self._name:
                self.__exit__()
                self._bar = tqdm(total=total, desc=name, unit="B", unit_scale=True, initial=done, dynamic_ncols=True)
                self._name = name
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._shown > 10:
            self._shown = time.monotonic()
            print(f"{name}: {done / 1e6:,.0f} MB" + (f" of {total / 1e6:,.0f} MB" if total else ""), file=sys.stderr)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
