"""AISHELL-1: read Mandarin, 178 h (openslr.org/33).

    data_aishell/transcript/aishell_transcript_v0.8.txt     BAC009S0002W0122 而 对 楼市 成交 抑制 作用 最 大 的 限 购
    data_aishell/wav/train/S0002/BAC009S0002W0122.wav

The transcript separates words by spaces, which Chinese does not write: they are removed, as in every published result,
unless they are asked for. Some 0.2 % of the recordings have no transcript: these are filtered.

Utterances and hours: what others count in the archives (icefall, egs/aishell/ASR/local/display_manifest_statistics.py,
train at three speeds). The paper (arXiv 1709.05522) says 150, 10 and 5 h, which the archives do not bear out. These are
utterances with a transcript: recordings without one come on top of what is read.
"""

import argparse
from collections.abc import Iterator

from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.corpora.tree import Tree
from jaxspeech.errors import UserError

OFFICIAL = {"train": Official(120098, 150.9), "dev": Official(14326, 18.1), "test": Official(7176, 10.0)}
_TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where it is, and what becomes of the spaces."""
    parser.add_argument(
        "path", metavar="PATH", help="the folder data_aishell, in which the archives of wav/ have been unpacked too"
    )
    parser.add_argument("--keep-spaces", action="store_true", help="keep the spaces between words of the transcript")


def source(args: argparse.Namespace) -> "Aishell":
    """The corpus. Raises `UserError` if its transcript is not there."""
    return Aishell(Tree.open(args.path), args.keep_spaces)


class Aishell:
    """The corpus unpacked, in a folder or in a plain tar."""

    name = "aishell"

    def __init__(self, tree: Tree, keep_spaces: bool = False):
        places = [tree, tree.at("data_aishell"), tree.at("aishell/data_aishell")]
        found = [place for place in places if place.exists(_TRANSCRIPT)]
        if not found:
            raise UserError(f"{tree.path} has no {_TRANSCRIPT}; give the folder data_aishell")
        self._tree = found[0]
        self._keep_spaces = keep_spaces

    def splits(self) -> list[str]:
        """Raises `UserError` while recordings are still packed by speaker, as the download has them."""
        wav = self._tree.audio("wav")
        packed = self._tree.files("wav", ".tar.gz")
        found = [split for split in OFFICIAL if self._tree.folders(f"wav/{split}")]
        if packed and not found:
            raise UserError(
                f"{wav} holds {len(packed)} archives, one a speaker, which cannot be read as they are; unpack them: "
                f'cd {wav} && for f in *.tar.gz; do tar xzf "$f"; done'
            )
        if not found:
            raise UserError(f"{wav} has none of train, dev, test; unpack data_aishell.tgz whole")
        return found

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """By speaker and recording; last the lines of the transcript whose recording is missing."""
        speakers = self._tree.folders(f"wav/{split}")
        texts, bad = self._transcript(set(speakers))
        if split == next(iter(OFFICIAL)):
            yield from bad  # nobody knows of which split they are: they are told once
        for speaker in speakers:
            folder = f"wav/{split}/{speaker}"
            for file in self._tree.files(folder, ".wav"):
                name = file.removesuffix(".wav")
                if name in texts:
                    yield self._found(folder, name, speaker, *texts.pop(name))
                else:
                    yield Rejected(f"{folder}/{file}", "no transcript", f"{name} is not in {_TRANSCRIPT}", "filtered")
        for name, (where, text) in texts.items():
            speaker = _speaker(name)
            yield self._found(f"wav/{split}/{speaker}", name, speaker, where, text)

    def official(self, split: str) -> Official | None:
        """As others count them."""
        return OFFICIAL.get(split)

    def _found(self, folder: str, name: str, speaker: str, where: str, text: str) -> Found:
        text = " ".join(text.split()) if self._keep_spaces else "".join(text.split())
        audio = self._tree.audio(f"{folder}/{name}.wav")
        return Found(where, {"id": name, "audio": audio, "text": text, "speaker": speaker, "language": "zh"})

    def _transcript(self, speakers: set[str]) -> tuple[dict[str, tuple[str, str]], list[Rejected]]:
        """Utterance → (where, text) of these speakers, and the lines that are none."""
        texts: dict[str, tuple[str, str]] = {}
        bad = []
        for line in self._tree.lines(_TRANSCRIPT):
            if isinstance(line, Rejected):
                bad.append(line)
                continue
            where, content = line
            name, _, text = content.partition(" ")
            if not _speaker(name):
                bad.append(Rejected(where, "bad line", f"it begins with {name[:40]!r}, no name like BAC009S0002W0122"))
            elif name in texts:
                bad.append(Rejected(where, "duplicate id", f"{name} is already at {texts[name][0]}"))
            elif _speaker(name) in speakers:
                texts[name] = (where, text)
        return texts, bad


def _speaker(name: str) -> str:
    """S0002 of BAC009S0002W0122; "" for a name of another form."""
    return name[6:11] if len(name) == 16 and name[6] == "S" and name[11] == "W" else ""
