"""The AMI meeting corpus: 100 h of English meetings, on headsets and on arrays (groups.inf.ed.ac.uk/ami).

    amicorpus/ES2002a/audio/ES2002a.Headset-0.wav             a file a participant; Array1-01 to Array2-08, Mix-Headset
    ami_public_manual_1.6.2/corpusResources/meetings.xml      who is participant A, and the channel of that headset
    ami_public_manual_1.6.2/segments/ES2002a.A.segments.xml   segments, each with the words that it spans
    ami_public_manual_1.6.2/words/ES2002a.A.words.xml         words with times, punctuation, laughter

An utterance is a segment of the transcribers, widened where a word reaches beyond it. Text keeps case and punctuation;
the underscores of spelled words go (T_V_ is TV), a broken word ends in a hyphen. The annotations are read from the
unpacked folder or from their zip.

Partitions: groups.inf.ed.ac.uk/ami/corpus/datasets.shtml. Neither utterances nor hours of them are published there:
others count 78, 9 and 9 h (Kaldi), from segments of their own.
"""

import argparse
import pathlib
import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from typing import Any

from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.corpora.tree import Tree
from jaxspeech.errors import UserError

_SCENARIO = {
    "train": "ES2002 ES2005 ES2006 ES2007 ES2008 ES2009 ES2010 ES2012 ES2013 ES2015 ES2016 IS1000 IS1001 IS1002 IS1003 "
    "IS1004 IS1005 IS1006 IS1007 TS3005 TS3008 TS3009 TS3010 TS3011 TS3012",
    "dev": "ES2003 ES2011 IS1008 TS3004 TS3006",
    "test": "ES2004 ES2014 IS1009 TS3003 TS3007",
}
_FULL_ASR = {
    "train": f"{_SCENARIO['train']} ES2003 ES2014 TS3006 TS3007 EN2001 EN2003 EN2004 EN2005 EN2006 EN2009 "
    "IN1001 IN1002 IN1005 IN1007 IN1008 IN1009 IN1012 IN1013 IN1014 IN1016",
    "dev": "ES2011 IS1008 TS3004 IB4001 IB4002 IB4003 IB4004 IB4010 IB4011",
    "test": "ES2004 IS1009 TS3003 EN2002",
}
PARTITIONS = {
    name: {split: frozenset(sessions.split()) for split, sessions in parts.items()}
    for name, parts in {"full-corpus-asr": _FULL_ASR, "scenario-only": _SCENARIO}.items()
}
_MICROPHONES = {"headset": "", "mix": "Mix-Headset", "array": "Array1-01"}
_OTHERS = re.compile(r"Array[12]-0[1-8]|Lapel-[0-4]|Mix-Lapel")
_MEETING = re.compile(r"(ES|IS|TS|EN|IN|IB)\d{4}[a-e]?")
_MANUAL = "ami_public_manual_1.6.2"
_NITE = "{http://nite.sourceforge.net/}"
_SPAN = re.compile(r"#id\(([^)]*)\)(?:\.\.id\(([^)]*)\))?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where audio and annotations are, which microphone, which partition."""
    parser.add_argument("path", metavar="DIR", help="the folder amicorpus with a folder for each meeting")
    parser.add_argument(
        "--annotations", metavar="PATH", help=f"{_MANUAL}, the folder or its zip (found in DIR or beside it)"
    )
    parser.add_argument(
        "--microphone",
        default="headset",
        metavar="NAME",
        help="headset: each speaker's own (default); mix: all headsets; array: Array1-01; or one by name: Array2-03",
    )
    parser.add_argument(
        "--partition",
        default="full-corpus-asr",
        choices=list(PARTITIONS),
        help="official division of the meetings (full-corpus-asr)",
    )
    parser.add_argument(
        "--no-punctuation", action="store_true", help="leave punctuation and hyphens of broken words out"
    )


def source(args: argparse.Namespace) -> "Ami":
    """The corpus. Raises `UserError` if meetings or annotations are not there, or the microphone is none."""
    microphone = _MICROPHONES.get(args.microphone, args.microphone)
    if microphone not in _MICROPHONES.values() and not _OTHERS.fullmatch(microphone):
        raise UserError(f"--microphone {args.microphone} is none of AMI; give headset, mix, array, or one as Array2-03")
    tree = Tree.open(args.path)
    places = [tree.at(name) for name in ("", "amicorpus", "wav_db")]
    audio = [place for place in places if any(_MEETING.fullmatch(name) for name in place.folders())]
    if not audio:
        raise UserError(
            f"{args.path} has no meeting such as ES2002a/audio/ES2002a.Headset-0.wav; give the folder amicorpus"
        )
    annotations = _annotations(args.annotations, tree.path)
    return Ami(audio[0], annotations, microphone, args.partition, not args.no_punctuation)


class Ami:
    """One microphone of the meetings."""

    name = "ami"

    def __init__(
        self,
        audio: Tree,
        annotations: pathlib.Path | zipfile.Path,
        microphone: str,
        partition: str = "full-corpus-asr",
        punctuation: bool = True,
    ):
        """`microphone` is what stands in names of files, such as Array1-01; "" is the headset of who speaks."""
        self._audio = audio
        self._annotations = annotations
        self._microphone = microphone
        self._partition = PARTITIONS[partition]
        self._punctuation = punctuation

    def splits(self) -> list[str]:
        """train, dev and test."""
        return list(self._partition)

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """By meeting, participant and segment."""
        there = frozenset(self._audio.folders())
        for meeting, agent, speaker, channel in self._participants():
            if meeting.rstrip("abcde") in self._partition[split]:
                microphone = self._microphone or f"Headset-{channel}"
                audio = self._audio.audio(f"{meeting}/audio/{meeting}.{microphone}.wav")
                for item in self._segments(meeting, agent, {"audio": audio, "speaker": speaker, "language": "en"}):
                    if isinstance(item, Found) and meeting not in there:
                        yield Rejected(item.where, "meeting not downloaded", meeting, "filtered")
                    else:
                        yield item

    def official(self, split: str) -> Official | None:
        """Nothing is published of the partitions."""
        return None

    def _participants(self) -> list[tuple[str, str, str, int]]:
        """(meeting, letter of the participant, name of the person, channel of the headset), sorted."""
        try:
            root = ElementTree.fromstring((self._annotations / "corpusResources" / "meetings.xml").read_bytes())
            found = [
                (
                    meeting.attrib["observation"],
                    speaker.attrib["nxt_agent"],
                    speaker.attrib["global_name"],
                    int(speaker.attrib["channel"]),
                )
                for meeting in root.iter("meeting")
                for speaker in meeting.iter("speaker")
            ]
        except (ElementTree.ParseError, KeyError, ValueError, OSError) as error:
            raise UserError(f"{self._annotations}/corpusResources/meetings.xml cannot be used: {error}") from error
        return sorted(found)

    def _segments(self, meeting: str, agent: str, about: dict[str, Any]) -> Iterator[Found | Rejected]:
        name = f"{meeting}.{agent}"
        shown = f"segments/{name}.segments.xml"
        try:
            segments = ElementTree.fromstring((self._annotations / "segments" / f"{name}.segments.xml").read_bytes())
            words = list(ElementTree.fromstring((self._annotations / "words" / f"{name}.words.xml").read_bytes()))
        except (ElementTree.ParseError, OSError, KeyError) as error:  # KeyError: of a zip
            yield Rejected(shown, "bad annotation", f"segments or words of {name}: {error}")
            return
        places = {word.get(f"{_NITE}id"): place for place, word in enumerate(words)}
        for number, segment in enumerate(segments.iter("segment"), start=1):
            where = f"{shown}:{segment.get(f'{_NITE}id') or number}"
            try:
                begin, end = float(segment.attrib["transcriber_start"]), float(segment.attrib["transcriber_end"])
                spoken = _spanned(segment, words, places)
            except (KeyError, ValueError) as error:
                yield Rejected(where, "bad segment", f"{error} is missing or wrong")
                continue
            text, timed = _text(spoken, self._punctuation)
            if not any(character.isalnum() for character in text):
                yield Rejected(where, "no words", "laughter, noise or a gap", "filtered")
                continue
            begin = min([begin, *(start for _, start, _ in timed)])
            end = max([end, *(stop for *_, stop in timed)])
            if not 0 <= begin < end:
                yield Rejected(where, "bad segment", f"it goes from {begin:g} s to {end:g} s")
                continue
            row = about | {"id": f"{name}.{number:04d}", "offset": begin, "duration": round(end - begin, 6)}
            row |= {"text": text, "words": [[w, round(a - begin, 6), round(b - begin, 6)] for w, a, b in timed]}
            yield Found(where, row)


def _spanned(
    segment: ElementTree.Element, words: list[ElementTree.Element], places: dict[str | None, int]
) -> list[ElementTree.Element]:
    """The words of a segment: its children name the first and the last of them. Raises `KeyError`."""
    spoken: list[ElementTree.Element] = []
    for child in segment.iter(f"{_NITE}child"):
        span = _SPAN.search(child.get("href", ""))
        if span is None:
            raise KeyError("href")
        first, last = places[span[1]], places[span[2] or span[1]]
        spoken += words[first : last + 1]
    return [word for word in spoken if word.tag == "w"]


def _text(spoken: list[ElementTree.Element], punctuation: bool) -> tuple[str, list[list[Any]]]:
    """The text of words, and [word, start, end] of those that have times, in the meeting's seconds."""
    words: list[list[Any]] = []
    for word in spoken:
        content = (word.text or "").strip().replace("_", "")
        if word.get("punc") == "true":
            if punctuation and words:
                words[-1][0] += content
            continue
        if punctuation and word.get("trunc") == "true" and not content.endswith("-"):
            content += "-"
        if content:
            words.append([content, *_times(word)])
    timed = [word for word in words if word[1] is not None]
    return " ".join(word[0] for word in words), timed


def _times(word: ElementTree.Element) -> tuple[float | None, float | None]:
    """Start and end; (None, None) where the alignment failed."""
    try:
        start, end = float(word.attrib["starttime"]), float(word.attrib["endtime"])
    except (KeyError, ValueError):
        return None, None
    return (start, end) if 0 <= start <= end else (None, None)


def _annotations(given: str | None, beside: str) -> pathlib.Path | zipfile.Path:
    """The folder with words, segments and corpusResources, unpacked or in a zip. Raises `UserError`."""
    folders = [pathlib.Path(given)] if given else [pathlib.Path(beside), pathlib.Path(beside).parent]
    for folder in folders:
        for place in (folder, folder / _MANUAL, folder / f"{_MANUAL}.zip"):
            try:
                root = zipfile.Path(place) if place.is_file() and place.suffix == ".zip" else place
            except (zipfile.BadZipFile, OSError) as error:
                raise UserError(f"{place} is no zip that can be read: {error}; fetch it again") from error
            for inside in (root, root / _MANUAL):
                if (inside / "corpusResources" / "meetings.xml").exists() and (inside / "words").exists():
                    return inside
    raise UserError(
        f"no annotations in {given or beside}; give --annotations {_MANUAL} (or its .zip), fetched from the same site"
    )
