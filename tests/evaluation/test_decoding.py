import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspeech.evaluation import decoding

BOS, EOS, VOCABULARY, WIDTH = 0, 1, 5, 6


class Recurrent:
    """A small recurrent model with random weights: its state is the cache, its rows differ by a fixed context."""

    def __init__(self, seed, rows, eos_bias=0.0, vocabulary=VOCABULARY):
        rng = np.random.default_rng(seed)
        self.recur, self.embed = rng.normal(size=(WIDTH, WIDTH)) * 0.7, rng.normal(size=(vocabulary, WIDTH))
        self.out = rng.normal(size=(WIDTH, vocabulary)) * 1.5
        self.bias = np.zeros(vocabulary)
        self.bias[EOS] = eos_bias
        self.context = rng.normal(size=(rows, WIDTH))

    def cache(self):
        rows = len(self.context)
        return {
            "state": jnp.zeros((rows, WIDTH)),
            "seen": jnp.zeros((rows, 2, 40), jnp.int32),
            "context": jnp.asarray(self.context, jnp.float32),
        }

    def step(self, cache, token, index):
        state = jnp.tanh(cache["state"] @ self.recur + jnp.asarray(self.embed)[token] + cache["context"])
        seen = jax.lax.dynamic_update_index_in_dim(cache["seen"], token[:, None].repeat(2, 1), index, axis=2)
        return state @ self.out + self.bias, {"state": state, "seen": seen, "context": cache["context"]}

    def score(self, row, text):
        """Sum of log-probabilities of tokens after BOS, in plain numpy."""
        state, total = np.zeros(WIDTH), 0.0
        for last, token in itertools.pairwise((BOS, *text)):
            state = np.tanh(state @ self.recur + self.embed[last] + self.context[row])
            logits = state @ self.out + self.bias
            total += logits[token] - np.log(np.exp(logits).sum())
        return total


def run(search, model, limits, **arguments):
    """The hypotheses of a search under jit, as (text, score) of each row."""
    function = functools.partial(search, model.step, bos=BOS, eos=EOS, **arguments)
    found = jax.jit(lambda cache, limits: function(cache, limits=limits))(model.cache(), jnp.asarray(limits))
    assert found.tokens.shape == (len(limits), arguments["max_length"])
    length = np.asarray(found.length)
    for row, size in zip(np.asarray(found.tokens), length, strict=True):
        assert (row[size:] == EOS).all()
    texts = [tuple(row[:size].tolist()) for row, size in zip(np.asarray(found.tokens), length, strict=True)]
    for row, (size, choices, score) in enumerate(zip(length, np.asarray(found.choices), found.score, strict=True)):
        ended = choices == size + 1  # EOS is a choice too, unless the limit came first
        assert ended or choices == size == min(limits[row], arguments["max_length"])
        said = (*texts[row], EOS) if ended else texts[row]
        assert float(score) == pytest.approx(model.score(row, said), abs=1e-4)
    return list(zip(texts, np.asarray(found.score).tolist(), strict=True))


def by_hand(model, row, limit):
    """Greedy search in plain numpy."""
    text = ()
    while len(text) < limit:
        token = max(range(VOCABULARY), key=lambda token: model.score(row, (*text, token)))
        if token == EOS:
            return text, model.score(row, (*text, EOS))
        text = (*text, token)
    return text, model.score(row, text)


@pytest.mark.parametrize("seed", range(2))
def test_greedy_takes_the_likeliest_token_until_eos_or_limit(seed):
    model = Recurrent(seed, rows=5, eos_bias=0.5)
    limits = [12, 3, 1, 0, 8]
    found = run(decoding.greedy, model, limits, max_length=12)
    for row, limit in enumerate(limits):
        text, score = by_hand(model, row, limit)
        assert found[row][0] == text
        assert found[row][1] == pytest.approx(score, abs=1e-4)


