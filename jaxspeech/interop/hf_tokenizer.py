"""Tokenizers as the files that transformers reads, from any tokenizer of ours, and only with the very same ids."""

import importlib
import pathlib
import shutil
from typing import Any, Protocol

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from jaxspeech.data.text import (
    CharacterTokenizer,
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    load_tokenizer,
)
from jaxspeech.errors import UserError
from jaxspeech.interop.folder import write_json

_SPECIAL = ["<unk>", "<s>", "</s>"]
_SPACE = "▁"  # how sentencepiece writes a space
_PROBES = 2000  # random texts on which a converted tokenizer must agree


class Vocabulary(Protocol):
    """What weights say of their tokenizer."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def bos(self) -> int: ...
    @property
    def eos(self) -> int: ...


def check_tokenizer(tokenizer: Tokenizer, spec: str, model: Vocabulary) -> None:
    """Raises `UserError` where a tokenizer's BOS, EOS or size are not those of the weights."""
    for name, theirs, ours in (("BOS", tokenizer.bos, model.bos), ("EOS", tokenizer.eos, model.eos)):
        if theirs != ours:
            raise UserError(
                f"tokenizer {spec!r} has {name} {theirs}, the weights have {ours}; give the one of their training"
            )
    if tokenizer.vocab_size > model.vocab_size:
        raise UserError(
            f"tokenizer {spec!r} has {tokenizer.vocab_size} tokens, the weights have {model.vocab_size}; give the one "
            "of their training"
        )


def write_tokenizer(spec: str, folder: pathlib.Path, model: Vocabulary) -> list[str]:
    """Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json (and a sentencepiece model as it is).

    Args:
        spec: as in `config.data.tokenizer`.
        model: the ids and the vocabulary of the weights.

    Returns:
        Notes, one line each, on what could not be written.
    """
    tokenizer = load_tokenizer(spec)
    check_tokenizer(tokenizer, spec, model)
    if isinstance(tokenizer, HuggingFaceTokenizer):
        definition = tokenizer.definition
        if spec.startswith("words:"):
            definition = _with_special(tokenizers.Tokenizer.from_str(definition), _SPECIAL).to_str()
    elif isinstance(tokenizer, CharacterTokenizer):
        definition = characters(tokenizer).to_str()
    elif isinstance(tokenizer, SentencePieceTokenizer):
        shutil.copyfile(_file(spec, "tokenizer.model"), folder / "tokenizer.model")
        try:
            definition = sentencepiece((folder / "tokenizer.model").read_bytes()).to_str()
        except ValueError as error:
            return [f"tokenizer.json is left out ({error}): in transformers, load tokenizer.model with sentencepiece"]
    else:
        return [f"the tokenizer is left out: there is no export for a {type(tokenizer).__name__}"]
    (folder / "tokenizer.json").write_text(definition, "utf-8")
    written = tokenizers.Tokenizer.from_str(definition)
    ids = {
        "bos_token": tokenizer.bos,
        "eos_token": tokenizer.eos,
        "unk_token": tokenizer.unk,
        "pad_token": tokenizer.eos,
    }
    special = {name: written.id_to_token(token) for name, token in ids.items() if token is not None}
    write_json(folder / "special_tokens_map.json", special)
    settings: dict[str, Any] = {
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,  # transformers' way to say: no limit
        "processor_class": "Wav2Vec2Processor",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    write_json(folder / "tokenizer_config.json", settings | special)
    return []


def characters(tokenizer: CharacterTokenizer) -> tokenizers.Tokenizer:
    """A `tokenizer.json` with the ids of a tokenizer of characters."""
    names = [*_SPECIAL, *tokenizer.characters]
    result = tokenizers.Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    result.normalizer = normalizers.NFC()
    result.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?m:.)"), "isolated")  # Oniguruma's m: a dot is any character
    result.decoder = decoders.Fuse()
    return _with_special(result, _SPECIAL)


