"""Greedy and beam search over any autoregressive model, batched and jit-able.

A model enters as a step function `step(cache, token, index) -> (logits, cache)`: `token` int32[rows] is the last token
of each row, `index` (a scalar) its position, 0 for BOS; `logits` are float[rows, vocabulary]. The cache is a tree of
arrays with the row axis first. What does not change while decoding (the encoder's keys and values, say) may travel in
it too: a leaf that a step returns untouched is never copied, in beam search either.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxspeech.evaluation.top_k import top_k
from jaxspeech.task import Hypotheses

Cache = Any  # a tree of arrays, rows first
Step = Callable[[Cache, Int[Array, " rows"], Int[Array, ""]], tuple[Float[Array, "rows vocabulary"], Cache]]


def token_limit(samples: int, *, minimum: int, tokens_per_second: float = 6.5, sample_rate: int = 16_000) -> int:
    """The cap on new tokens for audio of that many samples, on the host: the `max_length` of a static shape."""
    return max(_cap(samples, tokens_per_second, sample_rate), minimum) if samples > 0 else 0


def token_limits(
    audio_samples: Int[Array, " rows"],
    *,
    minimum: int,
    tokens_per_second: float = 6.5,
    sample_rate: int = 16_000,
) -> Int[Array, " rows"]:
    """The cap on new tokens (EOS is one of them) of each row: Moonshine's guard against endless repetition.

    Args:
        audio_samples: samples of each row; 0 where a row is empty.
        minimum: floor for short clips: 6.5 a second leaves "yes" in 0.3 s of audio one token.
        tokens_per_second: 6.5 suits English text under Moonshine's tokenizer (its generation config: 194 tokens for
            30 s); its makers advise about 13 for languages in other scripts. Kept to three decimals.
        sample_rate: of `audio_samples`.

    Returns:
        max(minimum, floor(seconds * tokens_per_second)), and 0 for empty rows.
    """
    limits = _cap(audio_samples, tokens_per_second, sample_rate)
    return jnp.where(audio_samples > 0, jnp.maximum(limits, minimum), 0).astype(jnp.int32)


def _cap(samples: Any, tokens_per_second: float, sample_rate: int) -> Any:
    # Whole numbers that fit 32 bits: a float product may land just under the whole number that it stands for.
    rate = round(tokens_per_second * 1000)
    return (samples // sample_rate * rate + samples % sample_rate * rate // sample_rate) // 1000


class _Greedy(NamedTuple):
    position: Int[Array, ""]  # of the token that enters next
    token: Int[Array, " rows"]
    tokens: Int[Array, "rows limit"]
    length: Int[Array, " rows"]
    score: Float[Array, " rows"]
    choices: Int[Array, " rows"]
    done: Bool[Array, " rows"]
    cache: Cache


def greedy(step: Step, cache: Cache, *, bos: int, eos: int, limits: Int[Array, " rows"], max_length: int) -> Hypotheses:
    """The likeliest token at every step, until each row has said EOS or reached its limit.

    Args:
        limits: new tokens that a row may have at most, EOS counted; 0 for empty rows, which stay empty.
        max_length: static width of the result and the highest limit that takes effect.

    Returns:
        Hypotheses with tokens [rows, max_length], filled up with EOS.
    """
    (rows,) = limits.shape
    limits = jnp.minimum(limits, max_length)

    def advance(now: _Greedy) -> _Greedy:
        logits, cache = step(now.cache, now.token, now.position)
        best, chosen = _likeliest(logits.astype(jnp.float32))
        token = jnp.where(now.done, eos, best)
        text = token != eos
        return _Greedy(
            position=now.position + 1,
            token=token,
            tokens=jax.lax.dynamic_update_index_in_dim(now.tokens, token, now.position, axis=1),
            length=now.length + text,
            score=now.score + jnp.where(now.done, 0.0, chosen),
            choices=now.choices + ~now.done,
            done=~text | (now.position + 1 >= limits),
            cache=cache,
        )

    start = _Greedy(
        position=jnp.int32(0),
        token=jnp.full(rows, bos, jnp.int32),
        tokens=jnp.full((rows, max_length), eos, jnp.int32),
        length=jnp.zeros(rows, jnp.int32),
        score=jnp.zeros(rows, jnp.float32),
        choices=jnp.zeros(rows, jnp.int32),
        done=limits <= 0,
        cache=cache,
    )
    end = jax.lax.while_loop(lambda now: ~jnp.all(now.done), advance, start)
    return Hypotheses(tokens=end.tokens, length=end.length, score=end.score, choices=end.choices)


def _likeliest(logits: Float[Array, "rows vocabulary"]) -> tuple[Int[Array, " rows"], Float[Array, " rows"]]:
    """The token with the highest logit (the first of several) and its log-probability, in plain reductions.

    `argmax` reduces pairs, which CPUs do one by one. Without a highest (NaN) it is the last token.
    """
    logits = logits.T
    vocabulary = logits.shape[0]
    top = jnp.max(logits, axis=0)
    tokens = jnp.arange(vocabulary, dtype=jnp.int32)[:, None]
    best = jnp.min(jnp.where(logits == top, tokens, vocabulary - 1), axis=0)
    return best, -jnp.log(jnp.sum(jnp.exp(logits - top), axis=0))


def beam(
    step: Step,
    cache: Cache,
    *,
    bos: int,
    eos: int,
    limits: Int[Array, " rows"],
    max_length: int,
    beams: int,
    length_penalty: float = 1.0,
) -> Hypotheses:
    """Beam search; the arguments of `greedy`, and equal to it for one beam.

    The winner has the highest rank = score / tokens ** length_penalty, EOS counted among the tokens: 0 is the plain sum
    of log-probabilities, 1 their mean. A row ends when `beams` hypotheses have ended and rank above all open ones, when
    no open one can overtake the best any more, or at its limit, where the open ones count as they stand. (To stop at
    the first `beams` endings, as Whisper does, lets short texts win that nothing speaks for.) The score returned is the
    sum.

    Args:
        step: called with rows * beams rows.
        cache: with one row an utterance; it is repeated here.
    """
    if beams == 1:
        return greedy(step, cache, bos=bos, eos=eos, limits=limits, max_length=max_length)
    return _search(step, cache, bos, eos, limits, max_length, beams, length_penalty)


class _Beams(NamedTuple):
    position: Int[Array, ""]  # of the token that enters next
    tokens: Int[Array, "rows beams limit"]  # of the open hypotheses, best first
    score: Float[Array, "rows beams"]  # -inf: no hypothesis
    ended_tokens: Int[Array, "rows beams limit"]
    ended_length: Int[Array, "rows beams"]
    ended_choices: Int[Array, "rows beams"]
    ended_score: Float[Array, "rows beams"]
    ended_rank: Float[Array, "rows beams"]  # with the length penalty; -inf: no hypothesis
    done: Bool[Array, " rows"]
    cache: Cache


def _search(
    step: Step,
    cache: Cache,
    bos: int,
    eos: int,
    limits: Int[Array, " rows"],
    max_length: int,
    beams: int,
    length_penalty: float,
) -> Hypotheses:
    (rows,) = limits.shape
    limits = jnp.minimum(limits, max_length)

    def advance(now: _Beams) -> _Beams:
        count = now.position + 1  # tokens of a hypothesis after this step, EOS included
        last = jnp.where(now.position == 0, bos, now.tokens[:, :, jnp.maximum(now.position - 1, 0)])
        logits, stepped = step(now.cache, last.reshape(-1), now.position)
        vocabulary = logits.shape[-1]
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(rows, beams, vocabulary)

        # Twice as many as there are beams: even if every beam could end, enough remain to go on with.
        scores = (now.score[:, :, None] + log_probs).reshape(rows, -1)
        score, choice = top_k(scores, min(2 * beams, beams * vocabulary))
        parent, token = choice // vocabulary, (choice % vocabulary).astype(jnp.int32)
        ends = token == eos

        # An ending counts if it is among the best `beams`; so one beam ends where greedy search would.
        ending = jnp.where(ends[:, :beams], score[:, :beams], -jnp.inf)
        ending_tokens = _of_parents(now.tokens, parent[:, :beams])

        going_score, order = jax.lax.top_k(jnp.where(ends, -jnp.inf, score), beams)
        parent = jnp.take_along_axis(parent, order, axis=1)
        token = jnp.take_along_axis(token, order, axis=1)
        tokens = jax.lax.dynamic_update_index_in_dim(_of_parents(now.tokens, parent), token, now.position, axis=2)
        at_limit = jnp.where((count >= limits)[:, None], going_score, -jnp.inf)

        scores = jnp.concatenate([now.ended_score, ending, at_limit], axis=1)
        penalty = count.astype(jnp.float32) ** length_penalty
        ranks = jnp.concatenate([now.ended_rank, ending / penalty, at_limit / penalty], axis=1)
        texts = jnp.concatenate([now.ended_tokens, ending_tokens, tokens], axis=1)
        full = jnp.broadcast_to(count, (rows, beams))
        lengths = jnp.concatenate([now.ended_length, full - 1, full], axis=1)
        choices = jnp.concatenate([now.ended_choices, full, full], axis=1)
        rank, best = jax.lax.top_k(ranks, beams)

        # Scores only fall, and the longest hypothesis is divided by most: nothing open can rank above `hope`.
        hope = going_score[:, 0] / jnp.maximum(count, limits).astype(jnp.float32) ** max(length_penalty, 0.0)
        done = (rank[:, -1] >= going_score[:, 0] / penalty) | (rank[:, 0] >= hope) | (count >= limits)

        after = _Beams(
            position=count,
            tokens=tokens,
            score=going_score,
            ended_tokens=_of_parents(texts, best),
            ended_length=jnp.take_along_axis(lengths, best, axis=1),
            ended_choices=jnp.take_along_axis(choices, best, axis=1),
            ended_score=jnp.take_along_axis(scores, best, axis=1),
            ended_rank=rank,
            done=now.done | done,
            cache=_follow(now.cache, stepped, parent),
        )
        kept = {
            name: jnp.where(now.done.reshape(-1, *(1,) * (getattr(now, name).ndim - 1)), getattr(now, name), new)
            for name, new in after._asdict().items()
            if name.startswith("ended")
        }
        return after._replace(**kept)

    start = _Beams(
        position=jnp.int32(0),
        tokens=jnp.full((rows, beams, max_length), eos, jnp.int32),
        score=jnp.full((rows, beams), -jnp.inf).at[:, 0].set(0.0),  # all beams begin alike: one is enough
        ended_tokens=jnp.full((rows, beams, max_length), eos, jnp.int32),
        ended_length=jnp.zeros((rows, beams), jnp.int32),
        ended_choices=jnp.zeros((rows, beams), jnp.int32),
        ended_score=jnp.full((rows, beams), -jnp.inf),
        ended_rank=jnp.full((rows, beams), -jnp.inf),
        done=limits <= 0,
        cache=jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0), cache),
    )
    end = jax.lax.while_loop(lambda now: ~jnp.all(now.done), advance, start)
    found = end.ended_rank[:, 0] > -jnp.inf
    return Hypotheses(
        tokens=end.ended_tokens[:, 0],
        length=jnp.where(found, end.ended_length[:, 0], 0),
        score=jnp.where(found, end.ended_score[:, 0], 0.0),
        choices=jnp.where(found, end.ended_choices[:, 0], 0),
    )


def _of_parents(tokens: Int[Array, "rows n limit"], parent: Int[Array, "rows m"]) -> Int[Array, "rows m limit"]:
    return jnp.take_along_axis(tokens, parent[:, :, None], axis=1)


def _follow(before: Cache, after: Cache, parent: Int[Array, "rows beams"]) -> Cache:
    """The cache of the hypotheses that go on. A leaf that the step left alone is the same in all beams of a row."""
    rows, beams = parent.shape
    source = (jnp.arange(rows)[:, None] * beams + parent).reshape(-1)
    return jax.tree.map(lambda old, new: old if new is old else new[source], before, after)
