"""A folder of audio files with a text file for each: beside it, or at the same place under a second folder.

clips/a/1.wav   clips/a/1.txt        or        audio/a/1.flac   texts/a/1.txt

Noises and impulse responses have no texts: without them any folder of audio becomes a manifest to augment with.
"""

import argparse
import errno
import os
import stat
from collections.abc import Iterator

from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.errors import UserError

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".w64", ".caf", ".rf64")
_FOREIGN = (".m4a", ".mp4", ".aac", ".wma", ".amr", ".webm")  # audio that libsndfile does not read
_BOM = b"\xef\xbb\xbf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="folder of audio, searched with all folders in it")
    parser.add_argument("--texts", metavar="DIR", help="second folder, that has the texts (default: beside the audio)")
    parser.add_argument("--text-suffix", default=".txt", metavar="S", help="how the names of texts end (.txt)")
    parser.add_argument(
        "--no-text", action="store_true", help="look for no texts: noises, impulse responses, audio to be labelled"
    )
    parser.add_argument("--by-folder", action="store_true", help="each folder in DIR is a split (train, dev, …)")
    parser.add_argument("--language", metavar="L", help="of all utterances, such as en")


def source(args: argparse.Namespace) -> "AudioFolder":
    return AudioFolder(
        args.folder,
        texts=args.texts,
        text_suffix=args.text_suffix,
        no_text=args.no_text,
        by_folder=args.by_folder,
        language=args.language,
    )


class AudioFolder:
    """Audio files under a folder (a `Source`), in the order of their names; ids are their paths without the ending.

    Args:
        folder: searched with all folders in it.
        texts: second folder, that has the texts; None: they lie beside the audio.
        text_suffix: how the names of texts end.
        no_text: look for none; the text of every utterance is empty.
        by_folder: each folder in it is a split.
        language: of all utterances.
    """

    name = "folder"

    def __init__(
        self,
        folder: str,
        *,
        texts: str | None = None,
        text_suffix: str = ".txt",
        no_text: bool = False,
        by_folder: bool = False,
        language: str | None = None,
    ):
        """Raises `UserError` if a folder does not exist, or if texts are given and not wanted."""
        if no_text and texts is not None:
            raise UserError(f"--no-text and --texts {texts} exclude each other; leave out one of them")
        for path in (folder, texts):
            if path is not None and not os.path.isdir(path):
                raise UserError(f"{path} is no folder; give one of audio files")
        self._root, self._texts = os.path.abspath(folder), os.path.abspath(texts or folder)
        self._suffix, self._by_folder, self._language = text_suffix, by_folder, language
        self.empty_text = no_text
        self.notes: dict[str, int] = {}

    def splits(self) -> list[str]:
        if not self._by_folder:
            return [os.path.basename(self._root) or "all"]
        with os.scandir(self._root) as entries:
            found = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        if not found:
            raise UserError(f"{self._root} has no folders that could be splits; leave out --by-folder")
        self._note_what_is_in_no(found)
        return found

    def _note_what_is_in_no(self, splits: list[str]) -> None:
        loose = sum(os.path.splitext(name)[1].lower() in SUFFIXES for name in os.listdir(self._root))
        if loose:
            self.notes[f"audio files directly in {self._root}, in no split"] = loose
        with os.scandir(self._texts) as entries:
            folders = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        lonely = len({*folders} - {*splits})
        if lonely:
            self.notes[f"folders in {self._texts} without one of audio"] = lonely

    def official(self, split: str) -> Official | None:
        return None

    def items(self, split: str) -> Iterator[Found | Rejected]:
        begin = split if self._by_folder else ""
        for path in _files(self._root, begin, ()):
            if isinstance(path, Rejected):
                yield path
                continue
            stem, suffix = os.path.splitext(path)
            if suffix.lower() in SUFFIXES:
                yield self._utterance(path, stem)
            elif suffix.lower() in _FOREIGN and (self.empty_text or not os.path.lexists(self._text_of(stem))):
                yield Rejected(os.path.join(self._root, path), "corrupt audio", f"{suffix} is not read; make it .flac")
            elif path.endswith(self._suffix) and self._texts == self._root and not self.empty_text:
                stem = path.removesuffix(self._suffix)
                if not self._has_audio(stem):
                    yield Rejected(os.path.join(self._root, path), "text without audio", f"no {stem}.wav, .flac, …")
        if self._texts != self._root:
            yield from self._lonely_texts(begin)

    def _lonely_texts(self, begin: str) -> Iterator[Rejected]:
        """What the second folder has beyond the first."""
        if not os.path.isdir(os.path.join(self._texts, begin)):
            return
        for path in _files(self._texts, begin, ()):
            if isinstance(path, Rejected):
                yield path
            elif path.endswith(self._suffix) and not self._has_audio(path.removesuffix(self._suffix)):
                yield Rejected(os.path.join(self._texts, path), "text without audio", f"none under {self._root}")

    def _utterance(self, path: str, stem: str) -> Found | Rejected:
        audio, text = os.path.join(self._root, path), self._text_of(stem)
        try:
            words = "" if self.empty_text else _read(text)
        except FileNotFoundError:
            return Rejected(audio, "no text", f"{text} does not exist")
        except UnicodeDecodeError as error:
            return Rejected(text, "bad UTF-8", f"byte {error.start + 1}; save the file as UTF-8")
        except OSError as error:
            return Rejected(text, "unreadable text", str(error.strerror))
        row = {"id": stem.replace(os.sep, "/"), "audio": audio, "text": " ".join(words.split())}
        return Found(audio, row | ({"language": self._language} if self._language else {}))

    def _text_of(self, stem: str) -> str:
        return os.path.join(self._texts, stem + self._suffix)

    def _has_audio(self, stem: str) -> bool:
        base = os.path.join(self._root, stem)
        return any(os.path.lexists(base + suffix) or os.path.lexists(base + suffix.upper()) for suffix in SUFFIXES)


def _read(path: str) -> str:
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a named pipe would wait for ever
        raise OSError(errno.EINVAL, "it is no file")
    with open(path, "rb") as file:
        return file.read().removeprefix(_BOM).decode("utf-8")


def _files(root: str, below: str, above: tuple[tuple[int, int], ...]) -> Iterator[str | Rejected]:
    """Paths from the root of all files in a folder, sorted; links to folders are followed, but not in circles."""
    here = os.path.join(root, below)
    try:
        status = os.stat(here)
        names = sorted(os.listdir(here))
    except PermissionError:
        yield Rejected(here, "no read permission", "of a whole folder")
        return
    except OSError as error:
        yield Rejected(here, "unreadable folder", str(error.strerror))
        return
    place = (status.st_dev, status.st_ino)
    if place in above:
        yield Rejected(here, "symlink loop", "a folder that contains itself")
        return
    for name in names:
        if name.startswith("."):
            continue
        path = os.path.join(below, name)
        if os.path.isdir(os.path.join(root, path)):
            yield from _files(root, path, (*above, place))
        else:
            yield path
