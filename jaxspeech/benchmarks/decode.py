"""`jaxspeech bench decode`: greedy decoding of clips of mixed length, against transformers' batched `generate`.

Ours go in two batches by length, whose shapes the planner makes; the peer's in one, as its `generate` takes them.
"""

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxspeech import config as configs
from jaxspeech.benchmarks import peer
from jaxspeech.benchmarks.timing import in_turn
from jaxspeech.data.buckets import choose_shapes
from jaxspeech.data.plan import Schedule
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.interop import moonshine_hf
from jaxspeech.models.moonshine import MoonshineConfig
from jaxspeech.task import task_class

_RATE = 6.5  # tokens a second, the cap of both
_BATCHES = 2  # a token costs all the weights, however few rows there are


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="counted runs of each")


def run(args: argparse.Namespace) -> dict[str, Any]:
    peers = peer.Elsewhere(Theirs)
    seconds = np.random.default_rng(1).uniform(1.0, 15.0, args.clips)
    audio, _ = peer.utterances(list(seconds))
    caps = [max(int(len(a) * _RATE) // 16000, 8) for a in audio]

    config = configs.base("jaxspeech.tasks.moonshine.Moonshine")
    config.data.tokenizer = "characters:abc "  # only BOS = 1 and EOS = 2 are used
    base: Any = task_class(config.task).from_config(config)
    task = dataclasses.replace(base, config=MoonshineConfig.TINY, tokens_per_second={"": _RATE})
    params = moonshine_hf.from_hf_tensors(peers.call("tensors"), MoonshineConfig.TINY)
    params = jax.tree.map(jax.numpy.asarray, params)
    rows = [[{"audio": a, "tokens": np.array([1, 2]), "token_limit": np.int32(c)}] for a, c in zip(audio, caps)]
    batches = []
    for shape, records in _plan([len(a) for a in audio], task.sample_rate):
        full = [rows[i] for i in records] + [[] for _ in range(shape.rows - len(records))]
        batches.append((records, jax.tree.map(jax.numpy.asarray, task.collate(full, shape))))
    decode = jax.jit(functools.partial(task.decode))

    peers.call("prepare", audio)

    def ours() -> dict[int, list[int]]:
        found = {}
        for records, batch in batches:
            out = jax.device_get(decode(params, batch))
            found.update({i: out.tokens[row, : out.length[row]].tolist() for row, i in enumerate(records)})
        return found

    mine, other, ratio = in_turn(ours, lambda: peers.call("generate", max(caps)), args.rounds)
    found, equal = ours(), 0
    for row, (sound, cap) in enumerate(zip(audio, caps)):
        equal += peers.call("single", sound, cap) == found[row]
    total = float(seconds.sum())
    print(
        f"jaxspeech RTFx {total / mine:.0f}, transformers RTFx {total / other:.0f}, ratio {ratio:.2f}; "
        f"tokens equal to the peer's singles for {equal} of {len(audio)} clips"
    )
    return {"rtfx": total / mine, "peer_rtfx": total / other, "ratio": ratio, "equal": equal, "clips": len(audio)}


class Theirs:
    """Greedy decoding by the peer, in its own process."""

    def __init__(self) -> None:
        self.torch, model = peer.load(spread=0.08)
        self.model = model.eval()
        self.inputs: dict[str, Any] = {}

    def tensors(self) -> dict[str, np.ndarray]:
        """Its weights."""
        state = self.model.state_dict()
        return {name: value.detach().numpy() for name, value in state.items() if name != "proj_out.weight"}

    def prepare(self, audio: Sequence[np.ndarray]) -> None:
        """Keeps clips as one batch for `generate`."""
        padded = peer.batch(self.torch, audio, [np.array([1, 2])] * len(audio))
        self.inputs = {name: padded[name] for name in ("input_values", "attention_mask")}

    def generate(self, cap: int) -> None:
        """Decodes the batch, at most so many tokens each."""
        with self.torch.no_grad():
            self.model.generate(**self.inputs, max_new_tokens=cap, do_sample=False)

    def single(self, sound: np.ndarray, cap: int) -> list[int]:
        """Tokens of one clip by itself, without BOS and EOS."""
        with self.torch.no_grad():
            one = self.torch.from_numpy(sound[None])
            tokens = self.model.generate(input_values=one, max_new_tokens=cap, do_sample=False)
        return [token for token in tokens[0].tolist()[1:] if token != 2]


def _plan(samples: Sequence[int], rate: int) -> list[tuple[Shape, list[int]]]:
    """The shorter half of the clips in one batch, the longer in another."""
    lengths, everyone = Lengths(np.asarray(samples), np.full(len(samples), 2, np.int32)), np.arange(len(samples))
    rows = -(-len(samples) // _BATCHES)
    shapes = choose_shapes(lengths, everyone, max_shapes=_BATCHES, batch_rows=rows, row_multiple=1, sample_rate=rate)
    plan = Schedule.once(shapes, lengths, everyone).plan(0)
    return [(shape, records.tolist()) for shape, records, _ in (plan.batch(i) for i in range(len(plan)))]