def test_the_likeliest_token_is_the_first_of_equals_and_its_log_probability_that_of_softmax():
    logits = np.random.default_rng(0).normal(size=(6, 1000)).astype(np.float32) * 10
    logits[1, [70, 7, 700]] = 99.0
    logits[2] = -np.inf
    logits[2, 999] = 0.0
    logits[3] = 0.0
    token, log_probability = decoding._likeliest(jnp.asarray(logits))
    assert token.tolist() == np.argmax(logits, axis=-1).tolist()
    expected = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), np.asarray(token)[:, None], 1)[:, 0]
    np.testing.assert_allclose(log_probability, expected, atol=1e-6)


def test_logits_that_are_no_numbers_give_a_token_of_the_vocabulary():
    token, log_probability = decoding._likeliest(jnp.full((1, 10), jnp.nan))
    assert 0 <= token[0] < 10
    assert np.isnan(log_probability[0])


def test_a_hypothesis_that_ends_has_eos_in_its_score_and_not_in_its_tokens():
    model = Recurrent(0, rows=1, eos_bias=50.0)
    ((text, score),) = run(decoding.greedy, model, [4], max_length=4)
    assert text == ()
    assert score == pytest.approx(model.score(0, (EOS,)), abs=1e-5)


def test_an_empty_row_stays_empty():
    model = Recurrent(1, rows=3)
    for search in (decoding.greedy, functools.partial(decoding.beam, beams=3)):
        found = run(search, model, [0, 5, 0], max_length=5)
        assert found[0] == found[2] == ((), 0.0)
        assert found[1][1] < 0


@pytest.mark.parametrize("search", [decoding.greedy, functools.partial(decoding.beam, beams=3)])
def test_a_row_does_not_depend_on_its_neighbours(search):
    model = Recurrent(2, rows=4, eos_bias=0.3)
    together = run(search, model, [9, 2, 7, 5], max_length=9)
    for row, limit in [(1, 2), (2, 7)]:
        alone = Recurrent(2, rows=4, eos_bias=0.3)
        alone.context = alone.context[row : row + 1]
        ((text, score),) = run(search, alone, [limit], max_length=9)
        assert together[row][0] == text
        assert together[row][1] == pytest.approx(score, abs=1e-5)


def test_the_loop_stops_when_every_row_is_done():
    calls = []

    def step(cache, token, index):
        jax.debug.callback(lambda index: calls.append(int(index)), index)
        return jnp.where(index >= cache[:, None] - 1, jnp.eye(VOCABULARY)[EOS], jnp.eye(VOCABULARY)[3]) * 9.0, cache

    found = decoding.greedy(step, jnp.array([2, 4]), bos=BOS, eos=EOS, limits=jnp.array([100, 100]), max_length=100)
    jax.effects_barrier()
    assert found.length.tolist() == [1, 3]
    assert sorted(calls) == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(2))
def test_one_beam_is_greedy_search(seed):
    model, limits = Recurrent(seed, rows=6, eos_bias=0.8), [10, 10, 4, 1, 0, 7]
    greedy = run(decoding.greedy, model, limits, max_length=10)

    def one_beam(step, cache, *, bos, eos, limits, max_length):
        return decoding._search(step, cache, bos, eos, limits, max_length, 1, 1.0)

    beam = run(one_beam, model, limits, max_length=10)
    assert [text for text, _ in beam] == [text for text, _ in greedy]
    np.testing.assert_allclose([s for _, s in beam], [s for _, s in greedy], atol=1e-5)


def exhaustive(model, row, limit, length_penalty):
    """The best of all texts: those that end within the limit, and those that fill it without an end."""
    tokens = [token for token in range(4) if token != EOS]
    endings = [(*text, EOS) for length in range(limit) for text in itertools.product(tokens, repeat=length)] + list(
        itertools.product(tokens, repeat=limit)
    )
    best = max(endings, key=lambda text: model.score(row, text) / len(text) ** length_penalty)
    return tuple(token for token in best if token != EOS), model.score(row, best)


