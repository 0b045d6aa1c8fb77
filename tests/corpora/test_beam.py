"""What workers of Apache Beam prepare is, byte for byte, what processes of this machine prepare."""

import dataclasses
import json
import os
import pathlib
import signal
import sys

import numpy as np
import pytest
import soundfile

from jaxspeech import cli
from jaxspeech.corpora import beam, shards
from jaxspeech.corpora.encoding import Encoding
from jaxspeech.corpora.folder import AudioFolder
from jaxspeech.corpora.jsonl import JsonLines
from jaxspeech.corpora.pool import Known
from jaxspeech.corpora.preparation import prepare
from jaxspeech.corpora.shard_check import verify
from jaxspeech.errors import UserError

pytest.importorskip("apache_beam")

# DirectRunner would fetch Prism, which does the same in another program; what is not there makes it work here.
DIRECT = ["--runner=DirectRunner", "--prism_location=/none"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two folders of noise with texts; eight of the files are broken or to be left out."""
    folder = tmp_path_factory.mktemp("corpus") / "clips"
    for number in range(90):
        path = folder / ("dev", "train")[number > 20] / f"{number:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(4000 + 40 * number), 8000)
        path.with_suffix(".txt").write_text(f"the words of {number}", "utf-8")
    train = folder / "train"
    (train / "30.wav").write_bytes(b"")
    (train / "31.wav").write_bytes((train / "31.wav").read_bytes()[:30])
    (train / "32.wav").write_text("this is no audio at all, but it is not empty either")
    (train / "33.txt").unlink()
    (train / "34.txt").write_text(" ")
    (train / "35.txt").write_bytes(b"\xff\xfe\xfa")
    (train / "36.wav").write_bytes((train / "40.wav").read_bytes())
    soundfile.write(train / "37.wav", np.zeros(4000), 8000)
    return folder


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def placeless(found, folder):
    """What a preparation returned, without the folder that it wrote to."""
    return json.loads(json.dumps(found).replace(str(folder), ""))


@pytest.mark.parametrize("decode", [False, True])
def test_manifests_and_rejects_are_those_of_the_local_run(clips, tmp_path, decode):
    source = AudioFolder(str(clips), by_folder=True)
    local = prepare(source, tmp_path / "local", processes=1, decode=decode)
    there = prepare(source, tmp_path / "beam", beam=DIRECT, decode=decode)
    assert placeless(there, tmp_path / "beam") == placeless(local, tmp_path / "local")
    assert tree(tmp_path / "beam") == tree(tmp_path / "local")
    assert sorted(tree(tmp_path / "beam")) == [f"{s}{e}.jsonl" for s in ("dev", "train") for e in ("", ".rejected")]
    assert there["failed"] == {"bad UTF-8": 1, "corrupt audio": 2, "no text": 1, "zero bytes": 1}
    assert there["filtered"] == {"empty text": 1} | ({"silence": 1, "duplicate audio": 1} if decode else {})
    assert there["read"] == there["kept"] + sum((there["failed"] | there["filtered"]).values()) == 90


def command(monkeypatch, capsys, *words):
    """Runs a command line; exit code, what `--json` printed, and stderr."""
    monkeypatch.setattr("sys.argv", ["jaxspeech", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    return stopped.value.code, json.loads(out.splitlines()[-1]) if stopped.value.code == 0 else None, err


def test_commands_take_a_runner_and_after_two_dashes_its_options(clips, tmp_path, monkeypatch, capsys):
    runner, *others = DIRECT
    for name, what, more in (
        ("folder", clips / "train", ["--max-failed=1"]),
        ("shards", tmp_path / "folder" / "local" / "train.jsonl", ["--encoding=pcm16", "--shard-mib=0.1"]),
    ):
        found = {}
        for out, asked in (("local", ["--processes=1"]), ("beam", [runner, "--json", "--", *others])):
            folder = tmp_path / name / out
            words = ("prepare", name, what, "--out", folder, "--json", *more, *asked)
            code, found[out], _ = command(monkeypatch, capsys, *words)
            assert code == 0
            found[out] = placeless(found[out] | {"seconds": 0}, folder)
        assert found["beam"] == found["local"]
        assert found["beam"]["kept"] > 50
        assert tree(tmp_path / name / "beam") == tree(tmp_path / name / "local")
    words = ("prepare", "folder", clips, "--out", tmp_path / "not", *DIRECT)
    code, _, err = command(monkeypatch, capsys, *words)
    assert (code, err.splitlines()[-1].partition(": error: ")[2]) == (
        2,
        "unrecognised arguments: --prism_location=/none; options of Beam stand after --",
    )


def test_workers_in_processes_of_their_own_that_read_urls_give_the_same(clips, tmp_path, monkeypatch):
    """In Beam's own worker program, as a cluster starts it."""
    pytest.importorskip("fsspec")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(pathlib.Path(cli.__file__).parents[2]), *sys.path]))
    listed = tmp_path / "all.jsonl"
    rows = [{"path": f"file://{path}", "text": f"the text of {path.stem}"} for path in sorted(clips.rglob("*.wav"))]
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    local = prepare(JsonLines([str(listed)]), tmp_path / "local", processes=1, max_failed=1)
    processes = [*DIRECT, "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    there = prepare(JsonLines([str(listed)]), tmp_path / "beam", beam=processes, max_failed=1)
    assert placeless(there, tmp_path / "beam") == placeless(local, tmp_path / "local")
    assert tree(tmp_path / "beam") == tree(tmp_path / "local")
    assert there["failed"] == {"corrupt audio": 2, "empty audio": 1}


def test_too_many_failures_stop_both_with_the_same_line(clips, tmp_path):
    class Gone(AudioFolder):
        """None of its files is where it says."""

        def items(self, split):
            for found in super().items(split):
                if hasattr(found, "row"):
                    found.row["audio"] += ".gone"
                yield found

    said = []
    for out, options in (("local", None), ("beam", DIRECT)):
        with pytest.raises(UserError) as stop:
            prepare(Gone(str(clips)), tmp_path / out, processes=1, beam=options)
        said.append(str(stop.value))
        assert not list((tmp_path / out).glob("*.jsonl"))
    assert said[0] == said[1]
    assert "mostly 'missing file'" in said[0]
    assert "\n" not in said[0]


def test_what_was_checked_before_a_stop_is_not_checked_again(clips, tmp_path):
    source = AudioFolder(str(clips), by_folder=True)
    local = prepare(source, tmp_path / "local", processes=1, decode=True)

    def stop(split, read, rejected, total):
        if split == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "beam", beam=DIRECT, decode=True, progress=stop)
    kept = sorted((tmp_path / "beam" / ".prepare").iterdir())
    assert [path.suffix for path in kept] == [".journal", ".journal"]
    there = prepare(source, tmp_path / "beam", beam=DIRECT, decode=True)
    assert placeless(there, tmp_path / "beam") == placeless(local, tmp_path / "local")
    assert tree(tmp_path / "beam") == tree(tmp_path / "local")


