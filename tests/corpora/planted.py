"""A corpus of good utterances among which 25 defects are planted; each is known by its name and its line."""

import dataclasses
import json
import pathlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile

RATE = 16000
GOOD = 72
SPEED = 15.0  # characters a second
OLD = "old-disk"  # a folder that is gone: its audio lies in the corpus' own folder now

STORY = (
    "the river runs under an old bridge while children carry baskets of apples home before evening and nobody asks "
    "where seven white horses went last winter because every farmer in this valley knows their answer already"
)

# What is wrong → the reason that the ledger names, by the tool that sees it.
IN_HEADERS = {
    "zero bytes": "zero bytes",
    "0.02 s": "too short",
    "3 h file": "too long",
    "missing file": "missing file",
    "bad UTF-8": "bad UTF-8",
    "empty text": "empty text",
    "duplicate id": "duplicate id",
    "text longer than the audio allows": "text too long for its audio",
    "negative duration": "bad duration",
    "absolute path that moved": "missing file",
    "symlink loop": "symlink loop",
    "no read permission": "no read permission",
}
IN_SAMPLES = {
    "wrong rate in the header": "wrong rate in the header",
    "stereo with an empty channel": "empty channel",
    "clipped": "clipped",
    "silence": "silence",
    "truncated FLAC": "truncated or corrupt audio",
    "NaN floats": "not a number",
    "duplicate audio": "duplicate audio",
}
IN_OTHER_LINES = {
    "leak from the test set": "same audio",
    "swapped texts": "swapped text",
    "swapped texts, the other one": "swapped text",
    "wrong language": "another script",
}
IN_TABLES = {
    "BOM": "byte order mark skipped",
    "CRLF": "line ends of Windows (CRLF)",
    "quote in TSV": "unpaired quote kept as a letter",
}


@dataclasses.dataclass(frozen=True)
class Planted:
    """The corpus.

    Attributes:
        manifest: all lines, with a pseudo-label in the key `pseudo`.
        test: the manifest of the test set, one of whose utterances is in the other one.
        table: the good utterances as a TSV of Windows, with stray quotes.
        good: the good lines, in order, with absolute paths.
        table_texts: texts of the lines of the table, in order.
        lines: defect → number of its line, in the manifest or in the table.
        ids: defect → id of its line.
    """

    folder: pathlib.Path
    manifest: pathlib.Path
    test: pathlib.Path
    table: pathlib.Path
    good: list[dict[str, Any]]
    table_texts: list[str]
    lines: dict[str, int]
    ids: dict[str, str]


def plant(folder: pathlib.Path) -> Planted:
    """Writes audio, manifests and table."""
    writer = _Writer(folder)
    good = [
        writer.utterance(f"good-{i:02}", rate=_rate(i), ending="flac" if i % 3 == 0 else "wav") for i in range(GOOD)
    ]
    for row in good[::2]:
        del row["duration"]  # as many manifests have none
    spoilt = _spoil(writer, good)
    # Each bad line has good ones before and after it.
    order: list[tuple[str, dict[str, Any]]] = [("", row) for row in good[:10]]
    left = list(good[10:])
    for name, row in spoilt.items():
        order += [(name, row), ("", left.pop(0))]
    order += [("", row) for row in left]
    lines = [_line(row, "latin-1" if name == "bad UTF-8" else "utf-8") for name, row in order]
    (folder / "train.jsonl").write_bytes(b"".join(lines))
    test = [writer.utterance(f"test-{i}") for i in range(5)]
    copy = folder / "audio/heard-before.flac"
    sound, _ = soundfile.read(folder / spoilt["leak from the test set"]["audio"], dtype="int16")
    soundfile.write(copy, sound, RATE)
    test.append(spoilt["leak from the test set"] | {"id": "test-5", "audio": "audio/heard-before.flac"})
    (folder / "test.jsonl").write_bytes(b"".join(_line(row, "utf-8") for row in test))
    table_texts = [row["text"] for row in good]
    table_texts[9], table_texts[29] = f'"{table_texts[9]}', f'5" {table_texts[29]}'
    rows = "".join(f"{row['audio']}\t{text}\r\n" for row, text in zip(good, table_texts))
    (folder / "clips.tsv").write_bytes(b"\xef\xbb\xbf" + f"path\tsentence\r\n{rows}".encode())
    return Planted(
        folder=folder,
        manifest=folder / "train.jsonl",
        test=folder / "test.jsonl",
        table=folder / "clips.tsv",
        good=[row | {"audio": str(folder / row["audio"])} for row in good],
        table_texts=table_texts,
        lines={name: number for number, (name, _) in enumerate(order, start=1) if name}
        | {"BOM": 1, "CRLF": 1, "quote in TSV": 11},
        ids={name: row["id"] for name, row in spoilt.items()},
    )


def _rate(number: int) -> int:
    """Most files have one rate; that a few have another is no defect."""
    return {5: 8000, 25: 8000, 15: 44100, 45: 44100}.get(number, RATE)


