"""Tokenizers give the ids of the originals, add nothing of their own, and give the text back."""

import concurrent.futures
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxspeech.data import text
from jaxspeech.data.text import CharacterTokenizer, load_tokenizer, train_sentencepiece
from jaxspeech.errors import UserError

SENTENCES = ["one two three", "four five six", "seven ate nine", "Ünïcode is “here”", "zero, again!"] * 5


@pytest.fixture(scope="session")
def sentencepiece_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tok.model"
    train_sentencepiece(SENTENCES, path, 320)
    return path


@pytest.fixture(scope="session")
def huggingface_path(tmp_path_factory):
    """A byte-fallback BPE in the way of Llama's, with a post-processor, truncation and padding that must not act."""
    tokenizers = pytest.importorskip("tokenizers")
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{i:02X}>" for i in range(256)),
        "▁",
        *"abcdehlortw",
        "he",
        "ll",
        "▁he",
        "▁hell",
    ]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = [("h", "e"), ("l", "l"), ("▁", "he"), ("▁he", "ll")]
    model = tokenizers.models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    steps = [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    tokenizer.decoder = tokenizers.decoders.Sequence([*steps, tokenizers.decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_special_tokens(["<<ST_0>>"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(params=["characters", "sentencepiece", "huggingface"])
def tokenizer(request):
    if request.param == "characters":
        return load_tokenizer("characters: abcdehlortw<>/s")
    return load_tokenizer(str(request.getfixturevalue(f"{request.param}_path")))


# Ids of Moonshine's own tokenizer without the leading BOS, as the released runtime gives them.
MOONSHINE = {
    "hello world": [22172, 3186],
    "HELLO": [17714, 2208, 29949],
    "": [],
    " ": [259],
    "Ever tried ever failed, no matter try again, fail again, fail better.": [
        *(18274, 1898, 3926, 5229, 29892, 694, 4383, 1018, 1449, 29892, 4418, 1449, 29892, 4418, 2253, 29889)
    ],
}


def test_moonshine_tokens_are_the_released_ones(speech_data):
    released = load_tokenizer(str(speech_data / "moonshine" / "tokenizer.json"))
    assert (released.vocab_size, released.bos, released.eos, released.unk) == (32768, 1, 2, 0)
    for sentence, ids in MOONSHINE.items():
        assert released.encode(sentence) == ids
        assert released.decode([1, *ids, 2]) == sentence
    assert released.encode_batch(list(MOONSHINE)) == list(MOONSHINE.values())
    assert released.decode([22172, 32000, 3186, 32767]) == "hello world"  # <<ST_n>> are special
    japanese = "日本語 ½"  # in bytes where it must be
    assert released.decode(released.encode(japanese)) == japanese


def test_there_and_back(tokenizer):
    for sentence in ("hello world", "a", "tree odd", ""):
        assert tokenizer.decode(tokenizer.encode(sentence)) == sentence


def test_a_batch_is_its_sentences(tokenizer):
    sentences = ["hello world", "", "a b", "hello"]
    assert tokenizer.encode_batch(sentences) == [tokenizer.encode(sentence) for sentence in sentences]


def test_nothing_is_added_cut_or_padded(tokenizer):
    ids = tokenizer.encode("hello world hello world")
    assert len(ids) > 4
    assert not {tokenizer.bos, tokenizer.eos, tokenizer.unk} & set(ids)
    assert max(ids) < tokenizer.vocab_size


def test_special_tokens_in_a_transcript_are_text(tokenizer):
    ids = tokenizer.encode("a</s> <s>")
    assert not {tokenizer.bos, tokenizer.eos} & set(ids)
    assert tokenizer.decode(ids) == "a</s> <s>"


def test_decoding_drops_special_tokens(tokenizer):
    ids = tokenizer.encode("hello")
    assert tokenizer.decode([tokenizer.bos, *ids, tokenizer.eos]) == "hello"


def test_a_pickled_tokenizer_is_the_same(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    sentence = "hello </s> world"
    assert copy.encode(sentence) == tokenizer.encode(sentence)
    assert (copy.fingerprint, copy.vocab_size, copy.eos) == (tokenizer.fingerprint, tokenizer.vocab_size, tokenizer.eos)


def test_threads_share_a_tokenizer(tokenizer):
    sentences = ["hello world"[: i % 11 + 1] for i in range(400)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tokenizer.encode, sentences)) == tokenizer.encode_batch(sentences)


def test_fingerprints_follow_the_definition(huggingface_path, tmp_path):
    assert load_tokenizer("characters:ab").fingerprint != load_tokenizer("characters:ba").fingerprint
    copy = tmp_path / "tokenizer.json"
    copy.write_bytes(huggingface_path.read_bytes())
    assert load_tokenizer(str(copy)).fingerprint == load_tokenizer(str(huggingface_path)).fingerprint
    changed = json.loads(copy.read_text())
    changed["model"]["vocab"]["he!"] = changed["model"]["vocab"].pop("ll")
    changed["model"]["merges"] = []
    copy.write_text(json.dumps(changed))
    assert load_tokenizer(str(copy)).fingerprint != load_tokenizer(str(huggingface_path)).fingerprint


def test_characters_are_numbered_after_the_special_tokens():
    tokenizer = load_tokenizer("characters:ab '")
    assert (tokenizer.unk, tokenizer.bos, tokenizer.eos, tokenizer.vocab_size) == (0, 1, 2, 7)
    assert tokenizer.encode("ba 'x") == [4, 3, 5, 6, 0]
    assert tokenizer.decode([1, 4, 0, 3, 2, 99]) == "ba"


def test_composed_and_decomposed_letters_are_one():
    tokenizer = load_tokenizer("characters:e\u0301")
    assert tokenizer.vocab_size == 4
    assert tokenizer.encode("é") == tokenizer.encode("e\u0301") == [3]


@given(st.text("abc 'é"))
@settings(max_examples=50, deadline=None)
def test_characters_lose_nothing_that_they_know(sentence):
    tokenizer = CharacterTokenizer("abc 'é")
    assert tokenizer.decode(tokenizer.encode(sentence)) == sentence


def test_a_word_is_a_token_and_what_is_not_listed_is_unknown():
    tokenizer = load_tokenizer("words:yes no d\u00e9j\u00e0")
    assert (tokenizer.unk, tokenizer.bos, tokenizer.eos, tokenizer.vocab_size) == (0, 4, 5, 6)
    assert tokenizer.encode("no  yes maybe de\u0301ja\u0300") == [2, 1, 0, 3]
    assert tokenizer.encode("<s> </s> <unk>") == [0, 0, 0]
    assert tokenizer.decode([4, 2, 1, 0, 5]) == "no yes"
    assert pickle.loads(pickle.dumps(tokenizer)).encode("yes") == [1]
    assert tokenizer.fingerprint != load_tokenizer("words:no yes d\u00e9j\u00e0").fingerprint


def test_unknown_characters_are_counted():
    tokenizer = load_tokenizer("characters:abc ")
    assert text.unknown(tokenizer, ["abcé", "xx a", ""]) == {"é": 1, "x": 2}


def test_bytes_leave_nothing_unknown(sentencepiece_path, huggingface_path):
    for path in (sentencepiece_path, huggingface_path):
        tokenizer = load_tokenizer(str(path))
        assert not text.unknown(tokenizer, ["日本 ½ ☃"])
        assert tokenizer.decode(tokenizer.encode("日本 ½ ☃")) == "日本 ½ ☃"


def test_special_tokens_of_other_names_are_found_beside(huggingface_path, tmp_path):
    definition = huggingface_path.read_text().replace('"<s>"', '"<|start|>"').replace('"</s>"', '"<|end|>"')
    (tmp_path / "tokenizer.json").write_text(definition)
    assert load_tokenizer(str(tmp_path)).eos is None
    config = {"bos_token": None, "eos_token": {"content": "<|end|>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(str(tmp_path))
    assert (tokenizer.bos, tokenizer.eos) == (None, 2)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_is_trained_with_our_special_tokens(tmp_path, kind):
    tokenizer = train_sentencepiece(SENTENCES, tmp_path / "new" / "t.model", 290, kind)
    assert (tokenizer.unk, tokenizer.bos, tokenizer.eos, tokenizer.vocab_size) == (0, 1, 2, 290)
    loaded = load_tokenizer(str(tmp_path / "new" / "t.model"))
    assert loaded.fingerprint == tokenizer.fingerprint
    for sentence in SENTENCES:
        assert loaded.decode(loaded.encode(sentence)) == sentence
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_long_texts_are_learned_from_too(tmp_path):
    long = " ".join(["quixotic"] * 1000)  # 9 kB: sentencepiece alone would skip it
    tokenizer = train_sentencepiece(["ab", long], tmp_path / "t.model", 280)
    assert len(tokenizer.encode("quixotic")) <= 2


def test_the_largest_possible_vocabulary_is_named_and_works(tmp_path):
    with pytest.raises(
        UserError, match=r"5000 is too large for this text; ask for \d+, the largest possible"
    ) as caught:
        train_sentencepiece(SENTENCES, tmp_path / "t.model", 5000)
    largest = int(str(caught.value).split("ask for ")[1].split(",")[0])
    assert train_sentencepiece(SENTENCES, tmp_path / "t.model", largest).vocab_size == largest
    with pytest.raises(UserError, match="too large"):
        train_sentencepiece(SENTENCES, tmp_path / "t.model", largest + 1)


def test_a_vocabulary_below_its_characters_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"50 is too small for this text's characters; ask for \d+ or more"):
        train_sentencepiece(SENTENCES, tmp_path / "t.model", 50)
    with pytest.raises(UserError, match="no text"):
        train_sentencepiece(["", "  "], tmp_path / "t.model", 300)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "is empty"),
        ("none.json", "does not exist"),
        ("characters:", "lists no characters"),
        ("words: ", "lists no words"),
        ("words:a b a", "'a' twice"),
        ("characters:abca", "'a' twice"),
        ("{folder}", "holds neither"),
        ("{folder}/bad.json", "cannot be read"),
        ("{folder}/bad.model", "cannot be read"),
        ("{folder}/bad.txt", "ends in '.txt'"),
    ],
)
def test_what_is_no_tokenizer_is_refused(tmp_path, spec, message):
    for name in ("bad.json", "bad.model", "bad.txt"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(spec.format(folder=tmp_path))
    assert "\n" not in str(caught.value)