def test_shards_are_those_of_the_local_run(clips, tmp_path):
    prepare(AudioFolder(str(clips)), tmp_path / "data", processes=1)
    manifest = tmp_path / "data" / "clips.jsonl"
    (tmp_path / "bad.jsonl").write_bytes(manifest.read_bytes().replace(b"/70.wav", b"/none.wav"))
    found = {}
    for out, options in (("local", None), ("beam", DIRECT)):
        found[out] = shards.pack(
            tmp_path / "bad.jsonl", tmp_path / out, Encoding("flac"), 0.1, processes=1, beam=options, max_failed=0.1
        )
        found[out]["manifest"] = ""
    assert found["beam"] == found["local"]
    assert found["beam"]["failed"] == {"missing file": 1}
    assert found["beam"]["shards"] > 2
    assert tree(tmp_path / "beam") == tree(tmp_path / "local")


def test_a_damaged_shard_is_found_by_workers_too(clips, tmp_path, capsys):
    prepare(AudioFolder(str(clips)), tmp_path / "data", processes=1)
    found = shards.pack(tmp_path / "data" / "clips.jsonl", tmp_path / "out", Encoding("pcm16"), 0.1, processes=1)
    assert verify(found["manifest"], beam=DIRECT) == verify(found["manifest"], processes=1)
    shard = min((tmp_path / "out").glob("*.array_record"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    capsys.readouterr()
    said = []
    for options in (None, DIRECT):
        with pytest.raises(UserError) as error:
            verify(found["manifest"], processes=1, beam=options)
        named = [line for line in capsys.readouterr().err.splitlines() if ".jsonl:" in line]
        said.append((str(error.value), named))
    assert said[0] == said[1]
    assert len(said[0][1]) == 1


def test_finished_shards_are_not_written_again(clips, tmp_path):
    prepare(AudioFolder(str(clips)), tmp_path / "data", processes=1)
    pack = (tmp_path / "data" / "clips.jsonl", tmp_path / "out", Encoding("pcm16"), 0.1)
    shards.pack(*pack, beam=DIRECT)
    whole = tree(tmp_path / "out")
    first, second = sorted((tmp_path / "out").glob("*.array_record"))[:2]
    second.unlink()
    written = first.stat().st_mtime_ns
    shards.pack(*pack, beam=DIRECT)
    assert tree(tmp_path / "out") == whole
    assert first.stat().st_mtime_ns == written


@dataclasses.dataclass(frozen=True)
class Deadly:
    """A task one of whose numbers kills the process that sees it, and another of which is a user's mistake."""

    numbers: tuple[int, ...]

    def run(self):
        if 7 in self.numbers:
            os.kill(os.getpid(), signal.SIGSEGV)
        if 8 in self.numbers:
            raise UserError("the disk is full; make room")
        return list(self.numbers)

    def pieces(self):
        return [Deadly((number,)) for number in self.numbers]

    def join(self, results):
        return [number for result in results for number in result]

    def lost(self):
        return ["lost"]


def test_a_file_that_kills_its_process_is_lost_alone(tmp_path):
    tasks = [Deadly((0, 1)), Known(["known"]), Deadly((6, 7, 9)), Deadly((10,))]
    assert list(beam.in_order(tasks, DIRECT, tmp_path)) == [[0, 1], ["known"], [6, "lost", 9], [10]]
    assert not list(tmp_path.iterdir())


def test_an_error_comes_where_its_result_would(tmp_path):
    results = beam.in_order([Deadly((1,)), Deadly((8,)), Deadly((2,))], DIRECT, tmp_path)
    assert next(results) == [1]
    with pytest.raises(UserError, match="the disk is full; make room"):
        next(results)


def test_all_travels_through_the_temporary_location(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    seen = []

    def tasks():
        seen.extend(path.name[:6] for path in elsewhere.iterdir())
        yield Deadly((1,))

    assert list(beam.in_order(tasks(), [*DIRECT, f"--temp_location={elsewhere}"], tmp_path / "here")) == [[1]]
    assert seen == [".beam-"]
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--runner=DirektRunner"], "DirektRunner"),
        ([*DIRECT, "--direct_num_workers=many"], "argument --direct_num_workers: invalid int value: 'many'"),
        (["--runner=DataflowRunner"], "Beam"),
    ],
)
def test_what_beam_refuses_is_told_in_one_line(tmp_path, options, said):
    with pytest.raises(UserError, match=said) as error:
        list(beam.in_order([Deadly((1,))], options, tmp_path))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
