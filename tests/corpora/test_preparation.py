"""The engine of `jaxspeech prepare`: every utterance is accounted for, whatever happens to the run."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest
import soundfile

from jaxspeech.corpora.checks import Limits
from jaxspeech.corpora.preparation import prepare
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.data.manifest import Manifest
from jaxspeech.errors import UserError

RATE = 8000


class Listed:
    """A source that has what it is given."""

    name = "listed"

    def __init__(self, items, official=None):
        self.parts = items if isinstance(items, dict) else {"all": items}
        self._official = official

    def splits(self):
        return list(self.parts)

    def items(self, split):
        yield from self.parts[split]

    def official(self, split):
        return self._official


def speech(path: pathlib.Path, seconds: float = 1.0, seed: int = 0, rate: int = RATE) -> str:
    """A file of noise that is nobody else's."""
    sound = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate)
    return str(path)


def corpus(folder: pathlib.Path, count: int) -> list[Found]:
    return [
        Found(f"list:{i + 1}", {"id": f"u{i}", "audio": speech(folder / f"{i}.wav", seed=i), "text": "ten characters"})
        for i in range(count)
    ]


def changed(found: Found, **keys) -> Found:
    return Found(found.where, {k: v for k, v in (found.row | keys).items() if v is not None})


def rejects(out: pathlib.Path, split: str = "all") -> dict[str, dict]:
    lines = (out / f"{split}.rejected.jsonl").read_text("utf-8").splitlines()
    return {row["where"]: row for row in map(json.loads, lines)}


def reasons(out: pathlib.Path) -> dict[str, str]:
    return {where: row["reason"] for where, row in rejects(out).items()}


def test_what_is_kept_opens_as_a_manifest_with_the_durations_of_the_headers(tmp_path):
    items = corpus(tmp_path / "audio", 5)
    items[1] = changed(items[1], duration=1.04)
    items[2] = changed(items[2], offset=0.25, duration=0.5, speaker="s", mood="glad")
    found = prepare(Listed(items), tmp_path / "out", processes=1)
    assert (found["read"], found["kept"]) == (5, 5)
    manifest = Manifest.open(tmp_path / "out" / "all.jsonl")
    assert manifest.durations.tolist() == [1.0, 1.0, 0.5, 1.0, 1.0]
    assert (manifest[2].id, manifest[2].speaker, manifest[2].extra) == ("u2", "s", {"mood": "glad"})
    assert manifest[2].segments[0].offset == 0.25
    assert found["hours"] == pytest.approx(4.5 / 3600)
    assert not (tmp_path / "out" / ".prepare").exists()