@pytest.mark.parametrize(("length_penalty", "eos_bias"), [(0.0, -0.5), (0.0, 1.0), (0.6, 1.0), (1.0, -0.5), (2.0, 1.0)])
def test_enough_beams_find_what_exhaustive_search_finds(length_penalty, eos_bias):
    model = Recurrent(7, rows=6, eos_bias=eos_bias, vocabulary=4)
    limits = [4, 4, 4, 3, 2, 1]
    # 3^4 texts without an end, and as many endings, are all kept.
    arguments = {"max_length": 4, "beams": 130, "length_penalty": length_penalty}
    found = run(decoding.beam, model, limits, **arguments)
    for row, limit in enumerate(limits):
        text, score = exhaustive(model, row, limit, length_penalty)
        assert found[row][0] == text
        assert found[row][1] == pytest.approx(score, abs=1e-4)


def test_more_beams_find_likelier_texts_than_greedy_search():
    model = Recurrent(3, rows=64, eos_bias=0.2)
    limits = [8] * 64
    sums = [
        sum(score for _, score in run(decoding.beam, model, limits, max_length=8, beams=k, length_penalty=0.0))
        for k in (1, 6)
    ]
    assert sums[0] < sums[1]


@pytest.mark.parametrize("beams", [2, 5])
def test_the_score_is_that_of_the_text_it_comes_with(beams):
    """A cache that follows the wrong parent would give probabilities of another text."""
    model, limit = Recurrent(5, rows=16, eos_bias=0.0), 9
    for row, (text, score) in enumerate(run(decoding.beam, model, [limit] * 16, max_length=limit, beams=beams)):
        ends = () if len(text) == limit else (EOS,)
        assert score == pytest.approx(model.score(row, (*text, *ends)), abs=1e-4)


def test_a_cache_leaf_that_steps_leave_alone_is_not_gathered():
    model = Recurrent(0, rows=2)
    marked = 17

    def lowered(step):
        cache = model.cache() | {"context": jnp.zeros((2, WIDTH)), "fixed": jnp.zeros((2, marked, 3))}
        search = functools.partial(decoding.beam, step, bos=BOS, eos=EOS, max_length=4, beams=2)
        return str(jax.make_jaxpr(lambda c: search(c, limits=jnp.array([4, 4])))(cache))

    def leaves_alone(cache, token, index):
        logits, new = model.step(cache, token, index)
        return logits + cache["fixed"].sum(), new | {"fixed": cache["fixed"]}

    def touches(cache, token, index):
        logits, new = model.step(cache, token, index)
        return logits + cache["fixed"].sum(), new | {"fixed": cache["fixed"] + 1}

    def gathers(jaxpr):
        return sum("gather" in line and f"[4,{marked},3]" in line for line in jaxpr.splitlines())

    assert gathers(lowered(leaves_alone)) == 0
    assert gathers(lowered(touches)) > 0


@pytest.mark.parametrize(
    ("seconds", "limit"), [(0.0, 0), (0.05, 5), (0.3, 5), (1.0, 6), (2.0, 13), (10.0, 65), (30.0, 195), (64.0, 416)]
)
def test_the_cap_is_six_and_a_half_tokens_a_second_with_a_floor(seconds, limit):
    samples = round(seconds * 16_000)
    assert decoding.token_limit(samples, minimum=5) == limit
    assert jax.jit(functools.partial(decoding.token_limits, minimum=5))(jnp.array([samples])).tolist() == [limit]


def test_the_cap_is_exact_for_hours_and_for_other_rates():
    samples = np.random.default_rng(0).integers(1, 2**31 - 1, 1000)
    for rate, sample_rate in ((6.5, 16_000), (13.0, 16_000), (6.0, 24_000), (7.125, 44_100)):
        exact = [max(3, int(n) * round(rate * 1000) // (sample_rate * 1000)) for n in samples]
        options = {"minimum": 3, "tokens_per_second": rate, "sample_rate": sample_rate}
        assert decoding.token_limits(jnp.asarray(samples, jnp.int32), **options).tolist() == exact
        assert [decoding.token_limit(int(n), **options) for n in samples] == exact
