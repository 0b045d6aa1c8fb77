"""tensorflow-datasets by name: `jaxspeech prepare tfds librispeech --download --out DIR`; its audio becomes FLAC files.

A data set of TFDS holds audio as arrays inside records, which are converted once. A file that is there already, with
the header that it should have, is not written again: a second start goes on where the first one ended.
"""

import argparse
import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from jaxspeech import output
from jaxspeech.corpora import exports
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.errors import UserError

_KEYS = ("text", "id", "speaker", "language", "translation")
_TEXTS = ("text", "transcription", "transcript", "sentence", "normalized_text")
_IDS = ("id", "utterance_id")
_SPEAKERS = ("speaker_id", "speaker")
_FOLDER = 10_000  # files in one folder
_LOUDEST = 2.0  # floats beyond this are no audio within ±1 that overshoots a little


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which data set, where it is, and what its features are called."""
    parser.epilog = (
        "tensorflow-datasets reads audio through TensorFlow and, to prepare it, ffmpeg. A data set that was prepared "
        "as TFRecord cannot be read at random: prepare it again as array_record, with --download and another "
        "--data-dir."
    )
    parser.add_argument("dataset", metavar="NAME", help="as tfds.load takes it: librispeech, mls/polish:1.0.0, …")
    parser.add_argument("--data-dir", metavar="DIR", help="where TFDS keeps its data sets (~/tensorflow_datasets)")
    parser.add_argument("--download", action="store_true", help="let TFDS fetch and prepare what is not there")
    parser.add_argument("--audio", metavar="DIR", help="folder of the FLAC files (OUT/audio)")
    parser.add_argument("--feature", metavar="NAME", help="feature with the audio (the only one of that type)")
    for key in _KEYS:
        usual = {"text": _TEXTS, "id": ("<split>-<number>",), "speaker": _SPEAKERS}.get(key, ())
        if key == "id":
            usual = (*_IDS, *usual)
        parser.add_argument(
            f"--{key}", metavar="NAME", help=f"feature with the {key}" + (f" ({', '.join(usual)})" if usual else "")
        )
    parser.add_argument("--rate", type=int, metavar="HZ", help="of the audio, where the data set does not say it")
    parser.add_argument(
        "--bits",
        type=int,
        default=16,
        choices=(16, 24, 32),
        help="of samples that are integers of 32 bits and more (16)",
    )


def source(args: argparse.Namespace) -> "TensorflowDataset":
    """The data set as a source. Raises `UserError` where it, or a feature that is asked for, is not there."""
    builder = _builder(args.dataset, args.data_dir, args.download)
    columns = {key: name for key in _KEYS if (name := getattr(args, key)) is not None}
    into = os.path.abspath(args.audio or os.path.join(args.out, "audio"))
    return TensorflowDataset.of(builder, into, args.feature, columns, args.rate, args.bits)


@dataclasses.dataclass(frozen=True)
class TensorflowDataset:
    """A prepared data set (a `Source`).

    Attributes:
        builder: of tensorflow_datasets.
        into: folder of the audio of this data set, configuration and version.
        feature: that holds the audio.
        columns: our key → name of the feature.
        rate: Hz.
        bits: of integer samples that are stored in wider ones.
        notes: what was odd but harmless → how often.
    """

    builder: Any
    into: pathlib.Path
    feature: str
    columns: dict[str, str]
    rate: int
    bits: int
    notes: dict[str, int] = dataclasses.field(default_factory=dict)
    name: str = "tfds"

    @classmethod
    def of(
        cls,
        builder: Any,
        into: str,
        feature: str | None = None,
        columns: dict[str, str] | None = None,
        rate: int | None = None,
        bits: int = 16,
    ) -> "TensorflowDataset":
        """Finds out what is not said. Raises `UserError` for what the data set does not tell either."""
        name, features = builder.info.full_name, builder.info.features
        columns = dict(columns or {})
        for flag, asked in {"feature": feature, **columns}.items():
            if asked is not None and asked not in features:
                raise UserError(f"--{flag}: {name} has no feature {asked!r}, but {', '.join(features)}")
        if feature is None:
            fitting = [key for key in features if hasattr(features[key], "sample_rate")]
            if len(fitting) != 1:
                raise UserError(f"{name} has the features {', '.join(features)}; give --feature to say which is audio")
            feature = fitting[0]
        for key, usual in (("text", _TEXTS), ("id", _IDS), ("speaker", _SPEAKERS)):
            known = next((one for one in usual if one in features), None)
            if known is not None:
                columns.setdefault(key, known)
        if "text" not in columns:
            raise UserError(
                f"{name} has the features {', '.join(features)}; give --text to say which is the transcript"
            )
        stated = getattr(features[feature], "sample_rate", None)
        if rate and stated and rate != stated:
            raise UserError(f"--rate {rate}: {name} says {stated} Hz; leave the flag out")
        rate = rate or stated
        if not rate:
            raise UserError(f"{name} does not tell the rate of its audio; give --rate in Hz")
        return cls(builder, pathlib.Path(into, *name.split("/")), feature, columns, int(rate), bits)

    def splits(self) -> list[str]:
        return list(self.builder.info.splits)

    def official(self, split: str) -> Official | None:
        return Official(utterances=int(self.builder.info.splits[split].num_examples))

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """In the order of the records; audio is written on the way."""
        try:
            records = self.builder.as_data_source(split)
        except (NotImplementedError, ValueError) as error:
            raise UserError(
                f"{self.builder.info.full_name} cannot be read at random ({_line(error)}); prepare it as array_record: "
                "--download with another --data-dir"
            ) from error
        for number in range(len(records)):
            where = f"{self.builder.info.full_name}:{split}:{number}"
            try:
                record = records[number]
            except Exception as error:  # of ArrayRecord, protobuf, TensorFlow: each has its own
                yield Rejected(where, "broken record", _line(error))
                continue
            yield self._item(where, record, split, number)

    def _item(self, where: str, record: dict[str, Any], split: str, number: int) -> Found | Rejected:
        row: dict[str, Any] = {"id": f"{split}-{number:08d}"}
        try:
            row |= {key: self._said(name, record[name]) for key, name in self.columns.items()}
        except UnicodeDecodeError as error:
            return Rejected(where, "not UTF-8", str(error))
        path = self.into / split / f"{number // _FOLDER:05d}" / f"{number:08d}"
        try:
            found = self._stored(path, record[self.feature])
        except _Unfit as unfit:
            return Rejected(where, *unfit.args)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}; is there space and permission?") from error
        return Found(where, row | {"audio": str(found)})

    def _said(self, name: str, value: Any) -> str:
        """What a cell says; of a class its name."""
        feature = self.builder.info.features[name]
        value = value.item() if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0 else value
        if hasattr(feature, "int2str") and isinstance(value, int):
            return str(feature.int2str(value))
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)

    def _stored(self, path: pathlib.Path, value: Any) -> pathlib.Path:
        """The file of an utterance, written where it is not there yet."""
        if isinstance(value, bytes):  # kept encoded (lazy_decode)
            ending = exports.ending(value)
            if ending is None:
                raise _Unfit("unknown kind of audio", f"it begins with {value[:12]!r}")
            target = path.with_name(f"{path.name}.{ending}")
            if not (target.exists() and target.stat().st_size == len(value)):
                output.write(target, value)
            return target
        samples, subtype = self._samples(np.asarray(value))
        target = path.with_name(f"{path.name}.flac")
        if not _is(target, samples, self.rate, subtype):
            output.write(target, _flac(samples, self.rate, subtype))
        return target

    def _samples(self, audio: np.ndarray) -> tuple[np.ndarray, str]:
        """int16 or int32 (of which FLAC keeps the upper 24 bits), [samples, channels], and libsndfile's subtype."""
        audio = audio[:, None] if audio.ndim == 1 else audio
        if audio.ndim != 2 or not audio.size:
            raise _Unfit("empty audio" if not audio.size else "not audio", f"an array of shape {audio.shape}")
        if np.issubdtype(audio.dtype, np.floating):
            peak = float(np.abs(audio).max())
            if not math.isfinite(peak):
                raise _Unfit("not a number", "NaN or infinite samples")
            if peak > _LOUDEST:
                raise _Unfit("not within ±1", f"a peak of {peak:g}")
            if peak > 1:
                what = "utterances with samples beyond ±1, which were clipped"
                self.notes[what] = self.notes.get(what, 0) + 1
            whole = np.rint(audio.astype(np.float64) * 2**23).clip(-(2**23), 2**23 - 1)
            return whole.astype(np.int32) << 8, "PCM_24"
        if not np.issubdtype(audio.dtype, np.integer):
            raise _Unfit("not audio", f"an array of {audio.dtype}")
        bits = 16 if audio.dtype == np.int16 else self.bits
        most = int(max(abs(int(audio.min())) - 1, int(audio.max())))
        if most >= 1 << (bits - 1):
            raise _Unfit(f"samples of more than {bits} bits", f"a peak of {most}; set --bits if all are so")
        if bits == 16:
            return audio.astype(np.int16), "PCM_16"
        return audio.astype(np.int32) << (32 - bits), "PCM_24"


