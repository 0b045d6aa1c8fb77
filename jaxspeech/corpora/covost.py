"""CoVoST 2: translations of Common Voice 4, from 21 languages into English and from English into 15.

    cv-corpus-4-2019-12-10/fr/validated.tsv, clips/     Common Voice 4 of the language that is spoken
    covost_v2.fr_en.tsv                                 path translation split, as it is downloaded
    covost_v2.fr_en.train.tsv                           path sentence translation client_id

The last kind is made by the publishers' get_covost_splits.py. Without it the other is joined with validated.tsv, by
the same rule (train and train_covost make `train`). Backslashes escape in these files. Layout and rule:
github.com/facebookresearch/covost.

Utterances: the Hugging Face data set `covost2`, made by the same script. Hours of the splits are not published with it.
"""

import argparse
import os
import re
from collections.abc import Iterator
from typing import Any

from jaxspeech.corpora import commonvoice
from jaxspeech.corpora.source import Found, Official, Rejected
from jaxspeech.corpora.tree import Tree
from jaxspeech.errors import UserError

SPLITS = ("train", "dev", "test")
_FROM_ENGLISH = (289430, 15531, 15531)  # of every language
_INTO_ENGLISH = {
    "fr": (207374, 14760, 14760),
    "de": (127834, 13511, 13511),
    "es": (79015, 13221, 13221),
    "ca": (95854, 12730, 12730),
    "it": (31698, 8940, 8951),
    "ru": (12112, 6110, 6300),
    "zh-CN": (7085, 4843, 4898),
    "pt": (9158, 3318, 4023),
    "fa": (53949, 3445, 3445),
    "et": (1782, 1576, 1571),
    "mn": (2067, 1761, 1759),
    "nl": (7108, 1699, 1699),
    "tr": (3966, 1624, 1629),
    "ar": (2283, 1758, 1695),
    "sv-SE": (2160, 1349, 1595),
    "lv": (2337, 1125, 1629),
    "sl": (1843, 509, 360),
    "ta": (1358, 384, 786),
    "ja": (1119, 635, 684),
}
_FILE = re.compile(r"covost_v2\.([A-Za-z-]+)_([A-Za-z-]+)\.(?:(train|dev|test)\.)?tsv")
_ESCAPE = "\\"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where clips and translations are, and the pair of languages."""
    parser.add_argument("path", metavar="DIR", help="Common Voice 4 of the spoken language: clips/ and validated.tsv")
    parser.add_argument("--translations", metavar="DIR", help="folder of covost_v2.*.tsv, unpacked (by default DIR)")
    parser.add_argument("--pair", metavar="SRC_TGT", help="languages, where there are several: fr_en, en_zh-CN")


def source(args: argparse.Namespace) -> "Covost":
    """One pair of languages. Raises `UserError` if its files are not there."""
    translations = Tree.open(args.translations or args.path)
    pairs = sorted({f"{name[1]}_{name[2]}" for name in map(_FILE.fullmatch, translations.files("", ".tsv")) if name})
    if not pairs:
        packed = " (unpack the .tar.gz there)" if translations.files("", ".tsv.tar.gz") else ""
        raise UserError(f"{translations.path} holds no covost_v2.SRC_TGT.tsv{packed}; give --translations DIR")
    if args.pair is not None and args.pair not in pairs:
        raise UserError(f"{translations.path} has no translations {args.pair}; give --pair, one of {', '.join(pairs)}")
    if args.pair is None and len(pairs) > 1:
        raise UserError(f"{translations.path} has several pairs; give --pair, one of {', '.join(pairs)}")
    pair = args.pair or pairs[0]
    return Covost(commonvoice.find(Tree.open(args.path), pair.partition("_")[0]), translations, pair)


class Covost:
    """One pair of languages."""

    name = "covost"

    def __init__(self, clips: Tree, translations: Tree, pair: str):
        self._clips = clips
        self._translations = translations
        self._pair = pair
        self._spoken, _, self._written = pair.partition("_")

    def splits(self) -> list[str]:
        """train, dev and test, or those of them that were made."""
        made = [split for split in SPLITS if self._translations.exists(self._file(split))]
        if self._translations.exists(f"covost_v2.{self._pair}.tsv"):
            if not made and not self._clips.exists("validated.tsv"):
                raise UserError(f"{self._clips.path} has no validated.tsv; give Common Voice 4 of {self._spoken}")
            return made or list(SPLITS)
        return made

    def items(self, split: str) -> Iterator[Found | Rejected]:
        """In the order of the split's TSV, else of validated.tsv."""
        made = self._file(split)
        if self._translations.exists(made):
            columns = ("path", "sentence", "translation")
            for row in commonvoice.rows(self._translations, made, columns, _ESCAPE):
                yield row if isinstance(row, Rejected) else self._item(*row)
            return
        translated: dict[str, str] = {}
        name = f"covost_v2.{self._pair}.tsv"
        for row in commonvoice.rows(self._translations, name, ("path", "translation", "split"), _ESCAPE):
            if isinstance(row, Rejected):
                if split == "train":  # nobody knows of which split it is: it is told once
                    yield row
            elif row[1]["split"] == split or (split == "train" and row[1]["split"] == "train_covost"):
                translated[row[1]["path"]] = row[1]["translation"]
        for row in commonvoice.rows(self._clips, "validated.tsv", ("path", "sentence"), _ESCAPE):
            if isinstance(row, Rejected):
                if split == "train":
                    yield row
                continue
            where, columns_ = row
            translation = translated.pop(columns_["path"], None)
            if translation is not None:
                yield self._item(where, columns_ | {"translation": translation})
        for path in translated:
            yield Rejected(name, "no transcript", f"{path} is not in validated.tsv; is this Common Voice 4?")

    def official(self, split: str) -> Official | None:
        """Utterances of the pair."""
        known = _FROM_ENGLISH if self._spoken == "en" else _INTO_ENGLISH.get(self._spoken)
        return Official(known[SPLITS.index(split)]) if known else None

    def _file(self, split: str) -> str:
        return f"covost_v2.{self._pair}.{split}.tsv"

    def _item(self, where: str, columns: dict[str, str]) -> Found | Rejected:
        clip = commonvoice.clip_name(columns["path"])
        translation = columns["translation"].strip()
        if not clip:
            return Rejected(where, "no audio", "the column 'path' is empty")
        if not translation:
            return Rejected(where, "no translation", clip)
        row: dict[str, Any] = {
            "id": os.path.splitext(clip)[0],
            "audio": self._clips.audio(f"clips/{clip}"),
            "text": columns["sentence"].strip(),
            "language": self._spoken,
            "translation": translation,
            "translation_language": self._written,
        }
        return Found(where, row | ({"speaker": columns["client_id"]} if columns.get("client_id") else {}))
