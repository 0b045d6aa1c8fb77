"""Arrays kept beside a file so that slow work on it is done once: indexes of manifests, token counts.

A sidecar is an `.npz` with a key inside. It is a cache: whatever is wrong with it (stale, corrupt, in a read-only
folder), it is ignored and the work is done again.
"""

import hashlib
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Mapping

import numpy as np

from jaxspeech.output import cache_folder


def load(path: str, kind: str, key: str) -> dict[str, np.ndarray] | None:
    """The arrays saved for the file at `path` under `kind`, if they were saved with the same `key`; else None."""
    for place in _places(path, kind):
        try:
            with np.load(place, allow_pickle=False) as saved:
                if str(saved["key"]) == key:
                    return {name: saved[name] for name in saved.files if name != "key"}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError):
            continue
    return None


def save(path: str, kind: str, key: str, arrays: Mapping[str, np.ndarray]) -> pathlib.Path | None:
    """Saves arrays beside the file, or in `$XDG_CACHE_HOME/jaxspeech` where its folder is read-only.

    Atomic, so that several hosts may do it at once. Returns where, or None if it could be saved nowhere.
    """
    for place in _places(path, kind):
        temporary = None
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, prefix=place.name, delete=False) as file:
                temporary = file.name
                np.savez(file, key=np.array(key), **dict(arrays))  # type: ignore[arg-type]
            os.chmod(temporary, 0o644)  # a temporary file is private; a cache beside shared data is not
            os.replace(temporary, place)
            return place
        except OSError:
            if temporary is not None:
                pathlib.Path(temporary).unlink(missing_ok=True)
    return None


def _places(path: str, kind: str) -> tuple[pathlib.Path, pathlib.Path]:
    file = pathlib.Path(path).absolute()
    digest = hashlib.sha256(os.fsencode(file)).hexdigest()[:32]
    return file.with_name(f".{file.name}.{kind}.npz"), cache_folder() / f"{digest}.{kind}.npz"