def _spoil(writer: "_Writer", good: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The bad lines by the names of their defects."""

    def floats(path: pathlib.Path, sound: np.ndarray) -> None:
        soundfile.write(path, np.where(np.arange(len(sound)) == 999, np.nan, sound), RATE, subtype="FLOAT")

    def half(path: pathlib.Path, sound: np.ndarray) -> None:
        soundfile.write(path, sound, RATE)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def forbidden(path: pathlib.Path, sound: np.ndarray) -> None:
        soundfile.write(path, sound, RATE)
        path.chmod(0)

    def plain(change: Callable[[np.ndarray], np.ndarray], rate: int = RATE) -> _Write:
        return lambda path, sound: soundfile.write(path, change(sound), rate)

    files: dict[str, tuple[str, _Write]] = {
        "wrong rate in the header": ("wav", plain(lambda sound: sound, RATE // 2)),
        "stereo with an empty channel": ("wav", plain(lambda sound: np.stack([sound, 0 * sound], 1))),
        "clipped": ("wav", plain(lambda sound: np.clip(20 * sound, -1, 1))),
        "silence": ("wav", plain(lambda sound: np.sign(sound) / 32768)),  # the last bit of 16
        "truncated FLAC": ("flac", half),
        "zero bytes": ("wav", lambda path, sound: path.touch()),
        "NaN floats": ("wav", floats),
        "0.02 s": ("wav", plain(lambda sound: sound[: RATE // 50])),
        "3 h file": ("wav", lambda path, sound: _three_hours(path)),
        "missing file": ("wav", lambda path, sound: None),
        "symlink loop": ("wav", lambda path, sound: path.symlink_to(path)),
        "no read permission": ("wav", forbidden),
        "text longer than the audio allows": ("wav", plain(lambda sound: sound[: RATE // 2])),
    }
    rows = {}
    for name, (ending, write) in files.items():
        rows[name] = writer.utterance(name.replace(" ", "-"), ending=ending, write=write)
        del rows[name]["duration"]  # else the header would contradict the line
    for name in ("bad UTF-8", "empty text", "negative duration", "absolute path that moved"):
        rows[name] = writer.utterance(name.replace(" ", "-"))
    rows["bad UTF-8"]["text"] += " at the café"
    rows["empty text"]["text"] = " "
    rows["negative duration"]["duration"] *= -1
    moved = rows["absolute path that moved"]
    moved["audio"] = str(writer.folder / OLD / moved["audio"])
    rows["duplicate id"] = writer.utterance("duplicate-id") | {"id": good[4]["id"]}
    sound, _ = soundfile.read(writer.folder / good[4]["audio"], dtype="int16")
    soundfile.write(writer.folder / "audio/again.flac", sound, RATE)
    rows["duplicate audio"] = good[4] | {"id": "duplicate-audio", "audio": "audio/again.flac"}
    rows["leak from the test set"] = writer.utterance("leak")
    one, other = (writer.utterance(f"swapped-{n}") for n in (1, 2))
    one["text"], other["text"] = other["text"], one["text"]
    rows |= {"swapped texts": one, "swapped texts, the other one": other}
    rows["wrong language"] = writer.utterance("wrong-language")
    rows["wrong language"]["text"] = "река течёт под старым мостом домой к вечеру"
    rows["wrong language"]["pseudo"] = rows["wrong language"]["text"]
    return rows


_Write = Callable[[pathlib.Path, np.ndarray], None]


class _Writer:
    """Writes utterances, each with a voice and words of its own."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        (folder / "audio").mkdir(parents=True)
        self._rng = np.random.default_rng(3)
        self._words = STORY.split()

    def utterance(self, name: str, *, rate: int = RATE, ending: str = "wav", write: _Write | None = None) -> dict:
        """A line with a path relative to the folder, its duration and a pseudo-label."""
        rng = self._rng
        text = ""
        while len(text) < 36:
            text = f"{text} {rng.choice(self._words)}".strip()
        # What is not good has the usual speed, so that nothing but its defect stands out.
        speed = SPEED * float(rng.lognormal(0, 0.12)) if write is None else SPEED
        sound = voice(rng, len(text) / speed, rate)
        path = self.folder / f"audio/{name}.{ending}"
        if write is None:
            soundfile.write(path, sound, rate)
        else:
            write(path, sound)
        heard = text[:-1]  # a model's pseudo-label is nearly right
        row = {"id": name, "audio": f"audio/{name}.{ending}", "text": text.capitalize() + ".", "pseudo": heard}
        return row | {"duration": len(sound) / rate}


def voice(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    """float64[samples] like speech: harmonics of a gliding pitch under syllables, four a second, and a little noise."""
    turn = np.arange(512) / 512
    period = sum(np.sin(2 * np.pi * k * turn) * rng.uniform(0.2, 1) / k for k in range(1, 9))
    t = np.arange(round(seconds * rate)) / rate
    glide = 0.15 * np.sin(2 * np.pi * rng.uniform(0.4, 1.2) * t + rng.uniform(0, 6))
    phase = rng.uniform(90, 220) * np.cumsum(1 + glide) / rate
    syllables = np.maximum(np.sin(2 * np.pi * 4 * t + rng.uniform(0, 6)) + 0.3, 0)
    sound = period[(phase * len(period)).astype(int) % len(period)] * syllables
    return 0.4 * sound / np.abs(sound).max() + 0.001 * rng.standard_normal(len(t))


def _three_hours(path: pathlib.Path) -> None:
    """A wav file of 3 h whose samples are a hole in the file: it takes no disk."""
    size = 3 * 3600 * RATE * 2
    chunks = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16) + b"data" + struct.pack("<I", size)
    with open(path, "wb") as file:
        file.write(b"RIFF" + struct.pack("<I", len(chunks) + size) + chunks)
        file.truncate(file.tell() + size)


def _line(row: dict[str, Any], encoding: str) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode(encoding)
