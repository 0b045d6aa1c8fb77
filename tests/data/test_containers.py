"""Audio inside tars, ArrayRecord files and behind URLs is the audio of the file that was put there."""

import concurrent.futures
import io
import json
import multiprocessing
import os
import sys
import tarfile
import threading

import numpy as np
import pytest
import soundfile

from jaxspeech.data import audio, containers, remote, tars
from jaxspeech.data.audio import AudioError
from jaxspeech.data.manifest import Collection, Manifest, write_manifest
from jaxspeech.data.pcm16 import Pcm16, wav
from jaxspeech.data.record import Segment
from jaxspeech.errors import UserError

RATES = {"wav": 16000, "flac": 22050, "ogg": 16000, "opus": 48000, "mp3": 44100}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "jaxspeech"


@pytest.fixture
def files(tmp_path):
    """One file of each format in clips/: 5 s, two channels."""
    rng = np.random.default_rng(0)
    for extension, rate in RATES.items():
        t = np.arange(5 * rate) / rate
        tone = 0.3 * np.sin(2 * np.pi * (200 + 30 * t) * t) + 0.02 * rng.standard_normal(len(t))
        audio.write(tmp_path / f"clips/a.{extension}", np.stack([tone, -0.5 * tone], 1).astype(np.float32), rate)
    return tmp_path / "clips"


def put_into_tar(path, folder, prefix=""):
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, prefix + file.name)
    return path


def put_into_shard(path, contents):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for content in contents:
        writer.write(content)
    writer.close()
    return path


def assert_same_audio(file, name):
    assert audio.probe(name) == audio.probe(file)
    for offset, duration, channel in [(0, None, None), (0, None, 1), (3.3, 1.2, None), (4.4, 0.6, 0)]:
        for rate in (16000, 8000):
            expected = audio.read_segment(Segment(str(file), offset, duration, channel=channel), rate)
            found = audio.read_segment(Segment(str(name), offset, duration, channel=channel), rate)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("extension", RATES)
def test_every_container_gives_the_audio_of_the_file(tmp_path, files, extension):
    file = files / f"a.{extension}"
    tar = put_into_tar(tmp_path / "x.tar", files, "deep/er/")
    shard = put_into_shard(tmp_path / "x.array_record", [b"first", file.read_bytes()])
    assert_same_audio(file, f"{tar}#deep/er/a.{extension}")
    assert_same_audio(file, f"{shard}#1")
    assert_same_audio(file, f"file://{file}")
    assert_same_audio(file, f"file://{tar}#deep/er/a.{extension}")
    assert_same_audio(file, f"file://{shard}#1")


def test_pcm16_records_are_read_bit_by_bit_as_libsndfile_reads_them(tmp_path):
    rng = np.random.default_rng(0)
    extremes = np.array([-32768, -32767, -1, 0, 1, 32767], np.int16)
    for channels in (1, 2):
        samples = np.concatenate([extremes, rng.integers(-32768, 32768, 4994, np.int16)]).reshape(-1, channels)
        content = wav(samples, 11025)
        with soundfile.SoundFile(io.BytesIO(content)) as file, Pcm16.of(content) as ours:
            for name in ("frames", "samplerate", "channels", "subtype"):
                assert getattr(ours, name) == getattr(file, name)
            for first, count in [(0, -1), (100, 50), (len(samples) - 3, 3)]:
                file.seek(first), ours.seek(first)
                expected = file.read(count, dtype="float32", always_2d=True)
                found = ours.read(count, dtype="float32", always_2d=True)
                np.testing.assert_array_equal(found, expected)
                assert found.dtype == np.float32
            ours.seek(0)
            np.testing.assert_array_equal(ours.read(dtype="int16", always_2d=True), samples)
        shard = put_into_shard(tmp_path / f"{channels}.array_record", [content])
        (tmp_path / f"{channels}.wav").write_bytes(content)
        for rate in (11025, 16000):
            expected = audio.read_segment(Segment(str(tmp_path / f"{channels}.wav"), 0.1, 0.1), rate)
            np.testing.assert_array_equal(audio.read_segment(Segment(f"{shard}#0", 0.1, 0.1), rate), expected)
        assert audio.probe(f"{shard}#0") == audio.probe(tmp_path / f"{channels}.wav")


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT", "ULAW"])
def test_other_wav_files_are_left_to_libsndfile(tmp_path, subtype):
    sound = np.linspace(-0.9, 0.9, 4000)
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, 8000, subtype, format="WAV")
    assert Pcm16.of(buffer.getvalue()) is None
    shard = put_into_shard(tmp_path / "x.array_record", [buffer.getvalue()])
    np.testing.assert_allclose(audio.read_segment(Segment(f"{shard}#0"), 8000), sound, atol=0.03)


