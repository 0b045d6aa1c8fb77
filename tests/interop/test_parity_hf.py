"""Folders that we write, in transformers, and folders that transformers writes, here: the same model."""

import dataclasses
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspeech.evaluation.decoding import greedy
from jaxspeech.interop import moonshine_hf
from jaxspeech.models.moonshine import Moonshine, MoonshineConfig, for_decoding

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SAMPLES, LIMIT = 20_000, 24


@pytest.fixture(scope="module")
def audio():
    rng = np.random.default_rng(1)
    return (0.1 * rng.standard_normal((1, SAMPLES))).astype(np.float32)


@pytest.fixture
def folder(tmp_path, small, random_params, tokenizer_json):
    moonshine_hf.write_folder(tmp_path / "hf", random_params(small), small, tokenizer_json, max_length=77)
    return tmp_path / "hf"


def load(folder):
    model, info = transformers.MoonshineForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def one(value):
    return jnp.full((1, 1), value, jnp.int32)


def assert_same_logits(model, params, config, audio):
    ids = np.asarray([[1, *np.random.default_rng(2).integers(3, config.vocab_size, 11), 2]], np.int32)
    ours = Moonshine(config).apply(
        {"params": params}, audio, one(0), one(SAMPLES), jnp.asarray(ids), one(0), one(ids.shape[1])
    )
    with torch.no_grad():
        theirs = model(
            input_values=torch.tensor(audio), decoder_input_ids=torch.tensor(ids[:, :-1]).long()
        ).logits.numpy()
    assert np.max(np.abs(ours - theirs)) <= 1e-4 * np.max(np.abs(theirs))


def greedy_tokens(params, config, audio):
    net, params = for_decoding(config, params)
    encoded = net.apply({"params": params}, audio, one(0), one(SAMPLES), method="encode")
    cache = net.apply({"params": params}, encoded, LIMIT + 1, method="start")

    def step(cache, token, index):
        return net.apply({"params": params}, cache, token, index, method="step")

    limits = jnp.full(1, LIMIT, jnp.int32)
    found = greedy(step, cache, bos=config.bos, eos=config.eos, limits=limits, max_length=LIMIT)
    return found.tokens[0, : found.length[0]].tolist()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_transformers_computes_what_we_compute(tmp_path, small, random_params, tokenizer_json, audio, seed):
    params = random_params(small, seed)
    moonshine_hf.write_folder(tmp_path / "hf", params, small, tokenizer_json)
    model = load(tmp_path / "hf")
    assert_same_logits(model, params, small, audio)
    generated = model.generate(input_values=torch.tensor(audio), max_new_tokens=LIMIT, do_sample=False, num_beams=1)
    theirs = generated[0].tolist()
    ours = greedy_tokens(params, small, audio)
    assert len(set(ours)) > 1
    assert theirs[0] == small.bos
    assert ours == theirs[1 : 1 + len(ours)]
    assert len(ours) == LIMIT or theirs[1 + len(ours)] == small.eos


@pytest.mark.parametrize("config", [MoonshineConfig.TINY, MoonshineConfig.BASE], ids=["tiny", "base"])
def test_tiny_and_base_compute_the_same_over_there(tmp_path, random_params, audio, config):
    params = random_params(config)
    moonshine_hf.write_folder(tmp_path / "hf", params, config, None)
    model = load(tmp_path / "hf")
    assert model.config.rope_parameters["partial_rotary_factor"] == (0.9 if config.dim == 288 else 0.62)
    assert_same_logits(model, params, config, audio)


def test_processor_tokenizer_and_limits_load(folder, small, audio):
    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert type(processor).__name__ == "Wav2Vec2Processor"
    values = processor(audio[0], sampling_rate=16000, return_tensors="np").input_values
    np.testing.assert_array_equal(values, audio)  # nothing is normalised
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = moonshine_hf.load_tokenizer(str(folder))
    ids = tokenizer("hello world").input_ids
    assert ids == [1, *ours.encode("hello world")]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "hello world"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert load(folder).generation_config.max_length == 77


def test_moonshines_own_tokenizer_gives_its_published_ids_there(tmp_path, random_params, speech_data):
    config = MoonshineConfig(dim=16, heads=2, encoder_layers=1, decoder_layers=1, rotary_dims=8)
    own = speech_data / "moonshine" / "tokenizer.json"
    moonshine_hf.write_folder(tmp_path / "hf", random_params(config), config, own)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "hf")
    assert processor.tokenizer("hello world").input_ids == [1, 22172, 3186]
    assert processor.tokenizer("HELLO").input_ids == [1, 17714, 2208, 29949]
    assert processor.batch_decode([[1, 22172, 3186, 2]], skip_special_tokens=True) == ["hello world"]


@pytest.mark.parametrize("spec", ["characters:abcdefghijklmnopqrstuvwxyz ", "words:one two three five", "a.model"])
def test_exported_tokenizers_are_tokenizers_there(tmp_path, random_params, small, spec):
    from jaxspeech.data.text import load_tokenizer, train_sentencepiece

    if spec == "a.model":
        try:
            importlib.import_module("sentencepiece.sentencepiece_model_pb2")
        except Exception as error:  # protobuf's own
            pytest.skip(f"protobuf is older than sentencepiece's definitions: {error}")
        spec = str(tmp_path / spec)
        train_sentencepiece(["one two three four", "five six seven"] * 20, spec, 290)
    own = load_tokenizer(spec)
    model = dataclasses.replace(small, bos=own.bos, eos=own.eos)
    moonshine_hf.write_folder(tmp_path / "hf", random_params(model), model, spec)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    ids = tokenizer("two three five").input_ids
    assert ids == [own.bos, *own.encode("two three five")]
    assert tokenizer.decode([*ids, own.eos], skip_special_tokens=True) == "two three five"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_transformers_saves_is_read(tmp_path, audio, dtype):
    config = transformers.MoonshineConfig(
        hidden_size=48,
        intermediate_size=96,
        encoder_num_hidden_layers=1,
        decoder_num_hidden_layers=2,
        encoder_num_attention_heads=4,
        decoder_num_attention_heads=4,
        vocab_size=100,
    )
    torch.manual_seed(0)
    model = transformers.MoonshineForConditionalGeneration(config).to(getattr(torch, dtype)).eval()
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    values, params = moonshine_hf.read_folder(tmp_path / "one")
    assert (values["ff_mult"], values["rotary_dims"], values["decoder_layers"]) == (2, 10, 2)
    ours = MoonshineConfig(**values)
    assert_same_logits(model.float(), params, ours, audio)
    shards = moonshine_hf.read_folder(tmp_path / "shards")[1]
    jax.tree.map(np.testing.assert_array_equal, params, shards)

    again = moonshine_hf.to_hf_tensors(params, ours)
    state = model.state_dict()
    assert again.keys() == state.keys() - {"proj_out.weight"}
    for name, tensor in again.items():
        np.testing.assert_array_equal(tensor, state[name].numpy())
    assert "rope_parameters" in json.loads((tmp_path / "one" / "config.json").read_text())


def test_the_whole_folder_survives_transformers(folder, tmp_path):
    """Ours → transformers' save_pretrained → ours: every weight has the same bits."""
    load(folder).save_pretrained(tmp_path / "theirs")
    _, before = moonshine_hf.read_folder(folder)
    values, after = moonshine_hf.read_folder(tmp_path / "theirs")
    assert values == moonshine_hf.read_config(folder)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32)), before, after)