def test_every_utterance_ends_as_kept_filtered_or_failed(tmp_path):
    audio = tmp_path / "audio"
    items = corpus(audio, 22)
    stereo = str(audio / "stereo.wav")
    soundfile.write(stereo, np.random.default_rng(9).standard_normal((RATE, 2)) * 0.1, RATE)
    (audio / "zero.wav").touch()
    (audio / "text.wav").write_text("this is no audio at all, but it is not empty either")
    (audio / "loop.wav").symlink_to(audio / "loop.wav")
    os.mkfifo(audio / "pipe.wav")
    spoilt = {
        1: ({"audio": str(audio / "none.wav")}, "missing file"),
        2: ({"audio": str(audio / "zero.wav")}, "zero bytes"),
        3: ({"audio": str(audio / "text.wav")}, "corrupt audio"),
        4: ({"audio": str(audio / "loop.wav")}, "symlink loop"),
        5: ({"audio": str(audio / "pipe.wav")}, "not a file"),
        6: ({"audio": str(audio)}, "not a file"),
        7: ({"audio": stereo, "channel": 2}, "channel out of range"),
        8: ({"duration": -1.0}, "bad duration"),
        9: ({"duration": float("nan")}, "bad duration"),
        10: ({"duration": "1.0"}, "bad duration"),
        11: ({"duration": 2.0}, "duration differs from the audio"),
        12: ({"offset": 0.5, "duration": 0.8}, "segment beyond the end"),
        13: ({"offset": 0.5, "duration": 0.02}, "too short"),
        14: ({"text": " "}, "empty text"),
        15: ({"text": None}, "no text"),
        16: ({"text": "too many words " * 10}, "text too long for its audio"),
        17: ({"words": [["ten", 2, 1]]}, "not a record"),
        18: ({"text": "half a \ud800 character"}, "not a record"),
        19: ({"id": "u0"}, "duplicate id"),
        20: ({"audio": items[0].row["audio"]}, "duplicate audio"),
        21: ({"segments": [{"audio": str(audio / "none.wav")}], "audio": None}, "missing file"),
    }
    for place, (keys, _) in spoilt.items():
        items[place] = changed(items[place], **keys)
    items.append(Rejected("list:23", "bad JSON", "at column 2"))
    items.append(Rejected("list:24", "not asked for", kind="filtered"))
    found = prepare(Listed(items), tmp_path / "out", processes=1, max_failed=1)
    expected = {f"list:{place + 1}": reason for place, (_, reason) in spoilt.items()}
    assert reasons(tmp_path / "out") == expected | {"list:23": "bad JSON", "list:24": "not asked for"}
    assert (found["read"], found["kept"]) == (24, 1)
    assert found["read"] == found["kept"] + sum(found["filtered"].values()) + sum(found["failed"].values())
    assert found["filtered"]["not asked for"] == found["failed"]["bad JSON"] == 1
    assert found["failed"]["missing file"] == 2
    details = {where: row["detail"] for where, row in rejects(tmp_path / "out").items()}
    assert details["list:20"] == "u0 is also at list:1"
    assert details["list:21"] == "u20 sounds as u0 at list:1"


def test_decoding_finds_what_headers_do_not_tell(tmp_path):
    items = corpus(tmp_path, 8)
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal((RATE, 2))
    silent = noise * [1, 0]
    clipped = np.clip(noise[:, 0] * 30, -1, 1)
    nan = noise[:, 0].astype(np.float32)
    nan[5] = np.nan
    for place, sound, subtype in ((1, 0 * nan, "PCM_16"), (2, silent, "PCM_16"), (3, clipped, "PCM_16")):
        soundfile.write(items[place].row["audio"], np.nan_to_num(sound), RATE, subtype=subtype)
    soundfile.write(items[4].row["audio"], nan, RATE, subtype="FLOAT")
    flac = tmp_path / "5.flac"
    soundfile.write(flac, noise[:, 0], RATE)
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    items[5] = changed(items[5], audio=str(flac))
    wav = pathlib.Path(items[6].row["audio"])
    wav.write_bytes(wav.read_bytes()[:10000])
    copy = tmp_path / "copy.flac"
    soundfile.write(copy, soundfile.read(items[0].row["audio"])[0], RATE)
    items[7] = changed(items[7], audio=str(copy))
    found = prepare(Listed(items), tmp_path / "out", processes=1, decode=True, max_failed=1)
    assert reasons(tmp_path / "out") == {
        "list:2": "silence",
        "list:3": "empty channel",
        "list:4": "clipped",
        "list:5": "not a number",
        "list:6": "truncated or corrupt audio",
        "list:7": "truncated or corrupt audio",
        "list:8": "duplicate audio",
    }
    assert found["kept"] == 1
    items[2] = changed(items[2], channel=0)  # the channel that has speech
    again = prepare(Listed(items[:3]), tmp_path / "again", processes=1, decode=True, max_failed=1)
    assert again["kept"] == 2


def test_limits_are_heeded(tmp_path):
    items = corpus(tmp_path, 3)
    items[1] = changed(items[1], text="")
    items[2] = changed(items[2], audio=items[0].row["audio"], duration=4.0)
    loose = Limits(empty_text=True, repeated_audio=True, header_duration=True)
    assert prepare(Listed(items), tmp_path / "out", processes=1, limits=loose)["kept"] == 3
    strict = dataclasses.replace(loose, max_seconds=0.9)
    with pytest.raises(UserError, match=r"none of 3 utterances can be used: too long \(list:1: 1\.0 s, at most 0\.9"):
        prepare(Listed(items), tmp_path / "out", processes=1, limits=strict)
    assert not (tmp_path / "out" / "all.jsonl").exists()


