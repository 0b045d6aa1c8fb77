"""What a model family offers the loop: the `Task` protocol and the types that travel through it.

A family is a class that satisfies `Task`, found by its dotted path in the config (`config.task`). The loop knows
nothing of speech; a task knows nothing of optimisers, meshes, checkpoints or adapters.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from jaxspeech.data.augment import Changes
from jaxspeech.data.manifest import Collection, Manifest, Record
from jaxspeech.data.shapes import Lengths, Shape
from jaxspeech.data.text import Tokenizer
from jaxspeech.errors import UserError

Params = Any  # a nested dict of arrays
Batch = Mapping[str, Any]  # numpy arrays on the host, jax arrays on the device; the row axis first
Example = Mapping[str, Any]  # one utterance on the host: numpy arrays and numbers
Rules = Sequence[tuple[str, tuple[str | None, ...]]]  # (regular expression on the path, mesh axis of each dimension)


@struct.dataclass
class LossOut:
    """What a batch costs, as sums: accumulation, packing and many hosts normalise once, at the end.

    Attributes:
        loss: sum of the loss over everything that counts (for cross-entropy: over target tokens), fp32.
        weight: how much was summed; the reported loss is `loss / weight`.
        metrics: further measures, each a (sum, weight) pair.
        utterance_loss: loss of every utterance, summed over it; 0 where a place is empty.
        utterance_weight: the weight of every utterance; 0 where a place is empty.
    """

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: dict[str, tuple[Float[Array, ""], Float[Array, ""]]]
    utterance_loss: Float[Array, "rows segments"]
    utterance_weight: Float[Array, "rows segments"]


@struct.dataclass
class Hypotheses:
    """Decoded token ids of a batch.

    Attributes:
        tokens: ids without BOS and EOS, padded at the end.
        length: how many of them count.
        score: sum of the natural log-probabilities of what was chosen, fp32: of the tokens, and of EOS where the model
            ended the text itself; for CTC of the best class of every frame.
        choices: how many log-probabilities are summed in `score`, so that `score / choices` is their average; 0 where
            a row is empty. None: the family cannot tell, and has no average (`jaxspeech prepare pseudo-label` refuses
            it).
    """

    tokens: Int[Array, "rows limit"]
    length: Int[Array, " rows"]
    score: Float[Array, " rows"]
    choices: Int[Array, " rows"] | None = None


class Task(Protocol):
    """One model family. Built by `from_config` from the whole config; holds no state that changes."""

    sample_rate: int
    stride: int  # samples a frame; packed utterances start on multiples of it
    tokenizer: Tokenizer
    sharding_rules: Rules

    @property
    def augmentation(self) -> Changes:
        """What `load` does to the audio.

        Where it is a field of a dataclass, the family can be evaluated under conditions (`evaluation/conditions.py`),
        which take its place.
        """
        ...

    @classmethod
    def defaults(cls) -> ConfigDict:
        """The family's `model` section, every key with its default."""
        ...

    @classmethod
    def from_config(cls, config: ConfigDict) -> "Task":
        """Builds the task; raises `UserError` on values that cannot work."""
        ...

    @classmethod
    def config_for(cls, folder: str) -> ConfigDict:
        """The config that a folder of published weights stands for."""
        ...

    def measure(self, manifest: Manifest | Collection) -> Lengths:
        """Lengths of all records, from the manifest alone: no audio is read."""
        ...

    def load(self, record: Record, rng: np.random.Generator | None) -> Example:
        """Reads one utterance on the host. `rng` (`data.augment.Draws`) drives its augmentation; None means none."""
        ...

    def collate(self, rows: Sequence[Sequence[Example]], shape: Shape) -> Batch:
        """Lays out rows of utterances (one each, or several when packed) in a static shape."""
        ...

    def batch_spec(self, shape: Shape) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of what `collate` returns, without data: for compiling ahead of time."""
        ...

    def audit(self, batch: Batch, records: Sequence[Record]) -> list[str]:
        """What is wrong with the labels of a batch (one record a row) as the loss would see them; [] if nothing is."""
        ...

    def init(self, rng: jax.Array) -> Params:
        """The parameter tree in fp32."""
        ...

    def load_weights(self, folder: str) -> Params:
        """The parameter tree from a folder of published weights."""
        ...

    def frozen(self, path: str) -> bool:
        """Whether the parameter at a path such as `encoder/conv1/kernel` is kept as it is."""
        ...

    def loss(self, params: Params, batch: Batch, rng: jax.Array, *, train: bool) -> LossOut:
        """Pure and jit-able; computes in the precision that the config asks for, sums in fp32."""
        ...

    def decode(self, params: Params, batch: Batch, *, beams: int = 1) -> Hypotheses:
        """Pure and jit-able; one utterance a row. Greedy for `beams == 1`.

        `score` and `choices` come from the log-softmax (fp32) that decoding itself took its choices from, at the
        model's own temperature: padding, neighbours and a length penalty change nothing in them.
        """
        ...

    def flops(self, lengths: Lengths) -> float:
        """Floating-point operations of a forward pass over these utterances without padding (2 a multiply-add)."""
        ...


def task_class(path: str) -> type[Task]:
    """Imports a task by its dotted path, `package.module.Class`."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"config.task = {path!r} cannot be imported ({error}); give a dotted path such as "
            "'jaxspeech.tasks.moonshine.Moonshine'"
        ) from error
