"""The peer: Moonshine tiny of transformers in eager PyTorch, in a process of its own; batches as its collators make."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from jaxspeech.errors import UserError

TOKENS_PER_SECOND = 3.3  # of English speech under Moonshine's tokenizer


def load(*, spread: float | None = None) -> tuple[Any, Any]:
    """(torch, model): random weights, fp32. `spread` draws all weights with that deviation, for varied greedy tokens.

    Raises:
        UserError: torch or transformers is missing.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError(f"--peer=transformers needs {error.name}: pip install 'jaxspeech[parity]'") from error
    torch.manual_seed(0)
    config = transformers.MoonshineConfig(
        hidden_size=288,
        intermediate_size=1152,
        encoder_num_hidden_layers=6,
        decoder_num_hidden_layers=6,
        pad_head_dim_to_multiple_of=8,
        pad_token_id=2,
    )
    model = transformers.MoonshineForConditionalGeneration(config)
    if spread:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim > 1:
                    weight.normal_(0.0, spread if "embed" not in name else 0.3)
    return torch, model


class Elsewhere:
    """An object in a process of its own, as those who use the peer run it: with its own threads and its own allocator.

    In ours it would share what `parallel.host_memory` sets, which makes eager PyTorch a fifth faster.
    """

    def __init__(self, kind: Callable[..., Any], *arguments: Any) -> None:
        """Makes `kind(*arguments)` there; all must be importable or picklable.

        Raises:
            UserError: likewise there, or the process ended.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        process = context.Process(target=_serve, args=(other, kind, arguments), daemon=True)
        process.start()
        other.close()
        self._answer()

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls a method there and returns its result, or raises what it raised."""
        self._pipe.send((name, arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            result, error = self._pipe.recv()
        except EOFError:
            raise UserError("the peer's process has ended (out of memory?); see its lines above") from None
        if error is not None:
            raise error
        return result


def _serve(pipe: Connection, kind: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    made: Any = None
    while True:
        try:
            if made is None:
                made, result = kind(*arguments), None
            else:
                name, given = pipe.recv()
                result = getattr(made, name)(*given)
            pipe.send((result, None))
        except EOFError:
            return  # nobody asks any more
        except Exception as error:
            pipe.send((None, error))
            if made is None:
                return


def batch(torch: Any, audio: Sequence[np.ndarray], tokens: Sequence[np.ndarray]) -> dict[str, Any]:
    """A padded batch: audio with its mask, labels with -100 behind their end."""
    samples = max(map(len, audio))
    width = max(map(len, tokens))
    values = np.zeros((len(audio), samples), np.float32)
    mask = np.zeros((len(audio), samples), np.int64)
    labels = np.full((len(audio), width - 1), -100, np.int64)
    for row, (sound, ids) in enumerate(zip(audio, tokens)):
        values[row, : len(sound)], mask[row, : len(sound)] = sound, 1
        labels[row, : len(ids) - 1] = ids[1:]
    arrays = {"input_values": values, "attention_mask": mask, "labels": labels}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def utterances(seconds: Sequence[float], seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Noise of these lengths and random tokens, BOS and EOS included."""
    rng = np.random.default_rng(seed)
    audio = [(0.1 * rng.standard_normal(int(s * 16000))).astype(np.float32) for s in seconds]
    counts = [max(int(s * TOKENS_PER_SECOND), 1) for s in seconds]
    tokens = [np.r_[1, rng.integers(3, 32000, n), 2].astype(np.int32) for n in counts]
    return audio, tokens
