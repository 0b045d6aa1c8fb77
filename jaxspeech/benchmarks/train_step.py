"""`jaxspeech bench train_step`: forward, backward and AdamW of Moonshine tiny in fp32, against eager PyTorch."""

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from jaxspeech import config as configs
from jaxspeech import optim
from jaxspeech import params as trees
from jaxspeech import step as steps
from jaxspeech.benchmarks import peer
from jaxspeech.benchmarks.timing import in_turn
from jaxspeech.compile import compile_all
from jaxspeech.data.plan import Schedule, shapes_for
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.parallel import sharding
from jaxspeech.parallel.mesh import make_mesh
from jaxspeech.task import Task, task_class

_CASES = {"4x10s": [10.0] * 4, "4x25s": [25.0] * 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="counted runs of each")
    parser.add_argument("--utterances", type=int, default=96, help="of the mixed law; 0 leaves it out")
    parser.add_argument(
        "--tokenizer", default="characters:abcdefghijklmnopqrstuvwxyz '", help="any; the tokens are random"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    theirs = peer.Elsewhere(Theirs)
    ours = Ours(args.tokenizer)
    results: dict[str, Any] = {"products": _compare_products(theirs, args.rounds)}
    for name, seconds in _CASES.items():
        audio, tokens = peer.utterances(seconds)
        shape = Shape(len(audio), len(audio[0]), len(tokens[0]))
        step = ours.prepare([(shape, audio, tokens)])
        number = theirs.call("prepare", [(audio, tokens)])
        results[name] = _compare(name, step, functools.partial(theirs.call, "step", number), sum(seconds), args.rounds)
    if args.utterances:
        results["mix"] = _compare_mix(ours, theirs, args)
    return results


def _compare_products(peers: peer.Elsewhere, rounds: int) -> dict[str, float]:
    """Both matrix products of a feed-forward layer on 4 x 10 s, alone: most of a step's arithmetic is of this kind.

    It is done by the libraries (on a CPU, XLA's and PyTorch's), so this ratio tells which part of the steps' is theirs.
    """
    frames, dim, hidden = 4 * 415, 288, 1152
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, np.float32) for shape in ((frames, dim), (dim, hidden), (hidden, dim))]
    x, up, down = map(jax.numpy.asarray, arrays)
    work = jax.jit(lambda x, up, down: x @ up @ down)
    peers.call("keep", arrays)
    times = 20  # products are short

    def ours() -> None:
        for _ in range(times):
            jax.block_until_ready(work(x, up, down))

    mine, other, ratio = in_turn(ours, lambda: peers.call("multiply", times), rounds)
    rate = times * 4 * frames * dim * hidden / 1e9
    print(f"products: jaxspeech {rate / mine:.0f} GFLOP/s, transformers {rate / other:.0f} GFLOP/s, ratio {ratio:.2f}")
    return {"gflops": rate / mine, "peer_gflops": rate / other, "ratio": ratio}


