"""Tars of samples: members that share a key and stand next to each other, audio and text of one utterance.

Only headers and texts are read; audio stays where it is, and a manifest names it as `x.tar#member`.
"""

import dataclasses
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

from jaxspeech.corpora import text_lines
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.data import remote
from jaxspeech.errors import UserError

AUDIO = ("flac", "wav", "mp3", "ogg", "opus", "m4a", "aac", "wma", "aif", "aiff")
_LONGEST_TEXT = 1 << 24  # bytes
_COMPRESSED = re.compile(r"\.(tgz|tbz2|txz|tar\.\w+|zip)$")
_BLOCK = 512  # bytes; a tar ends with one of zeros


class Unusable(Exception):
    """A sample that is no utterance: reason and detail."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """Members with one key.

    Attributes:
        tar: path or URL.
        key: what their names begin with.
        audio: names of the members that are audio.
        texts: content of the members that are text or JSON, by ending, in lower case.
        odd: what is wrong with the name of its only member; "": nothing.
    """

    tar: str
    key: str
    audio: list[str] = dataclasses.field(default_factory=list)
    texts: dict[str, bytes] = dataclasses.field(default_factory=dict)
    odd: str = ""

    def text(self, ending: str) -> str:
        """The content of a member; raises `Unusable`."""
        content = self.texts.get(ending)
        if content is None:
            raise Unusable("no transcript", f"no {self.key}.{ending} stands next to {self.audio[0]}")
        try:
            return content.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise Unusable("bad UTF-8", f"byte {error.start + 1} of {self.key}.{ending}") from error


@dataclasses.dataclass(frozen=True)
class TarShards:
    """Lists of tars (a `Source`).

    Attributes:
        name: of the format.
        shards: (where it is listed, path or URL) of the tars of each split.
        split_name: name of a member → (key, ending).
        describe: sample → manifest row without `audio`; raises `Unusable`.
        texts: endings of the members that are read.
    """

    name: str
    shards: dict[str, list[tuple[str, str]]]
    split_name: Callable[[str], tuple[str, str]]
    describe: Callable[[Sample], dict[str, Any]]
    texts: tuple[str, ...] = ("txt", "json")

    def splits(self) -> list[str]:
        """Raises `UserError` where something is listed that cannot be read at random, or not one tar is there."""
        for listed in self.shards.values():
            for where, path in listed:
                if path.startswith("pipe:") or path.endswith("|"):
                    raise UserError(f"{where}: {path} is a command; download the tars and list their paths")
                if _COMPRESSED.search(path):
                    raise UserError(
                        f"{where}: {path} is compressed, which hides where its files begin; unpack it to a .tar"
                    )
                if not path.endswith(".tar"):
                    raise UserError(f"{where}: {path} does not end in .tar; rename it if it is one")
            local = [(where, path) for where, path in listed if not remote.is_url(path)]
            if local and len(local) == len(listed) and not any(os.path.exists(path) for _, path in local):
                where, path = local[0]
                raise UserError(f"{where}: {path} does not exist, nor do the others; if they have moved, give --root")
        return list(self.shards)

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """Samples in the order of the tars and of what is in them."""
        for where, path in self.shards[split]:
            yield from self._tar(where, path)

    def official(self, split: str) -> Official | None:
        """Nobody publishes what tars of yours hold."""
        return None

    def _tar(self, listed: str, path: str) -> Iterator[Found | Rejected]:
        # A whole tar is looked at before its first sample is told: of two members of a name, the later is read.
        found: list[Sample] = []
        broken = None
        members: dict[str, int] = {}
        try:
            for sample in samples(path, self.split_name, self.texts):
                for name in sample.audio:
                    members[name] = members.get(name, 0) + 1
                found.append(sample)
        except FileNotFoundError:
            broken = Rejected(listed, "missing file", path)
        except (tarfile.TarError, OSError, EOFError) as error:
            broken = Rejected(listed, "broken tar", f"{path}: {error}; {len(found)} samples could be read")
        for sample in found:
            yield self._sample(sample, members)
        if broken is not None:
            yield broken

    def _sample(self, sample: Sample, members: dict[str, int]) -> Found | Rejected:
        where = f"{os.path.basename(sample.tar)}#{sample.audio[0] if sample.audio else sample.key}"
        try:
            if sample.odd:
                raise Unusable("no usable name", sample.odd)
            if not sample.audio:
                endings = ", ".join(sample.texts)
                raise Unusable("no audio", f"no audio stands next to {sample.key} ({endings})")
            if len(sample.audio) > 1:
                raise Unusable("several audio files", ", ".join(sample.audio))
            (member,) = sample.audio
            if members[member] > 1:
                raise Unusable("duplicate id", f"{sample.tar} has {members[member]} members {member}")
            if "#" in member:
                raise Unusable("no usable name", f"member {member} has a '#', which parts tar and member; rename it")
            row = self.describe(sample)
        except Unusable as unusable:
            return Rejected(where, *unusable.args)
        return Found(where, {"id": sample.key, "audio": f"{sample.tar}#{member}"} | row)


def samples(path: str, split_name: Callable[[str], tuple[str, str]], texts: tuple[str, ...]) -> Iterator[Sample]:
    """The samples of a tar that have audio or one of the texts.

    Raises `tarfile.TarError`, `OSError` or `EOFError` after the last sample that is whole, where the tar is damaged or
    cut off.
    """
    sample: Sample | None = None
    with (
        remote.open_stream(path) if remote.is_url(path) else open(path, "rb") as file,
        tarfile.open(fileobj=file, mode="r:") as tar,
    ):
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # tarfile keeps all that it has seen
            name = member.name.removeprefix("./")
            if not member.isreg() or os.path.basename(name).startswith("."):  # "._a.wav" is left by macOS
                continue
            key, ending = split_name(name)
            if ending not in AUDIO and ending not in texts:
                if name.rpartition(".")[2].lower() in AUDIO:
                    odd = f"{name} counts as {ending!r} of {key!r}, for the first dot ends the key; rename it"
                    yield Sample(path, key, [name], odd=odd)
                continue
            if sample is None or key != sample.key:
                if sample is not None:
                    yield sample
                sample = Sample(path, key)
            if ending in AUDIO:
                sample.audio.append(name)
            elif member.size <= _LONGEST_TEXT:
                content = tar.extractfile(member)
                assert content is not None
                sample.texts[ending] = content.read()
        # tarfile takes the first block that is no header for the end.
        file.seek(tar.offset)
        end = file.read(_BLOCK)
        if sample is not None:
            yield sample
        if end != bytes(_BLOCK):
            what = "it is cut off" if len(end) < _BLOCK else "no header of a file stands there"
            raise tarfile.ReadError(f"damaged at byte {tar.offset} ({what})")


def listed(path: str, root: str | None) -> list[tuple[str, str]]:
    """(where, tar) of each line of a file that lists tars.

    Args:
        path: the list; relative paths in it begin at its folder.
        root: a folder: each tar lies there under the last part of its path, wherever the list says it is.
    """
    found = []
    for number, line in text_lines.read(path):
        where = f"{os.path.basename(path)}:{number}"
        try:
            tar = text_lines.decode(line).strip()
        except ValueError as error:
            raise UserError(f"{where}: {error}; give a text file with the path of a tar on each line") from error
        if root is not None:
            tar = os.path.join(os.path.abspath(root), os.path.basename(tar))
        elif not tar.startswith("pipe:"):
            tar = text_lines.absolute(tar, os.path.dirname(os.path.abspath(path)))
        found.append((where, tar))
    if not found:
        raise UserError(f"{path} lists no tars; each line is the path of one")
    return found
