"""Tokenizers behind one interface: Hugging Face `tokenizer.json`, sentencepiece models, characters, words.

`encode` never adds BOS or EOS: the task does, once. A transcript that contains "</s>" is text like any other.
"""

import collections
import hashlib
import io
import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from jaxspeech import output
from jaxspeech.errors import UserError


class Tokenizer(Protocol):
    """Text to ids and back. Implementations are thread-safe and pickle.

    Attributes:
        vocab_size: one more than the largest id.
        bos, eos, unk: ids of the special tokens, None where there is none.
        fingerprint: sha256 (hex) of what defines it.
    """

    vocab_size: int
    bos: int | None
    eos: int | None
    unk: int | None
    fingerprint: str

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without BOS and EOS."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, faster."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens are dropped."""
        ...


def load_tokenizer(spec: str) -> Tokenizer:
    """Opens a `tokenizer.json`, a sentencepiece `*.model`, a folder with one of them, "characters:…" or "words:…"."""
    if spec.startswith("characters:"):
        return CharacterTokenizer(spec.removeprefix("characters:"))
    if spec.startswith("words:"):
        return word_tokenizer(spec.removeprefix("words:"))
    path = pathlib.Path(spec)
    if not spec:
        raise UserError(
            "config.data.tokenizer is empty; give a tokenizer.json, a sentencepiece .model, 'characters:…' or 'words:…'"
        )
    if path.is_dir():
        found = [path / name for name in ("tokenizer.json", "tokenizer.model") if (path / name).is_file()]
        if not found:
            raise UserError(f"tokenizer {spec}: the folder holds neither tokenizer.json nor tokenizer.model")
        path = found[0]
    if not path.is_file():
        raise UserError(
            f"tokenizer {spec} does not exist; give a tokenizer.json, a sentencepiece .model, 'characters:…' or "
            "'words:…'"
        )
    if path.suffix == ".json":
        return HuggingFaceTokenizer.open(path)
    if path.suffix == ".model":
        return SentencePieceTokenizer.open(path)
    raise UserError(
        f"tokenizer {spec} ends in {path.suffix!r}; a tokenizer is a .json, a .model, 'characters:…' or 'words:…'"
    )


def unknown(tokenizer: Tokenizer, texts: Iterable[str]) -> collections.Counter[str]:
    """How often each character that the tokenizer does not know occurs in the texts."""
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(text)
    if tokenizer.unk is None:
        return collections.Counter()
    return collections.Counter({c: n for c, n in counts.items() if tokenizer.unk in tokenizer.encode(c)})


class CharacterTokenizer:
    """One id a character: `<unk>` 0, `<s>` 1, `</s>` 2, then the characters in the order given (in Unicode's NFC)."""

    bos: int | None
    eos: int | None
    unk: int | None

    def __init__(self, characters: str):
        self.characters = unicodedata.normalize("NFC", characters)
        if not self.characters:
            raise UserError("tokenizer 'characters:' lists no characters; write all of them after the colon")
        twice = [c for c, n in collections.Counter(self.characters).items() if n > 1]
        if twice:
            raise UserError(f"tokenizer 'characters:…' lists {twice[0]!r} twice; each character is listed once")
        self.unk, self.bos, self.eos = 0, 1, 2
        self.vocab_size = 3 + len(self.characters)
        self.fingerprint = hashlib.sha256(f"characters:{self.characters}".encode()).hexdigest()
        self._ids = {c: 3 + i for i, c in enumerate(self.characters)}

    def encode(self, text: str) -> list[int]:
        ids = self._ids
        return [ids.get(c, 0) for c in unicodedata.normalize("NFC", text)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.characters[i - 3] for i in map(int, ids) if 3 <= i < self.vocab_size)


class HuggingFaceTokenizer:
    """A `tokenizer.json` of the `tokenizers` library, with its truncation, padding and post-processing switched off.

    Attributes:
        definition: the content of that file.
    """

    def __init__(self, definition: str, bos: str | None, eos: str | None):
        from tokenizers import Tokenizer as Rust

        self.definition = definition
        self._state = (definition, bos, eos)
        self._rust = Rust.from_str(definition)
        self._rust.no_truncation()
        self._rust.no_padding()
        self._rust.encode_special_tokens = True  # "</s>" in a transcript is text, it ends nothing
        self.bos = None if bos is None else self._rust.token_to_id(bos)
        self.eos = None if eos is None else self._rust.token_to_id(eos)
        self.unk = self._rust.token_to_id(_piece(json.loads(definition).get("model", {}).get("unk_token")) or "<unk>")
        self.vocab_size = max(self._rust.get_vocab(with_added_tokens=True).values()) + 1
        self.fingerprint = hashlib.sha256(definition.encode()).hexdigest()

    @classmethod
    def open(cls, path: pathlib.Path) -> "HuggingFaceTokenizer":
        """BOS and EOS are `<s>` and `</s>` where the vocabulary has them, else those of `tokenizer_config.json`."""
        try:
            definition = path.read_bytes().decode("utf-8")
            beside = path.with_name("tokenizer_config.json")
            config = json.loads(beside.read_text("utf-8")) if beside.is_file() else {}
            tokenizer = cls(definition, "<s>", "</s>")
            bos = "<s>" if tokenizer.bos is not None else _piece(config.get("bos_token"))
            eos = "</s>" if tokenizer.eos is not None else _piece(config.get("eos_token"))
            return cls(definition, bos, eos) if (bos, eos) != ("<s>", "</s>") else tokenizer
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(f"tokenizer {path} cannot be read: {error}; is it a tokenizer.json?") from error

    def encode(self, text: str) -> list[int]:
        return self._rust.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._rust.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        return self._rust.decode([int(i) for i in ids], skip_special_tokens=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return (HuggingFaceTokenizer, self._state)


def word_tokenizer(words: str) -> HuggingFaceTokenizer:
    """One id a word, for small closed vocabularies: `<unk>` 0, the words in the order given, `<s>`, `</s>`.

    Raises `UserError` where there is no word, or one twice.
    """
    import tokenizers

    listed = unicodedata.normalize("NFC", words).split()
    if not listed:
        raise UserError("tokenizer 'words:' lists no words; write all of them after the colon, spaces between them")
    twice = [word for word, n in collections.Counter(listed).items() if n > 1]
    if twice:
        raise UserError(f"tokenizer 'words:…' lists {twice[0]!r} twice; each word is listed once")
    ids = {word: i for i, word in enumerate(["<unk>", *listed])}
    rust = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    rust.normalizer = tokenizers.normalizers.NFC()
    rust.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    # Not among the words: "</s>" in a transcript is then unknown, and ends nothing.
    rust.add_special_tokens(["<unk>", "<s>", "</s>"])
    return HuggingFaceTokenizer(rust.to_str(), "<s>", "</s>")


class SentencePieceTokenizer:
    """A sentencepiece model."""

    def __init__(self, model: bytes):
        import sentencepiece

        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        ids = {name: getattr(self._processor, f"{name}_id")() for name in ("bos", "eos", "unk")}
        self.bos, self.eos, self.unk = (None if i < 0 else int(i) for i in ids.values())
        self.vocab_size = int(self._processor.get_piece_size())
        self.fingerprint = hashlib.sha256(model).hexdigest()

    @classmethod
    def open(cls, path: pathlib.Path) -> "SentencePieceTokenizer":
        try:
            return cls(path.read_bytes())
        except (RuntimeError, OSError) as error:
            raise UserError(f"tokenizer {path} cannot be read: {error}; is it a sentencepiece model?") from error

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._processor.encode(list(texts))

    def decode(self, ids: Sequence[int]) -> str:
        known = self._processor
        kept = [i for i in map(int, ids) if i < self.vocab_size and not known.is_control(i) and not known.is_unknown(i)]
        return known.decode(kept)

    def __reduce__(self) -> tuple[Any, ...]:
        return (SentencePieceTokenizer, (self._model,))


def train_sentencepiece(
    texts: Iterable[str],
    out: str | os.PathLike[str],
    vocab_size: int,
    model_type: str = "bpe",
    character_coverage: float = 1.0,
) -> SentencePieceTokenizer:
    """Trains a sentencepiece model on the texts and writes it to `out`.

    `<unk>` is 0, `<s>` 1, `</s>` 2; then 256 bytes that rare characters fall back to, so that nothing is unknown. Text
    is taken as it is (no Unicode normalisation). Raises `UserError` where the vocabulary cannot be of that size.
    """
    import sentencepiece

    model = io.BytesIO()
    kept = (text for text in texts if text.strip())
    first = next(iter(kept), None)
    if first is None:
        raise UserError("the manifests hold no text to train a tokenizer on")

    def sentences() -> Iterable[str]:
        yield first
        yield from kept

    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences()),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            character_coverage=character_coverage,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            byte_fallback=True,
            normalization_rule_name="identity",
            max_sentence_length=1 << 24,  # its default of 4,192 bytes would skip long texts in silence
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(_explain(str(error), vocab_size)) from error
    output.write(pathlib.Path(out).absolute(), model.getvalue())
    return SentencePieceTokenizer(model.getvalue())


def _explain(message: str, vocab_size: int) -> str:
    """sentencepiece's complaint about the vocabulary's size in plain words."""
    if large := re.search(r"value <= (\d+)", message):
        return f"a vocabulary of {vocab_size} is too large for this text; ask for {large[1]}, the largest possible"
    if small := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return f"a vocabulary of {vocab_size} is too small for this text's characters; ask for {small[1]} or more"
    return f"sentencepiece could not train a vocabulary of {vocab_size}: {' '.join(message.split())}"


def _piece(token: Any) -> str | None:
    """The text of a special token, which files give as a string or as an object with `content`."""
    return token.get("content") if isinstance(token, dict) else token
