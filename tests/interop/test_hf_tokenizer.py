"""Tokenizers as transformers' files: the same ids, or none."""

import dataclasses
import importlib
import json
import pathlib

import pytest

from jaxspeech.data.text import CharacterTokenizer, load_tokenizer, train_sentencepiece
from jaxspeech.errors import UserError
from jaxspeech.interop.hf_tokenizer import write_tokenizer

TEXTS = [
    "one two three four five",
    "the quick brown fox jumps over the lazy dog",
    "seven ate nine, and ten was afraid",
    "  spaced   out  ",
    "",
    "naïve café e\u0301",
    "日本",
    "</s> is text",
    "tab\tand\nnewline",
]


def _definitions_are_readable():
    try:
        importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    except Exception:
        return False
    return True


needs_definitions = pytest.mark.skipif(
    not _definitions_are_readable(), reason="protobuf is older than sentencepiece's definitions (Apache Beam pins it)"
)


@dataclasses.dataclass
class Weights:
    vocab_size: int
    bos: int = 1
    eos: int = 2


def written(spec, folder, bos=1, eos=2):
    notes = write_tokenizer(str(spec), folder, Weights(2000, bos, eos))
    assert notes == []
    special = json.loads((folder / "special_tokens_map.json").read_text())
    assert special == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    return load_tokenizer(str(folder))


def assert_same(first, second, texts=TEXTS):
    assert first.encode_batch(texts) == second.encode_batch(texts)
    assert [first.decode(first.encode(text)) for text in texts] == [
        second.decode(second.encode(text)) for text in texts
    ]
    assert (first.bos, first.eos, first.unk, first.vocab_size) == (
        second.bos,
        second.eos,
        second.unk,
        second.vocab_size,
    )


def test_a_tokenizer_json_is_copied_byte_for_byte(tmp_path, tokenizer_json):
    written(tokenizer_json, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == pathlib.Path(tokenizer_json).read_bytes()


@pytest.mark.parametrize("letters", ["abcdefghijklmnopqrstuvwxyz ', ", "0123456789", "aé<s>/\n\t▁ "])
def test_characters_keep_their_ids(tmp_path, letters):
    letters = "".join(dict.fromkeys(letters))
    assert_same(CharacterTokenizer(letters), written(f"characters:{letters}", tmp_path))


@pytest.mark.parametrize("words", ["zero one two three", "naïve café cafe\u0301s 日本", "yes"])
def test_words_keep_their_ids(tmp_path, words):
    own = load_tokenizer(f"words:{words}")
    assert_same(own, written(f"words:{words}", tmp_path, own.bos, own.eos), [*TEXTS, words])


@needs_definitions
@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
def test_sentencepiece_models_keep_their_ids(tmp_path, kind):
    corpus = [text * 3 for text in TEXTS] * 4
    size = {"bpe": 330, "unigram": 310, "char": 290}[kind]
    original = train_sentencepiece(corpus, tmp_path / "a.model", size, kind)
    (tmp_path / "out").mkdir()
    texts = [text for text in TEXTS if kind != "unigram" or "</s>" not in text]
    assert_same(original, written(tmp_path / "a.model", tmp_path / "out"), texts)
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == (tmp_path / "a.model").read_bytes()


def test_without_the_definitions_a_sentencepiece_model_goes_alone_with_a_note(tmp_path, monkeypatch):
    class VersionError(Exception):
        """As `google.protobuf.runtime_version` raises it: of no class that an import usually raises."""

    def refuse(name):
        raise VersionError("Detected incompatible Protobuf Gencode/Runtime versions")

    train_sentencepiece(TEXTS * 10, tmp_path / "a.model", 330)
    monkeypatch.setattr("jaxspeech.interop.hf_tokenizer.importlib.import_module", refuse)
    (tmp_path / "out").mkdir()
    (note,) = write_tokenizer(str(tmp_path / "a.model"), tmp_path / "out", Weights(2000))
    assert "a newer protobuf" in note
    assert "incompatible Protobuf" in note
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tokenizer.model"]


@needs_definitions
def test_a_sentencepiece_model_without_equal_ids_is_left_out_with_a_note(tmp_path, monkeypatch):
    train_sentencepiece(TEXTS * 10, tmp_path / "a.model", 330)
    monkeypatch.setattr("jaxspeech.interop.hf_tokenizer._merges", lambda scores, ids: [])
    (tmp_path / "out").mkdir()
    (note,) = write_tokenizer(str(tmp_path / "a.model"), tmp_path / "out", Weights(2000))
    assert "ids would differ" in note
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tokenizer.model"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (Weights(10), "has 29 tokens, the weights have 10"),
        (Weights(100, bos=0), "BOS 1"),
        (Weights(100, eos=3), "EOS 2"),
    ],
)
def test_a_tokenizer_that_is_not_the_weights_own_is_refused(tmp_path, weights, message):
    with pytest.raises(UserError, match=message):
        write_tokenizer("characters:abcdefghijklmnopqrstuvwxyz", tmp_path, weights)
