"""What an utterance gives is its own affair; both forms of the model and both ways of running it agree."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspeech.models import moonshine as model
from jaxspeech.models.moonshine_decoder import Decoder
from jaxspeech.nn.stack import stack_layers, unstack_layers
from jaxspeech.ops.cross_entropy import cross_entropy

SMALL = model.MoonshineConfig(dim=32, heads=4, encoder_layers=2, decoder_layers=1, vocab_size=64, rotary_dims=8)
# Samples and tokens (with BOS and EOS) of some utterances; the second is too short for a single frame. Few different
# lengths: each is a program to compile.
LENGTHS = ((9000, 9), (800, 5), (4447, 2), (9000, 9))


def one_batch(rows, samples, tokens, segments):
    """A batch of nobody."""
    places = np.zeros((rows, segments), np.int32)
    batch = {"audio": np.zeros((rows, samples), np.float32), "tokens": np.zeros((rows, tokens), np.int32)}
    return batch | {f"{kind}_{what}": places.copy() for kind in ("audio", "token") for what in ("start", "length")}


def place(batch, row, segment, at, utterance):
    """Puts an utterance at (sample, token) of a row."""
    for kind, array, start in zip(("audio", "tokens"), utterance, at):
        batch[kind][row, start : start + len(array)] = array
        name = kind.removesuffix("s")
        batch[f"{name}_start"][row, segment], batch[f"{name}_length"][row, segment] = start, len(array)


def utterances():
    draw = np.random.default_rng(0)
    return [
        (draw.normal(size=samples).astype(np.float32) * 0.1, np.r_[1, draw.integers(3, 64, tokens - 2), 2])
        for samples, tokens in LENGTHS
    ]


def singles():
    batches = []
    for audio, tokens in utterances():
        batches.append(one_batch(1, len(audio), len(tokens), 1))
        place(batches[-1], 0, 0, (0, 0), (audio, tokens))
    return batches


def padded(fill=0.0, token=0):
    """All of them in a bucket, one row of nobody among them; `fill` and `token` are what the padding holds."""
    batch = one_batch(5, 10000, 14, 1)
    batch["audio"][:], batch["tokens"][:] = fill, token
    for row, utterance in zip((0, 1, 2, 4), utterances()):
        place(batch, row, 0, (0, 0), utterance)
    return batch


def packed(fill=0.0, token=0):
    """All of them in two rows, with gaps; a place of nobody between two that are taken."""
    batch = one_batch(2, 384 * 45, 30, 3)
    batch["audio"][:], batch["tokens"][:] = fill, token
    everyone = utterances()
    place(batch, 0, 0, (0, 0), everyone[0])
    place(batch, 0, 2, (384 * 24, 9), everyone[1])
    place(batch, 0, 1, (384 * 28, 16), everyone[2])
    place(batch, 1, 1, (384 * 2, 3), everyone[3])
    return batch


# Where each utterance is: (row, segment).
PADDED = ((0, 0), (1, 0), (2, 0), (4, 0))
PACKED = ((0, 0), (0, 2), (0, 1), (1, 1))


@functools.cache
def parameters():
    """Random ones, of a size that makes everything matter: norms and biases too."""
    draw = np.random.default_rng(1)
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in singles()[0].items()}
    spec = jax.eval_shape(model.Moonshine(SMALL).init, jax.random.key(0), **batch)["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape) * 0.3, jnp.float32), spec)


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, batch):
    """Sum of losses, what else there is to see, and gradients."""

    def total(params):
        net = model.Moonshine(config)
        view = model.targets(batch["tokens"], batch["token_start"], batch["token_length"])
        encoded = net.apply(
            {"params": params}, batch["audio"], batch["audio_start"], batch["audio_length"], method="encode"
        )
        hidden = net.apply({"params": params}, view.inputs, view.segment_ids, view.positions, encoded, method="hidden")
        table = params["decoder"]["embedding"]["embedding"]
        flat = (hidden.reshape(-1, config.dim), table, view.targets.reshape(-1), view.weights.reshape(-1))
        losses = cross_entropy(*flat)[0].reshape(view.weights.shape)
        return jnp.sum(losses), (encoded, view, hidden, hidden @ table.T, losses)

    (loss, seen), gradients = jax.value_and_grad(total, has_aux=True)(params)
    return loss, seen, gradients


def of_utterance(seen, row, segment):
    """Its frames, logits and losses."""
    encoded, view, _, logits, losses = jax.tree.map(np.asarray, seen)
    frames = encoded.frames[row][encoded.segment_ids[row] == segment + 1]
    mine = view.segment_ids[row] == segment + 1
    return frames, logits[row][mine], losses[row][mine]


@functools.cache
def alone():
    """Frames, logits and losses of every utterance by itself, and the sum of losses and of gradients."""
    results = [run(SMALL, parameters(), batch) for batch in singles()]
    gradients = jax.tree.map(lambda *leaves: sum(leaves), *[result[2] for result in results])
    return [of_utterance(result[1], 0, 0) for result in results], sum(result[0] for result in results), gradients


def assert_close(found, expected, tolerance=1e-5):
    scale = max(np.abs(expected).max(initial=0), 1e-3)
    np.testing.assert_allclose(found, expected, atol=tolerance * scale, rtol=0)


def assert_as_alone(batch, places):
    utterances_alone, loss_alone, gradients_alone = alone()
    loss, seen, gradients = run(SMALL, parameters(), batch)
    for (row, segment), expected in zip(places, utterances_alone):
        for a, b in zip(of_utterance(seen, row, segment), expected):
            assert a.shape == b.shape
            assert_close(a, b)
    assert_close(loss, loss_alone)
    for (path, a), b in zip(jax.tree.leaves_with_path(gradients), jax.tree.leaves(gradients_alone)):
        assert np.isfinite(a).all(), jax.tree_util.keystr(path)
        assert_close(a, b)
    # Every array is finite, what belongs to nobody too.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(seen))


@pytest.mark.parametrize(("fill", "token"), [(0.0, 0), (1e3, 63), (np.nan, -7)])
def test_an_utterance_in_a_padded_bucket_is_as_it_is_alone(fill, token):
    assert_as_alone(padded(fill, token), PADDED)


@pytest.mark.parametrize(("fill", "token"), [(0.0, 0), (np.inf, 10**6)])
def test_an_utterance_packed_beside_others_is_as_it_is_alone(fill, token):
    assert_as_alone(packed(fill, token), PACKED)


def test_each_attention_gives_the_same():
    expected = run(SMALL, parameters(), packed())
    found = run(dataclasses.replace(SMALL, attention="xla"), parameters(), packed())
    assert_close(found[0], expected[0])
    jax.tree.map(assert_close, found[2], expected[2])


def test_short_audio_has_no_frames_and_breaks_nothing():
    frames = of_utterance(run(SMALL, parameters(), singles()[1])[1], 0, 0)[0]
    assert frames.shape == (0, SMALL.dim)


def test_a_token_depends_on_no_later_one():
    params, batch = parameters(), singles()[0]
    view = model.targets(batch["tokens"], batch["token_start"], batch["token_length"])
    table = params["decoder"]["embedding"]["embedding"]
    net = model.Moonshine(dataclasses.replace(SMALL, vocab_size=view.inputs.shape[1]))

    def hidden(embedded):
        """With the input embeddings as the variable: every token has an entry of its own."""
        own = jnp.arange(view.inputs.shape[1])[None]
        swapped = params | {"decoder": params["decoder"] | {"embedding": {"embedding": embedded}}}
        encoded = net.apply(
            {"params": swapped}, batch["audio"], batch["audio_start"], batch["audio_length"], method="encode"
        )
        return net.apply({"params": swapped}, own, view.segment_ids, view.positions, encoded, method="hidden")[0]

    jacobian = jax.jit(jax.jacobian(hidden))(table[view.inputs[0]])
    reaches = np.abs(jacobian).sum(axis=(1, 3)) > 0
    np.testing.assert_array_equal(reaches, np.tril(np.ones_like(reaches)))


def test_targets_follow_lengths_not_token_values():
    tokens = np.array([[1, 5, 2, 2, 2, 1, 2, 9]])  # EOS is also the padding, and a text may hold it
    view = model.targets(tokens, np.array([[0, 5]]), np.array([[4, 2]]))
    assert view.inputs[0].tolist() == [1, 5, 2, 0, 0, 1, 0]
    assert view.targets[0].tolist() == [5, 2, 2, 0, 0, 2, 0]
    assert view.weights[0].tolist() == [1, 1, 1, 0, 0, 1, 0]
    assert view.segment_ids[0].tolist() == [1, 1, 1, 0, 0, 2, 0]
    assert view.positions[0].tolist() == [0, 1, 2, 0, 0, 0, 0]


def test_one_token_at_a_time_equals_all_at_once():
    params, batch = parameters(), padded(np.nan)
    net = model.Moonshine(SMALL)
    logits = run(SMALL, params, batch)[1][3]
    limit = batch["tokens"].shape[1] - 1

    @jax.jit
    def decode(audio, audio_start, audio_length, tokens):
        encoded = net.apply({"params": params}, audio, audio_start, audio_length, method="encode")
        cache = net.apply({"params": params}, encoded, limit, method="start")

        def step(cache, place):
            logits, cache = net.apply({"params": params}, cache, tokens[:, place], place, method="step")
            return cache, logits

        return jax.lax.scan(step, cache, jnp.arange(limit))[1].swapaxes(0, 1)

    found = decode(batch["audio"], batch["audio_start"], batch["audio_length"], batch["tokens"].clip(0))
    for row, (_, tokens) in zip((0, 1, 2, 4), LENGTHS):
        assert_close(found[row, : tokens - 1], logits[row, : tokens - 1])


def test_the_cache_has_the_row_axis_first():
    encoded = jax.eval_shape(
        lambda **batch: model.Moonshine(SMALL).apply({"params": parameters()}, **batch, method="encode"),
        **{name: x for name, x in padded().items() if name.startswith("audio")},
    )
    cache = jax.eval_shape(
        lambda encoded: model.Moonshine(SMALL).apply({"params": parameters()}, encoded, 7, method="start"), encoded
    )
    assert {leaf.shape[0] for leaf in jax.tree.leaves(cache)} == {5}


@pytest.mark.parametrize(
    ("remat", "scan_layers"),
    [
        ("none", True),
        ("full", False),
        ("dots", True),
        pytest.param("full", True, marks=pytest.mark.slow),
        pytest.param("dots", False, marks=pytest.mark.slow),
    ],
)
def test_scan_and_rematerialisation_change_nothing(remat, scan_layers):
    config = dataclasses.replace(SMALL, remat=remat, scan_layers=scan_layers)
    params = stack_layers(parameters()) if scan_layers else parameters()
    loss, seen, gradients = run(config, params, padded())
    expected = run(SMALL, parameters(), padded())
    assert_close(loss, expected[0])
    assert_close(seen[3], expected[1][3])
    jax.tree.map(assert_close, unstack_layers(gradients), expected[2])


def test_rematerialisation_saves_memory():
    def temporaries(remat):
        config = dataclasses.replace(SMALL, remat=remat, encoder_layers=24, scan_layers=True)
        batch = one_batch(2, 64000, 8, 1)
        spec = jax.eval_shape(model.Moonshine(config).init, jax.random.key(0), **batch)["params"]
        return run.lower(config, spec, batch).compile().memory_analysis().temp_size_in_bytes

    assert temporaries("full") < 0.6 * temporaries("none")


def test_the_scanned_tree_is_the_stacked_one():
    batch = singles()[0]

    def tree(config):
        return jax.eval_shape(model.Moonshine(config).init, jax.random.key(0), **batch)["params"]

    stacked = jax.eval_shape(stack_layers, tree(SMALL))
    scanned = tree(dataclasses.replace(SMALL, scan_layers=True))
    assert jax.tree.structure(stacked) == jax.tree.structure(scanned)
    assert jax.tree.leaves(stacked) == jax.tree.leaves(scanned)


def test_decoding_takes_either_tree():
    for scan_layers in (False, True):
        config = dataclasses.replace(SMALL, scan_layers=scan_layers)
        params = stack_layers(parameters()) if scan_layers else parameters()
        net, params = model.for_decoding(config, params)
        assert not net.config.scan_layers
        jax.tree.map(np.testing.assert_array_equal, params, parameters())


@pytest.mark.parametrize(
    ("config", "count", "stem", "encoder"),
    [
        (model.MoonshineConfig.TINY, 27_092_736, 1_696_896, 7_681_248),
        (model.MoonshineConfig.BASE, 61_513_920, 3_516_032, 20_153_120),
    ],
)
def test_parameters_are_as_many_as_published(config, count, stem, encoder):
    spec = jax.eval_shape(model.Moonshine(config).init, jax.random.key(0), **singles()[0])["params"]

    def size(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    assert {leaf.dtype for leaf in jax.tree.leaves(spec)} == {jnp.dtype("float32")}
    assert size(spec) == count
    assert size(spec["encoder"]) == encoder
    assert size([spec["encoder"][name] for name in ("conv1", "group_norm", "conv2", "conv3")]) == stem


def test_frames_of_lengths():
    expected = {126: (0, 0, 0), 894: (12, 2, 0), 895: (13, 3, 1), 1600: (24, 6, 2), 64000: (999, 331, 165)}
    expected |= {160000: (2499, 831, 415), 480000: (7499, 2498, 1248), 0: (0, 0, 0)}
    for samples, counts in expected.items():
        assert model.frames(samples) == counts
    arrays = model.frames(np.array(list(expected)))
    assert list(zip(*(count.tolist() for count in arrays))) == list(expected.values())
    assert all(model.frames(n + model.STRIDE)[2] == model.frames(n)[2] + 1 for n in range(895, 2000))
    assert (model.frames(model.RECEPTIVE_FIELD - 1)[2], model.frames(model.RECEPTIVE_FIELD)[2]) == (0, 1)


def test_initial_loss_is_near_the_uniform_one_and_gradients_reach_everything():
    batch = padded()
    params = model.Moonshine(SMALL).init(jax.random.key(0), **batch)["params"]
    loss, seen, gradients = run(SMALL, params, batch)
    assert abs(loss / seen[1].weights.sum() - np.log(SMALL.vocab_size)) < 1.0
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_bfloat16_is_close_and_parameters_stay_fp32():
    config = dataclasses.replace(SMALL, dtype="bfloat16")
    params = model.Moonshine(SMALL).init(jax.random.key(0), **padded())["params"]
    loss, _, gradients = run(config, params, padded())
    exact = run(SMALL, params, padded())
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(loss, exact[0], rtol=1e-2)

    def flat(tree):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    a, b = flat(gradients), flat(exact[2])
    assert a @ b / np.sqrt((a @ a) * (b @ b)) > 0.99


def test_in_bfloat16_a_frequent_token_loses_none_of_its_gradient():
    config = dataclasses.replace(SMALL, dtype="bfloat16")
    decoder = Decoder(config)
    tokens = jnp.full((1, 4000), 3)

    def looked_up(table):
        return jnp.sum(decoder.apply({"params": {"embedding": {"embedding": table}}}, tokens, method="_embed") * 1.0)

    gradient = jax.jit(jax.grad(looked_up))(jnp.ones((config.vocab_size, config.dim)))
    np.testing.assert_array_equal(gradient[3], 4000.0)  # summed in bfloat16 it would stay at 256


@pytest.mark.parametrize(
    ("config", "samples", "gigaflops"),
    [
        (model.MoonshineConfig.TINY, 160000, 11.1),
        (model.MoonshineConfig.BASE, 160000, 26.8),
        (model.MoonshineConfig.TINY, 480000, 41),
        (model.MoonshineConfig.BASE, 480000, 96),
    ],
)
def test_flops_are_those_of_the_sheet_at_four_tokens_a_second(config, samples, gigaflops):
    assert model.flops(config, samples, samples // 4000 + 1) / 1e9 == pytest.approx(gigaflops, rel=0.02)


def test_flops_are_those_that_the_compiler_counts():
    config = dataclasses.replace(model.MoonshineConfig.TINY, encoder_layers=2, decoder_layers=2, attention="xla")
    batch = one_batch(1, 160000, 41, 1)
    params = jax.eval_shape(model.Moonshine(config).init, jax.random.key(0), **batch)
    compiled = jax.jit(model.Moonshine(config).apply).lower(params, **batch).compile()
    assert model.flops(config, 160000, 41) == pytest.approx(compiled.cost_analysis()["flops"], rel=0.1)


@pytest.mark.parametrize(
    "wrong",
    [{"heads": 5}, {"rotary_dims": 7}, {"rotary_dims": 40}, {"dim": 24, "heads": 8}, {"heads": 0}, {"ff_mult": 0}],
)
def test_sizes_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError, match=r"dim|rotary|must be 1 or more"):
        dataclasses.replace(model.MoonshineConfig.TINY, **wrong)