def sentencepiece(model: bytes) -> tokenizers.Tokenizer:
    """A `tokenizer.json` with the ids of a sentencepiece model (BPE, unigram or characters).

    One difference is let pass: a unigram model that does not know "<" takes the letters "</s>" in a text for the token,
    which transformers does with any tokenizer.

    Raises:
        ValueError: the model has a form that `tokenizers` cannot express, or ids differ on one of many texts.
    """
    try:
        proto = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    except Exception as error:  # protobuf is missing, or older than that of sentencepiece: it has errors of its own
        raise ValueError(f"its definition cannot be read, which a newer protobuf may mend: {error}") from error
    spec = proto.ModelProto.FromString(model)
    piece, trainer = proto.ModelProto.SentencePiece, spec.trainer_spec
    pieces = [p.piece for p in spec.pieces]
    ordinary = {p.piece: p.score for p in spec.pieces if p.type == piece.NORMAL}
    fallback = any(p.type == piece.BYTE for p in spec.pieces)
    unknown = next(i for i, p in enumerate(spec.pieces) if p.type == piece.UNKNOWN)
    if trainer.treat_whitespace_as_suffix:
        raise ValueError("it treats spaces as suffixes")
    if trainer.model_type in (proto.TrainerSpec.BPE, proto.TrainerSpec.CHAR):  # characters are BPE without merges
        core: models.Model = models.BPE(
            {name: i for i, name in enumerate(pieces)},
            _merges(ordinary, {name: i for i, name in enumerate(pieces)}),
            unk_token=pieces[unknown],
            fuse_unk=True,
            byte_fallback=fallback,
        )
    elif trainer.model_type == proto.TrainerSpec.UNIGRAM:
        # Special pieces are never found in a text by sentencepiece; here a score far below all others sees to that.
        never = min(ordinary.values()) - 1000.0
        scores = [(p.piece, ordinary.get(p.piece, never)) for p in spec.pieces]
        core = models.Unigram(scores, unk_id=unknown, byte_fallback=fallback)
    else:
        raise ValueError("it is a model of whole words")
    result = tokenizers.Tokenizer(core)
    result.normalizer = _normalizer(spec.normalizer_spec)
    strip = [decoders.Strip(" ", 1, 0)] if spec.normalizer_spec.add_dummy_prefix else []
    result.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    result.add_tokens([AddedToken(p.piece, normalized=False) for p in spec.pieces if p.type == piece.USER_DEFINED])
    special = [p.piece for p in spec.pieces if p.type in (piece.UNKNOWN, piece.CONTROL)]
    bos = trainer.bos_piece if trainer.bos_piece in special else None
    result = _with_special(result, special, bos)
    _compare(SentencePieceTokenizer(model), result, list(ordinary))
    return result


def _normalizer(spec: Any) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    if spec.escape_whitespaces:
        steps.append(normalizers.Replace(" ", _SPACE))
    return normalizers.Sequence(steps)


def _merges(scores: dict[str, float], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to put two pieces together to a third, best score first: what sentencepiece looks up as it goes."""
    merges = [
        (-score, ids[name[:cut]], ids[name[cut:]], name[:cut], name[cut:])
        for name, score in scores.items()
        for cut in range(1, len(name))
        if name[:cut] in scores and name[cut:] in scores
    ]
    return [(left, right) for *_, left, right in sorted(merges)]


def _with_special(result: tokenizers.Tokenizer, names: list[str], bos: str | None = "<s>") -> tokenizers.Tokenizer:
    """Marks special tokens, and lets transformers put BOS first, as Moonshine's own tokenizer does."""
    result.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    if bos is not None:
        result.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, result.token_to_id(bos))]
        )
    return result


def _compare(original: SentencePieceTokenizer, converted: tokenizers.Tokenizer, pieces: list[str]) -> None:
    """Raises ValueError where ids differ on one of the pieces, random texts made of them, or odd texts."""
    rng = np.random.default_rng(0)
    texts = [
        "",
        " ",
        "  two  spaces ",
        "\t\n",
        "Ünïcödé ﬁ ½ Ⅷ",
        "日本語 한국어 العربية",
        "👩‍👩‍👧 ok",
        "a" * 50,
        *pieces,
    ]
    if isinstance(converted.model, models.BPE):
        texts.append("<s></s><unk> <0x41>")
    texts += ["".join(rng.choice(pieces, rng.integers(1, 20))) for _ in range(_PROBES)]
    texts = [text.replace(_SPACE, " ") for text in texts]
    converted.encode_special_tokens = True
    theirs = converted.encode_batch_fast(texts, add_special_tokens=False)
    for text, ours, encoding in zip(texts, original.encode_batch(texts), theirs, strict=True):
        if ours != encoding.ids:
            raise ValueError(f"its ids would differ, on {text[:40]!r} for one")
    converted.encode_special_tokens = False


def _file(spec: str, name: str) -> pathlib.Path:
    path = pathlib.Path(spec)
    return path / name if path.is_dir() else path