def _compare_mix(ours: "Ours", theirs: peer.Elsewhere, args: argparse.Namespace) -> dict[str, float]:
    """The same utterances: ours in planned buckets, the peer's in random batches of 16 padded to their longest."""
    seconds = mixed_law(args.utterances)
    audio, tokens = peer.utterances(seconds.tolist())
    lengths = Lengths(np.array([len(a) for a in audio]), np.array([len(t) for t in tokens], np.int32))
    data = ours.config.data
    data.batch_seconds, data.shapes, data.row_multiple = 100.0, 8, 1
    everyone = np.arange(len(audio))
    plan = Schedule(shapes_for(data, lengths, everyone), lengths, everyone).plan(0)
    batches = []
    for i in range(len(plan)):
        shape, records, _ = plan.batch(i)
        batches.append((shape, [audio[r] for r in records], [tokens[r] for r in records]))
    groups = [range(i, min(i + 16, len(audio))) for i in range(0, len(audio), 16)]
    random = [([audio[i] for i in group], [tokens[i] for i in group]) for group in groups]
    other = functools.partial(theirs.call, "step", theirs.call("prepare", random))
    return _compare("mix", ours.prepare(batches), other, float(sum(seconds)), max(args.rounds // 2, 2))


def _compare(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], seconds: float, rounds: int
) -> dict[str, float]:
    mine, other, ratio = in_turn(ours, theirs, rounds)
    print(
        f"{name:>6}: jaxspeech {mine:.2f} s ({seconds / mine:.0f} audio s/s), transformers {other:.2f} s "
        f"({seconds / other:.0f} audio s/s), ratio {ratio:.2f}"
    )
    return {"seconds": mine, "peer_seconds": other, "ratio": ratio, "audio_seconds_per_second": seconds / mine}


def mixed_law(count: int, seed: int = 0) -> np.ndarray:
    """Seconds of `count` utterances: equal thirds of lengths as in LibriSpeech, Common Voice and GigaSpeech."""
    rng = np.random.default_rng(seed)
    n = -(-count // 3)
    long = rng.random(n) < 0.55
    libri = np.clip(np.where(long, rng.normal(14.6, 1.2, n), 1 + rng.gamma(3.2, 2.9, n)), 1.2, 35)
    voice = np.clip(rng.lognormal(np.log(5.0), 0.32, n), 1.2, 20)
    giga = np.clip(rng.lognormal(np.log(3.6), 0.75, n), 0.6, 30)
    return rng.permutation(np.concatenate([libri, voice, giga]))[:count]


class Ours:
    """The train step as the loop runs it: compiled for each shape, state donated."""

    def __init__(self, tokenizer: str) -> None:
        self.config: ConfigDict = configs.base("jaxspeech.tasks.moonshine.Moonshine")
        self.config.data.tokenizer = tokenizer
        self.config.optim.name = "adamw"
        self.config.optim.learning_rate = 1e-4
        self.task: Task = task_class(self.config.task).from_config(self.config)
        self.mesh = make_mesh(self.config.mesh, jax.devices()[:1])
        tx = optim.build(self.config.optim, self.config.train.steps)
        params = jax.jit(self.task.init)(jax.random.key(0))
        self.state = jax.jit(lambda p: steps.init_state(trees.split(p, self.task.frozen)[0], tx, 0))(params)

    def prepare(
        self, batches: Sequence[tuple[Shape, Sequence[np.ndarray], Sequence[np.ndarray]]]
    ) -> Callable[[], object]:
        """A function that takes one step on each batch; as in the loop, one is dispatched while another runs."""
        shapes = sorted({shape for shape, _, _ in batches})
        with jax.set_mesh(self.mesh):
            compiled = {entry.shape: entry for entry in compile_all(self.config, self.task, shapes, self.mesh)[1]}
        arrays = []
        for shape, audio, tokens in batches:
            rows: list[list[Any]] = [
                [{"audio": sound, "tokens": ids, "token_limit": np.int32(0)}] for sound, ids in zip(audio, tokens)
            ]
            rows += [[] for _ in range(shape.rows - len(rows))]
            arrays.append((compiled[shape], sharding.to_device(dict(self.task.collate(rows, shape)), self.mesh)))

        def work() -> None:
            before = None
            for entry, batch in arrays:
                self.state, metrics = entry.run(self.state, {}, batch)
                jax.block_until_ready(before)
                before = metrics
            jax.block_until_ready(before)

        return work


class Theirs:
    """Forward, backward and AdamW of the peer, in its own process."""

    def __init__(self) -> None:
        self.torch, model = peer.load()
        self.model = model.train()
        self.optimizer = self.torch.optim.AdamW(model.parameters(), lr=1e-4)
        self.prepared: list[list[dict[str, Any]]] = []
        self.factors: list[Any] = []

    def prepare(self, batches: Sequence[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]) -> int:
        """Keeps batches; returns their number for `step`."""
        self.prepared.append([peer.batch(self.torch, audio, tokens) for audio, tokens in batches])
        return len(self.prepared) - 1

    def step(self, number: int) -> None:
        """Takes one step on each of these batches."""
        for batch in tqdm(self.prepared[number], "transformers", disable=None, leave=False):
            self.optimizer.zero_grad(set_to_none=True)
            self.model(**batch).loss.backward()
            self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()

    def keep(self, arrays: Sequence[np.ndarray]) -> None:
        """Keeps the factors of `multiply`."""
        self.factors = [self.torch.from_numpy(array) for array in arrays]

    def multiply(self, times: int) -> None:
        """The product of all that was kept, so many times."""
        for _ in range(times):
            self.factors[0] @ self.factors[1] @ self.factors[2]
