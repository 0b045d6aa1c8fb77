"""A corpus as its publisher packs it: an unpacked folder, or a plain tar of one, read under the same names.

Names within it have forward slashes and no leading one; "" is its root. Audio in a tar is left where it is: a manifest
names it as `x.tar#member`.
"""

import functools
import os
import tarfile
from collections.abc import Iterator

from jaxspeech.corpora import text_lines
from jaxspeech.corpora.source import Rejected
from jaxspeech.errors import UserError

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip")


class Tree:
    """A folder, or what a tar holds.

    Attributes:
        path: absolute path of the folder or of the tar.
        inside: the folder within the tar, "" for all of it; always "" for a folder.
    """

    def __init__(self, path: str, inside: str = "", members: "_Members | None" = None):
        """Use `Tree.open`."""
        self.path = path
        self.inside = inside
        self._members = members

    @classmethod
    def open(cls, path: str) -> "Tree":
        """Opens a folder or a tar. Raises `UserError` for what is neither, and for compressed archives."""
        full = os.path.abspath(path)
        if os.path.isdir(full):
            return cls(full)
        if not os.path.exists(full):
            raise UserError(f"{path} does not exist; give the corpus' unpacked folder, or a plain .tar of it")
        if full.endswith(_COMPRESSED):
            raise UserError(
                f"{path} is compressed, so single files in it cannot be read; unpack it and give the folder "
                "(a .tar.gz may also just be gunzipped: a plain .tar is read in place)"
            )
        if not full.endswith(".tar"):
            raise UserError(f"{path} is neither a folder nor a .tar; give the corpus' unpacked folder")
        return cls(full, members=_Members(full))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return os.path.basename(self.inside or self.path)

    def at(self, name: str) -> "Tree":
        """A folder in it as a tree of its own."""
        if self._members is None:
            return Tree(os.path.join(self.path, *name.split("/"))) if name else self
        return Tree(self.path, _join(self.inside, name), self._members)

    def folders(self, name: str = "") -> list[str]:
        """Names of the folders in a folder, sorted; none where there is no such folder."""
        return [entry for entry, is_folder in self._entries(name) if is_folder]

    def files(self, name: str = "", suffix: str = "") -> list[str]:
        """Names of the files in a folder, sorted; none where there is no such folder."""
        return [entry for entry, is_folder in self._entries(name) if not is_folder and entry.endswith(suffix)]

    def all_files(self) -> list[str]:
        """Names of all files in a tar, in all its folders; a folder is not walked."""
        return [] if self._members is None else self._members.all_files()

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        if self._members is None:
            return os.path.isfile(os.path.join(self.path, name))
        return self._members.is_file(_join(self.inside, name))

    def audio(self, name: str) -> str:
        """What a manifest writes for a file: an absolute path, or `x.tar#member`. The file need not exist."""
        if self._members is None:
            return os.path.join(self.path, *name.split("/"))
        return f"{self.path}#{_join(self.inside, name)}"

    def read(self, name: str) -> bytes:
        """The content of a file. Raises `UserError` where it cannot be read."""
        try:
            if self._members is None:
                with open(os.path.join(self.path, name), "rb") as file:
                    return file.read()
            return self._members.read(_join(self.inside, name))
        except OSError as error:
            raise UserError(f"{self.audio(name)} cannot be read: {error.strerror or error}") from error

    def lines(self, name: str) -> Iterator[tuple[str, str] | Rejected]:
        """(where, line) of a text file in UTF-8; blank lines are left out, broken ones are `Rejected`."""
        shown = _join(self.name, name)
        try:
            for number, line in self._numbered(name):
                where = f"{shown}:{number}"
                try:
                    yield where, text_lines.decode(line)
                except ValueError as error:
                    yield Rejected(where, "bad UTF-8", str(error))
        except UserError as error:
            yield Rejected(shown, "unreadable file", str(error))

    def _numbered(self, name: str) -> Iterator[tuple[int, bytes]]:
        if self._members is None:
            yield from text_lines.read(os.path.join(self.path, name))
            return
        for number, line in enumerate(self.read(name).removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
            if line and not line.isspace():
                yield number, line.rstrip(b"\r")

    def _entries(self, name: str) -> list[tuple[str, bool]]:
        if self._members is not None:
            return self._members.entries(_join(self.inside, name))
        try:
            with os.scandir(os.path.join(self.path, name)) as entries:
                return sorted((entry.name, entry.is_dir()) for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UserError(
                f"{os.path.join(self.path, name)} cannot be read: {error.strerror}; make it readable"
            ) from error


class _Members:
    """The files of a tar by folder; its headers are walked once, when first asked for."""

    def __init__(self, path: str):
        self._path = path

    def is_file(self, name: str) -> bool:
        folder, _, file = name.rpartition("/")
        return self._folders.get(folder, {}).get(file) is not None

    def entries(self, folder: str) -> list[tuple[str, bool]]:
        return sorted((name, place is None) for name, place in self._folders.get(folder, {}).items())

    def all_files(self) -> list[str]:
        return [_join(folder, name) for folder, inside in self._folders.items() for name, at in inside.items() if at]

    def read(self, name: str) -> bytes:
        folder, _, file = name.rpartition("/")
        place = self._folders.get(folder, {}).get(file)
        if place is None:
            raise FileNotFoundError(2, "no such member", name)
        with open(self._path, "rb") as archive:
            archive.seek(place[0])
            return archive.read(place[1])

    @functools.cached_property
    def _folders(self) -> dict[str, dict[str, tuple[int, int] | None]]:
        """Folder → name → (where its content begins, bytes); None for a folder."""
        folders: dict[str, dict[str, tuple[int, int] | None]] = {}
        try:
            with tarfile.open(self._path, "r:") as archive:
                for member in archive:
                    if member.isreg():
                        folder, _, file = member.name.removeprefix("./").rpartition("/")
                        if folder not in folders:
                            _add_folder(folders, folder)
                        folders[folder][file] = (member.offset_data, member.size)
                    archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all that it has seen
        except (tarfile.TarError, OSError) as error:
            raise UserError(f"{self._path} is no tar that can be read: {error}; fetch it again") from error
        return folders


def _add_folder(folders: dict[str, dict[str, tuple[int, int] | None]], folder: str) -> None:
    """Makes a folder known to those above it."""
    folders.setdefault(folder, {})
    while folder:
        folder, _, name = folder.rpartition("/")
        folders.setdefault(folder, {})[name] = None


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name
