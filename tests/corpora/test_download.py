"""Downloads from a local server that breaks off, knows no ranges, or sends something else."""

import hashlib
import http.server
import io
import pathlib
import tarfile
import threading

import numpy as np
import pytest

from jaxspeech.corpora import download
from jaxspeech.errors import UserError

pytest.importorskip("pooch")

PIECE = download._PIECE


class Server(http.server.ThreadingHTTPServer):
    """Serves one file. `breaks` says after how many bytes each answer to come ends early."""

    def __init__(self, content: bytes, ranges: bool = True):
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.ranges = content, ranges
        self.breaks: list[int] = []
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/12/dev-clean.tar.gz"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range") if self.server.ranges else None
        self.server.asked.append(self.headers.get("Range"))
        size = len(self.server.content)
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if self.path != "/12/dev-clean.tar.gz":
            self.send_error(404)
            return
        if begin >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - begin))
        self.end_headers()
        end = size
        if self.server.breaks:
            end = min(begin + self.server.breaks.pop(0), size)
        self.wfile.write(self.server.content[begin:end])
        self.close_connection = True

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def content():
    """A tar with the layout of the corpus."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, size in (("LibriSpeech/dev-clean/1/2/1-2-0000.flac", 3_000_000), ("LibriSpeech/README.TXT", 10)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(np.random.default_rng(0).bytes(size)))
    return buffer.getvalue()


@pytest.fixture
def server(content, monkeypatch):
    monkeypatch.setattr(download, "_WAIT", 0.01)
    with Server(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def archive(server: Server) -> download.Archive:
    return download.Archive(server.url, f"md5:{hashlib.md5(server.content).hexdigest()}")


def test_a_broken_connection_is_taken_up_where_it_ended(server, tmp_path):
    server.breaks = [16 * PIECE + 9, 8 * PIECE + 9]
    told = []
    path = download.fetch(archive(server), tmp_path, progress=lambda *numbers: told.append(numbers))
    assert path.read_bytes() == server.content
    assert server.asked == [None, f"bytes={16 * PIECE}-", f"bytes={24 * PIECE}-"]
    assert told[-1] == ("dev-clean.tar.gz", len(server.content), len(server.content))
    assert [file.name for file in tmp_path.iterdir()] == ["dev-clean.tar.gz"]


def test_what_is_here_is_not_fetched_again(server, tmp_path):
    first = download.fetch(archive(server), tmp_path)
    assert download.fetch(archive(server), tmp_path) == first
    assert len(server.asked) == 1


def test_given_up_it_goes_on_at_the_next_start(server, tmp_path):
    server.breaks = [20 * PIECE] + [0] * 5
    with pytest.raises(UserError, match=r"1,310,720 bytes are here: run it again"):
        download.fetch(archive(server), tmp_path)
    assert (tmp_path / ".dev-clean.tar.gz.part").stat().st_size == 20 * PIECE
    assert download.fetch(archive(server), tmp_path).read_bytes() == server.content
    assert server.asked[-1] == f"bytes={20 * PIECE}-"


def test_killed_while_the_checksum_was_computed_nothing_is_fetched_again(server, tmp_path):
    (tmp_path / ".dev-clean.tar.gz.part").write_bytes(server.content)
    assert download.fetch(archive(server), tmp_path).read_bytes() == server.content
    assert server.asked == [f"bytes={len(server.content)}-"]


def test_a_server_without_ranges_sends_all_of_it_again(server, tmp_path):
    server.ranges = False
    server.breaks = [1_000_000]
    assert download.fetch(archive(server), tmp_path).read_bytes() == server.content


def test_a_wrong_checksum_is_refused_and_nothing_is_left(server, tmp_path):
    wrong = download.Archive(server.url, "md5:" + 32 * "0")
    with pytest.raises(UserError, match="has not the published checksum"):
        download.fetch(wrong, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_server_does_not_have_is_said_at_once(server, tmp_path):
    with pytest.raises(UserError, match="404"):
        download.fetch(download.Archive(server.url + "x", "md5:0"), tmp_path)
    assert len(server.asked) == 1


def test_a_part_of_a_corpus_is_fetched_and_unpacked(server, tmp_path, monkeypatch):
    path = download.ARCHIVES["librispeech"]["dev-clean"][0]
    digest = hashlib.md5(server.content).hexdigest()
    monkeypatch.setitem(download.ARCHIVES["librispeech"], "dev-clean", (path, digest))
    mirror = server.url.removesuffix("/12/dev-clean.tar.gz")
    files = download.download("librispeech", tmp_path, ["dev-clean"], mirror=mirror, unpack=True)
    assert files == {"dev-clean": tmp_path / "dev-clean.tar.gz"}
    audio = tmp_path / "LibriSpeech/dev-clean/1/2/1-2-0000.flac"
    assert audio.stat().st_size == 3_000_000
    whole = audio.read_bytes()
    audio.write_bytes(whole[:1000])  # as a kill while unpacking leaves it
    stamp = (tmp_path / "LibriSpeech/README.TXT").stat().st_ino
    download.download("librispeech", tmp_path, ["dev-clean"], mirror=mirror, unpack=True)
    assert audio.read_bytes() == whole
    assert (tmp_path / "LibriSpeech/README.TXT").stat().st_ino == stamp
    assert len(server.asked) == 1


def test_a_tar_cannot_write_outside_its_folder(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(UserError, match="cannot be unpacked"):
        download.extract(tmp_path / "bad.tar", tmp_path / "in")
    assert not (tmp_path / "outside").exists()


def test_unknown_names_are_answered_with_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="there are librispeech, "):
        download.download("commonvoice", tmp_path)
    with pytest.raises(UserError, match="no part 'dev'; there are dev-clean, "):
        download.download("librispeech", tmp_path, ["dev"])


def test_the_published_parts_have_addresses_and_checksums():
    for parts in download.ARCHIVES.values():
        for path, digest in parts.values():
            assert pathlib.PurePosixPath(path).parts[0].isdigit()
            assert len(bytes.fromhex(digest)) == 16
    assert len({digest for parts in download.ARCHIVES.values() for _, digest in parts.values()}) == 11