def test_a_wav_with_chunks_behind_its_samples_or_cut_off_is_left_to_libsndfile():
    content = wav(np.arange(100, dtype=np.int16)[:, None], 8000)
    assert Pcm16.of(content)
    assert Pcm16.of(content + b"LIST\x04\0\0\0abcd") is None
    assert Pcm16.of(content[:-2]) is None
    assert Pcm16.of(content[:30]) is None
    assert Pcm16.of(b"fLaC" + content[4:]) is None


def test_names_are_split_at_the_last_hash_behind_a_container():
    assert containers.split("/a/x.tar#b/c.wav") == ("/a/x.tar", "b/c.wav")
    assert containers.split("/a/x#y.tar#b") == ("/a/x#y.tar", "b")
    assert containers.split("x.array_record#17") == ("x.array_record", "17")
    assert containers.split("s3://bucket/x.tar#a.wav") == ("s3://bucket/x.tar", "a.wav")
    for whole in ("/a/take#2.wav", "/a/x.tar", "/a/x.tar.gz#b", "http://a/b.wav#t=3"):
        assert containers.split(whole) == (whole, None)


@pytest.mark.parametrize(
    ("folder", "name", "joined"),
    [
        ("/m", "a/../b.wav", "/m/b.wav"),
        ("/m", "/abs/b.wav", "/abs/b.wav"),
        ("/m", "../x.tar#./a//b.wav", "/x.tar#./a//b.wav"),
        ("/m", "take#2/../b.wav", "/m/b.wav"),
        ("/m", "s3://bucket//odd/../a.wav", "s3://bucket//odd/../a.wav"),
        ("s3://bucket/set", "a/../b.wav", "s3://bucket/set/b.wav"),
        ("s3://bucket/set", "../x.tar#../a.wav", "s3://bucket/x.tar#../a.wav"),
        ("s3://bucket/set", "gs://other/a.wav", "gs://other/a.wav"),
        ("s3://bucket/set", "/local/a.wav", "/local/a.wav"),
    ],
)
def test_names_are_joined_to_the_folder_of_a_manifest(folder, name, joined):
    assert containers.join(folder, name) == joined


def test_a_manifest_names_what_is_inside_containers(tmp_path, files):
    put_into_tar(tmp_path / "x.tar", files, "./")
    put_into_shard(tmp_path / "x.array_record", [(files / "a.flac").read_bytes()])
    rows = [
        {"id": "tar", "audio": str(tmp_path / "x.tar#./a.flac"), "text": "a"},
        {"id": "tar without a dot", "audio": "x.tar#a.flac", "text": "b"},
        {"id": "shard", "audio": "x.array_record#0", "text": "c"},
        {
            "id": "pieces",
            "segments": [{"audio": "x.tar#a.wav"}, {"audio": "x.array_record#0", "gap": 0.5}],
            "text": "d",
        },
    ]
    write_manifest(tmp_path / "m.jsonl", rows)
    assert json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])["audio"] == "x.tar#./a.flac"
    manifest = Manifest.open(tmp_path / "m.jsonl")
    np.testing.assert_allclose(manifest.durations, [5, 5, 5, 10.5], atol=1e-3)
    expected = audio.read_segment(Segment(str(files / "a.flac")))
    for place in range(3):
        np.testing.assert_array_equal(audio.read(manifest[place]), expected)
    assert len(audio.read(manifest[3])) == 168000