class _Unfit(Exception):
    """(reason, detail) why a value is no audio that can be stored."""


def _builder(name: str, folder: str | None, download: bool) -> Any:
    """The builder of a data set that is prepared. Raises `UserError`."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"tfds needs {error.name}: pip install 'jaxspeech[tfds]'") from error
    try:
        builder = tfds.builder(name, data_dir=folder)
        if not builder.is_prepared():
            if not download:
                raise UserError(
                    f"{builder.info.full_name} is not prepared in {builder.data_dir}; correct --data-dir, or let TFDS "
                    "fetch it with --download"
                )
            builder.download_and_prepare(file_format="array_record")
            builder = tfds.builder(name, data_dir=folder)
    except ImportError as error:
        raise UserError(f"{name} needs {error.name}: pip install 'jaxspeech[tfds]'") from error
    except UserError:
        raise
    except Exception as error:  # a hundred builders, each with exceptions of its own
        raise UserError(f"tensorflow-datasets cannot give {name}: {_line(error)}") from error
    return builder


def _is(path: pathlib.Path, samples: np.ndarray, rate: int, subtype: str) -> bool:
    """Whether a file that an earlier start wrote is there: files are written whole or not at all."""
    try:
        head = soundfile.info(path)
    except (soundfile.SoundFileError, RuntimeError):
        return False
    return (head.frames, head.channels, head.samplerate, head.subtype) == (*samples.shape, rate, subtype)


def _flac(samples: np.ndarray, rate: int, subtype: str) -> bytes:
    file = io.BytesIO()
    try:
        soundfile.write(file, samples, rate, subtype, format="FLAC")
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        raise _Unfit("not for FLAC", f"{samples.shape[1]} channels at {rate} Hz: {error}") from error
    return file.getvalue()


def _line(error: BaseException) -> str:
    """The first line of what a library says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
