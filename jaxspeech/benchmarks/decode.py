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
    torch, model = peer.load(spread=0.08)
    model.eval()
    seconds = np.random.default_rng(1).uniform(1.0, 15.0, args.clips)
    audio, _ = peer.utterances(list(seconds))
    caps = [max(int(len(a) * _RATE) // 16000, 8) for a in audio]

    config = configs.base("jaxspeech.tasks.moonshine.Moonshine")
    config.data.tokenizer = "characters:abc "  # only BOS = 1 and EOS = 2 are used
    base: Any = task_class(config.task).from_config(config)
    task = dataclasses.replace(base, config=MoonshineConfig.TINY, tokens_per_second={"": _RATE})
    tensors = {name: value.detach().numpy() for name, value in model.state_dict().items() if name != "proj_out.weight"}
    params = jax.tree.map(jax.numpy.asarray, moonshine_hf.from_hf_tensors(tensors, MoonshineConfig.TINY))
    rows = [[{"audio": a, "tokens": np.array([1, 2]), "token_limit": np.int32(c)}] for a, c in zip(audio, caps)]
    batches = []
    for shape, records in _plan([len(a) for a in audio], task.sample_rate):
        full = [rows[i] for i in records] + [[] for _ in range(shape.rows - len(records))]
        batches.append((records, jax.tree.map(jax.numpy.asarray, task.collate(full, shape))))
    decode = jax.jit(functools.partial(task.decode))

    padded = peer.batch(torch, audio, [np.array([1, 2])] * len(audio))
    inputs = {name: padded[name] for name in ("input_values", "attention_mask")}

    def ours() -> dict[int, list[int]]:
        found = {}
        for records, batch in batches:
            out = jax.device_get(decode(params, batch))
            found.update({i: out.tokens[row, : out.length[row]].tolist() for row, i in enumerate(records)})
        return found

    def theirs() -> Any:
        with torch.no_grad():
            return model.generate(**inputs, max_new_tokens=max(caps), do_sample=False)

    mine, other, ratio = in_turn(ours, theirs, args.rounds)
    found, equal = ours(), 0
    for row, (sound, cap) in enumerate(zip(audio, caps)):
        with torch.no_grad():
            single = model.generate(input_values=torch.from_numpy(sound[None]), max_new_tokens=cap, do_sample=False)
        ids = [token for token in single[0].tolist()[1:] if token != 2]
        equal += ids == found[row]
    total = float(seconds.sum())
    print(
        f"jaxspeech RTFx {total / mine:.0f}, transformers RTFx {total / other:.0f}, ratio {ratio:.2f}; "
        f"tokens equal to the peer's singles for {equal} of {len(audio)} clips"
    )
    return {"rtfx": total / mine, "peer_rtfx": total / other, "ratio": ratio, "equal": equal, "clips": len(audio)}


def _plan(samples: Sequence[int], rate: int) -> list[tuple[Shape, list[int]]]:
    """The shorter half of the clips in one batch, the longer in another."""
    lengths, everyone = Lengths(np.asarray(samples), np.full(len(samples), 2, np.int32)), np.arange(len(samples))
    rows = -(-len(samples) // _BATCHES)
    shapes = choose_shapes(lengths, everyone, max_shapes=_BATCHES, batch_rows=rows, row_multiple=1, sample_rate=rate)
    plan = Schedule.once(shapes, lengths, everyone).plan(0)
    return [(shape, records.tolist()) for shape, records, _ in (plan.batch(i) for i in range(len(plan)))]