def test_what_is_missing_or_broken_is_an_audio_error_with_its_reason(tmp_path, files):
    tar = put_into_tar(tmp_path / "x.tar", files)
    with tarfile.open(tmp_path / "odd.tar", "w") as odd:
        odd.addfile(tarfile.TarInfo("empty.wav"), io.BytesIO())
        text = tarfile.TarInfo("text.wav")
        text.size = 4
        odd.addfile(text, io.BytesIO(b"text"))
    shard = put_into_shard(tmp_path / "x.array_record", [(files / "a.wav").read_bytes(), b"text", b""])
    broken = bytearray(shard.read_bytes())
    broken[300_000] ^= 1
    (tmp_path / "broken.array_record").write_bytes(broken)
    (tmp_path / "text.array_record").write_bytes(b"no records")
    (tmp_path / "text.tar").write_bytes(b"no tar" * 1000)
    (tmp_path / "cut.tar").write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    for name, reason in {
        f"{tmp_path}/no.tar#a.wav": "missing file",
        f"{tar}#b.wav": "missing file",
        f"{tmp_path}/odd.tar#empty.wav": "empty audio",
        f"{tmp_path}/odd.tar#text.wav": "corrupt audio",
        f"{tmp_path}/text.tar#a.wav": "corrupt audio",
        f"{tmp_path}/cut.tar#a.wav": "missing file",  # the last member
        f"{tmp_path}/no.array_record#0": "missing file",
        f"{shard}#3": "missing file",
        f"{shard}#-1": "missing file",
        f"{shard}#a.wav": "missing file",
        f"{shard}#1": "corrupt audio",
        f"{shard}#2": "empty audio",
        f"{tmp_path}/broken.array_record#0": "corrupt audio",
        f"{tmp_path}/text.array_record#0": "corrupt audio",
        f"file://{tmp_path}/no.wav": "missing file",
        f"file://{tmp_path}/no.tar#a.wav": "missing file",
        f"file://{tmp_path}/no.array_record#0": "missing file",
        f"file://{tar}#b.wav": "missing file",
    }.items():
        for look in (lambda name: audio.read_segment(Segment(name)), audio.probe):
            with pytest.raises(AudioError) as caught:
                look(name)
            assert caught.value.reason == reason, (name, str(caught.value))
            assert os.path.basename(name.split("#")[0]) in caught.value.detail
    assert audio.probe(f"{tmp_path}/cut.tar#a.flac") == audio.probe(files / "a.flac")  # before the cut