def test_paths_are_relative_where_the_audio_lies_under_the_manifest(tmp_path):
    inside, outside = corpus(tmp_path / "out" / "audio", 1)[0], corpus(tmp_path / "else", 2)[1]
    prepare(Listed([inside, outside]), tmp_path / "out", processes=1)
    lines = (tmp_path / "out" / "all.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["audio"] for line in lines] == ["audio/0.wav", str(tmp_path / "else" / "1.wav")]
    prepare(Listed([inside, outside]), tmp_path / "out", processes=1, relative=True)
    lines = (tmp_path / "out" / "all.jsonl").read_text("utf-8").splitlines()
    assert json.loads(lines[1])["audio"] == "../else/1.wav"


def test_too_many_failures_stop_it_with_one_line_but_not_before_twenty(tmp_path):
    items = corpus(tmp_path, 30)
    few = [changed(item, audio="/none.wav") for item in items[:19]] + items[19:]
    assert prepare(Listed(few), tmp_path / "out", processes=1)["kept"] == 11
    many = [changed(item, audio="/none.wav") for item in items[:20]] + items[20:]
    with pytest.raises(
        UserError, match=r"20 of 30 utterances of all failed.*'missing file' \(20\), first list:1"
    ) as stop:
        prepare(Listed(many), tmp_path / "other", processes=1)
    assert "\n" not in str(stop.value)
    assert not (tmp_path / "other" / "all.jsonl").exists()
    assert prepare(Listed(items), tmp_path / "other", processes=1)["kept"] == 30  # mended, and started again


def test_what_is_not_as_published_is_said(tmp_path):
    items = corpus(tmp_path, 3)
    found = prepare(Listed(items, Official(utterances=4, hours=2.0)), tmp_path / "out", processes=1)
    assert found["splits"]["all"]["difference"] == (
        "4 utterances are published, 3 were found (1 missing); 2 hours are published, 0.0 were kept"
    )
    found = prepare(Listed(items, Official(utterances=3, hours=3 / 3600)), tmp_path / "out", processes=1)
    assert found["splits"]["all"]["difference"] is None


def test_an_unknown_split_is_refused_and_known_ones_are_chosen(tmp_path):
    source = Listed({"train": corpus(tmp_path / "a", 2), "dev": corpus(tmp_path / "b", 1)})
    with pytest.raises(UserError, match="listed has no split 'test'; it has train, dev"):
        prepare(source, tmp_path / "out", splits=["test"], processes=1)
    assert list(prepare(source, tmp_path / "out", splits=["dev"], processes=1)["splits"]) == ["dev"]
    assert prepare(source, tmp_path / "out", processes=1)["read"] == 3


def test_several_processes_write_what_one_does(tmp_path):
    items = corpus(tmp_path, 70)
    items[40] = changed(items[40], audio="/none.wav")
    items[41] = changed(items[41], id="u1")
    for processes in (1, 2):
        prepare(Listed(items), tmp_path / str(processes), processes=processes, decode=True)
    for name in ("all.jsonl", "all.rejected.jsonl"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


RUN = """
    import json, pathlib, sys, time
    from jaxspeech.corpora import checks, chunks
    from jaxspeech.corpora.jsonl import JsonLines
    from jaxspeech.corpora.preparation import prepare

    def told(split, read, rejected, total):
        print(read, flush=True)
        time.sleep(float(sys.argv[3]))

    def noted(where, *rest):
        examined.append(where)
        return checks.examine(where, *rest)

    examined, chunks.examine = [], noted
    prepare(JsonLines([sys.argv[1]]), sys.argv[2], processes=1, decode=True, progress=told)
    print(json.dumps(examined))
"""


def test_killed_at_any_time_it_goes_on_and_writes_the_same_bytes(tmp_path):
    rows = [item.row for item in corpus(tmp_path / "audio", 400)]
    rows[100]["audio"], rows[300]["id"], rows[301]["text"] = "/none.wav", "u3", ""
    listed = tmp_path / "train.jsonl"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def start(out: str, pause: float) -> subprocess.Popen:
        command = [sys.executable, "-c", textwrap.dedent(RUN), str(listed), str(tmp_path / out), str(pause)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    undisturbed = start("undisturbed", 0)
    assert undisturbed.communicate(timeout=60)[0].splitlines()[0] == "32"
    done = 0
    for lines in (3, 5, 8):
        process = start("killed", 0.05)
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
        process.communicate(timeout=30)
        assert not (tmp_path / "killed" / "train.jsonl").exists()
        journal = tmp_path / "killed" / ".prepare" / "train.journal"
        assert journal.stat().st_size > done
        done = journal.stat().st_size
        with open(journal, "ab") as file:  # as a kill in the middle of an entry leaves it
            file.write(b'{"chunk": 99, "key": "half')
    # What is known is not read again, what had failed is tried.
    examined = json.loads(start("killed", 0).communicate(timeout=60)[0].splitlines()[-1])
    assert not {f"{listed}:{line}" for line in range(1, 33)} & set(examined)
    assert len(examined) < 400
    for name in ("train.jsonl", "train.rejected.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert len(rejects(tmp_path / "killed", "train")) == 3


def test_another_process_at_the_same_folder_is_refused(tmp_path):
    rows = [item.row for item in corpus(tmp_path / "audio", 40)]
    listed = tmp_path / "train.jsonl"
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-c", textwrap.dedent(RUN), str(listed), str(tmp_path / "out"), "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(UserError, match="another process prepares the same"):
            prepare(Listed({"train": corpus(tmp_path / "audio", 2)}), tmp_path / "out", processes=1)
        first.kill()


def test_changed_settings_or_lines_are_checked_anew(tmp_path):
    items = corpus(tmp_path, 60)

    def stop(split, read, rejected, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(Listed(items), tmp_path / "out", processes=1, decode=True, progress=stop)
    os.remove(items[1].row["audio"])
    os.remove(items[2].row["audio"])
    strict = Limits(min_seconds=0.06)
    assert prepare(Listed(items), tmp_path / "out", processes=1, decode=True, limits=strict)["kept"] == 58


def test_a_speaking_rate_far_outside_the_law_is_named_and_a_wrong_header_recognised(tmp_path):
    rng = np.random.default_rng(1)
    items = []
    for i in range(80):
        text = "a text of forty characters or so, indeed"[: int(rng.integers(33, 40))]
        seconds = len(text) / 14 * float(rng.lognormal(0, 0.15))
        audio = speech(tmp_path / f"{i}.wav", seconds, i)
        items.append(Found(f"list:{i + 1}", {"id": f"u{i}", "audio": audio, "text": text}))
    double, half, slow = (items[i].row["audio"] for i in (10, 11, 12))
    soundfile.write(double, soundfile.read(double)[0], 2 * RATE)
    soundfile.write(half, soundfile.read(half)[0], RATE // 2)
    speech(pathlib.Path(slow), 12.0, 99)
    found = prepare(Listed(items), tmp_path / "out", processes=1, decode=True)
    assert reasons(tmp_path / "out") == {
        "list:11": "wrong rate in the header",
        "list:12": "wrong rate in the header",
        "list:13": "speaking rate far outside the corpus",
    }
    assert (
        "with 8000 Hz, as in most headers, instead of 16000 it would fit"
        in rejects(tmp_path / "out")["list:11"]["detail"]
    )
    assert found["kept"] == 77


def test_memory_grows_by_the_facts_of_an_utterance_and_not_by_its_line(tmp_path):
    row = corpus(tmp_path, 1)[0].row | {"extra": "x" * 2000}

    def peak(count: int) -> int:
        source = Listed([])
        source.items = lambda split: (Found(f"list:{i}", row | {"id": f"u{i}"}) for i in range(count))
        tracemalloc.start()
        found = prepare(source, tmp_path / "out", processes=1, limits=Limits(repeated_audio=True))
        assert found["kept"] == count
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(4096) - peak(1024) < 3072 * 300