def test_what_is_wrong_in_a_container_is_told_by_its_name(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        (tmp_path / "a.wav").write_text("this is no audio at all")
        tar.add(tmp_path / "a.wav", "a.wav")
    for name in (f"{tmp_path}/x.tar#a.wav", f"file://{tmp_path}/a.wav"):
        with pytest.raises(AudioError) as error:
            audio.probe(name)
        assert str(error.value.detail).startswith(f"{name}: Error opening {name!r}: ")


def test_a_tar_is_indexed_once_and_the_index_stands_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(300):
            member = tarfile.TarInfo(f"{i}.bin")
            member.size = i
            tar.addfile(member, io.BytesIO(bytes([i % 256]) * i))
    os.utime(path, (1e9, 1e9))
    assert containers.read_bytes(f"{path}#299.bin") == bytes([43]) * 299
    assert (tmp_path / ".x.tar.tar.npz").exists()
    tars._open.cache_clear()
    monkeypatch.setattr(tars, "_index", lambda path: pytest.fail("indexed again"))
    for i in range(300):
        assert containers.read_bytes(f"{path}#{i}.bin") == bytes([i % 256]) * i


def test_a_container_that_is_replaced_is_read_anew(tmp_path):
    for content in (b"first" * 100, b"second" * 100):
        shard = put_into_shard(tmp_path / "new.array_record", [content])
        os.replace(shard, tmp_path / "x.array_record")
        with tarfile.open(tmp_path / "new.tar", "w") as tar:
            member = tarfile.TarInfo("a")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        os.replace(tmp_path / "new.tar", tmp_path / "x.tar")
        assert containers.read_bytes(f"{tmp_path}/x.array_record#0") == content
        assert containers.read_bytes(f"{tmp_path}/x.tar#a") == content


def test_of_two_members_of_a_name_the_later_counts(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for content in (b"old", b"newer"):
            member = tarfile.TarInfo("a")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert containers.read_bytes(f"{tmp_path}/x.tar#a") == b"newer"


def _digests(names):
    return [hash(containers.read_bytes(name)) for name in names]


def test_many_threads_and_processes_read_the_same(tmp_path):
    rng = np.random.default_rng(0)
    contents = [rng.bytes(int(rng.integers(1, 40_000))) for _ in range(64)]
    shard = put_into_shard(tmp_path / "x.array_record", contents)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for i, content in enumerate(contents):
            member = tarfile.TarInfo(str(i))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    wrong = []

    def look(seed):
        for i in np.random.default_rng(seed).integers(0, 64, 300).tolist():
            for name in (f"{shard}#{i}", f"{tmp_path}/x.tar#{i}"):
                if containers.read_bytes(name) != contents[i]:
                    wrong.append(name)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    # A forked process inherits what is open here, and must not share its positions.
    names = [f"{tmp_path}/x.tar#{i}" for i in range(64)] + [f"{shard}#{i}" for i in range(64)]
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        for found in pool.map(_digests, [names] * 4):
            assert found == [hash(content) for content in contents] * 2


def test_a_manifest_and_its_shards_behind_a_url_are_read(tmp_path, files, cache):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    put_into_tar(tmp_path / "x.tar", files)
    put_into_shard(tmp_path / "x.array_record", [(files / "a.mp3").read_bytes()])
    rows = [
        {"id": "file", "audio": "clips/a.flac", "text": "a"},
        {"id": "tar", "audio": "x.tar#a.opus", "text": "b"},
        {"id": "shard", "audio": "./x.array_record#0", "text": "c"},
        {"id": "local", "audio": str(files / "a.wav"), "text": "d"},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("m.jsonl", "x.tar", "x.array_record", "clips/a.flac"):
        memory.pipe_file(f"/bucket/{name}", (tmp_path / name).read_bytes())
    manifest = Manifest.open("memory://bucket/m.jsonl")
    local = Manifest.open(tmp_path / "m.jsonl")
    assert manifest.fingerprint == local.fingerprint
    assert manifest[1].segments[0].audio == "memory://bucket/x.tar#a.opus"
    for place in range(4):
        np.testing.assert_array_equal(audio.read(manifest[place]), audio.read(local[place]))
    assert Collection.open("memory://bucket/m.jsonl").ids([0]) == ["file"]
    assert not list(tmp_path.rglob("memory:*"))  # nothing is written as if a URL were a path
    copies = sorted(path.name for path in cache.rglob("*") if path.suffix in (".jsonl", ".array_record", ".tar"))
    assert copies == ["m.jsonl", "x.array_record"]  # a member of a tar is fetched alone
    memory.pipe_file("/bucket/m.jsonl", json.dumps(rows[0]).encode())
    assert len(Manifest.open("memory://bucket/m.jsonl")) == 1  # new content is fetched again
    memory.pipe_file("/bucket/m.jsonl", b"{}\n")
    with pytest.raises(UserError, match=r"^memory://bucket/m.jsonl:1: no 'id'"):
        Manifest.open("memory://bucket/m.jsonl")
    with pytest.raises(UserError, match=r"manifest memory://bucket/n.jsonl does not exist"):
        Manifest.open("memory://bucket/n.jsonl")


def test_without_fsspec_or_its_backend_the_user_is_told_what_to_install(monkeypatch):
    with pytest.raises(UserError, match=r"nonsense://a/b.wav cannot be opened: .*nonsense"):
        audio.probe("nonsense://a/b.wav")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    for look in (audio.probe, Manifest.open, remote.exists):
        with pytest.raises(UserError, match=r"pip install 'jaxspeech\[remote\]'"):
            look("s3://bucket/a.wav")
