"""Moonshine's decoder: a causal transformer with cross-attention, whole or one token at a time over a cache."""

import dataclasses
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxspeech.models.moonshine_encoder import Encoded
from jaxspeech.nn.attention import Attention, Rotations
from jaxspeech.nn.mlp import SwigluMLP
from jaxspeech.nn.norm import LayerNorm
from jaxspeech.nn.rope import rotations
from jaxspeech.nn.stack import rematerialised, scan
from jaxspeech.ops.segments import Segments

if TYPE_CHECKING:
    from jaxspeech.models.moonshine import MoonshineConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of one decoding, a tuple over layers; every array has the row axis first.

    Beam search gathers `keys` and `values` over rows; the cross-attention part is the same for all beams of a row.

    Attributes:
        keys: of the tokens so far, [rows, heads, head_dim, limit]; zeros beyond.
        values: of the tokens so far, [rows, heads, limit, head_dim]; zeros beyond.
        cross_keys: of the encoder's frames, [rows, heads, head_dim, time].
        cross_values: of the encoder's frames, [rows, heads, time, head_dim].
        frame_segments: int32[rows, time], 1 for a frame that counts.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    cross_keys: tuple[jax.Array, ...]
    cross_values: tuple[jax.Array, ...]
    frame_segments: jax.Array


class DecoderLayer(nn.Module):
    """Pre-norm causal self-attention with rotary positions, cross-attention without, then a SwiGLU feed-forward."""

    config: "MoonshineConfig"

    def setup(self) -> None:
        config = self.config
        dtype = jnp.dtype(config.dtype)
        shrink = (3 * config.decoder_layers) ** -0.5

        def attend(causal: bool) -> Attention:
            return Attention(
                heads=config.heads,
                head_dim=config.head_dim,
                dim=config.dim,
                causal=causal,
                implementation=config.attention,
                dtype=dtype,
                output_scale=shrink,
            )

        self.self_attention_norm = LayerNorm(dtype=dtype)
        self.self_attention = attend(causal=True)
        self.cross_attention_norm = LayerNorm(dtype=dtype)
        self.cross_attention = attend(causal=False)
        self.mlp_norm = LayerNorm(dtype=dtype)
        self.mlp = SwigluMLP(config.dim, config.inner, dtype, shrink)

    def __call__(
        self,
        x: Float[Array, "rows tokens dim"],
        segments: Segments,
        turns: Rotations,
        memory: Float[Array, "rows time dim"],
        memory_segments: Segments,
    ) -> Float[Array, "rows tokens dim"]:
        x = x + self.self_attention(self.self_attention_norm(x), segments, turns)
        x = x + self.cross_attention.cross(self.cross_attention_norm(x), segments, memory, memory_segments)
        return x + self.mlp(self.mlp_norm(x))

    def step(self, x, keys, values, cross_keys, cross_values, so_far, frame_segments, index, turns):
        """One token [rows, 1, dim] at position `index`; gives it and the keys and values with its own written in."""
        y = self.self_attention_norm(x)
        key, value = self.self_attention.remember(y, turns)
        keys = jax.lax.dynamic_update_slice_in_dim(keys, key, index, axis=3)
        values = jax.lax.dynamic_update_slice_in_dim(values, value, index, axis=2)
        x = x + self.self_attention.recall(y, keys, values, so_far, turns)
        x = x + self.cross_attention.recall(self.cross_attention_norm(x), cross_keys, cross_values, frame_segments)
        return x + self.mlp(self.mlp_norm(x)), keys, values


class Decoder(nn.Module):
    """Tokens and frames to hidden states and logits; see `Moonshine.hidden`, `.start`, `.step`."""

    config: "MoonshineConfig"

    def setup(self) -> None:
        config = self.config
        dtype = jnp.dtype(config.dtype)
        self.embedding = nn.Embed(
            config.vocab_size, config.dim, dtype=dtype, embedding_init=nn.initializers.normal(config.dim**-0.5)
        )
        if not config.scan_layers:
            layer = rematerialised(DecoderLayer, config.remat)
            self.layer = [layer(config) for _ in range(config.decoder_layers)]
        else:
            self.layers = rematerialised(DecoderLayer, config.remat, scanned=True)(config)
        self.norm = LayerNorm(dtype=dtype)

    def __call__(
        self,
        tokens: Int[Array, "rows tokens"],
        token_segments: Int[Array, "rows tokens"],
        token_positions: Int[Array, "rows tokens"],
        encoded: Encoded,
    ) -> Float[Array, "rows tokens dim"]:
        x = self._embed(tokens)
        segments = Segments(token_segments, token_positions, packed=encoded.segments.packed)
        turns = rotations(token_positions, tokens.shape[1], self.config.rotary_dims, self.config.head_dim)
        shared = (segments, turns, encoded.frames, encoded.segments)
        if self.config.scan_layers:
            x = scan(self.layers, self.config.decoder_layers, x, *shared)
        else:
            for layer in self.layer:
                x = layer(x, *shared)
        return self.norm(x)

    def _embed(self, tokens: Int[Array, "*batch"]) -> Float[Array, "*batch dim"]:
        # Cast behind the lookup: the gradient of a token that occurs hundreds of times is then summed in fp32.
        return jnp.take(self.embedding.embedding, tokens, axis=0).astype(self.config.dtype)

    def logits(self, hidden: Float[Array, "*batch dim"]) -> Float[Array, "*batch vocabulary"]:
        """The tied head, fp32."""
        table = self.embedding.embedding.astype(hidden.dtype)
        # As [vocabulary, batch]: a CPU multiplies a table by few columns faster than few rows by a table.
        by_token = jnp.einsum("vd,...d->v...", table, hidden, preferred_element_type=jnp.float32)
        return jnp.moveaxis(by_token, 0, -1)

    def start(self, encoded: Encoded, limit: int) -> Cache:
        """See `Moonshine.start`."""
        config = self.config
        rows = encoded.frames.shape[0]
        empty = jnp.zeros((rows, config.heads, limit, config.head_dim), encoded.frames.dtype)
        no_keys = empty.swapaxes(2, 3)
        cross = [layer.cross_attention.remember(encoded.frames) for layer in self.layer]
        return Cache(
            keys=(no_keys,) * config.decoder_layers,
            values=(empty,) * config.decoder_layers,
            cross_keys=tuple(key for key, _ in cross),
            cross_values=tuple(value for _, value in cross),
            frame_segments=encoded.segment_ids,
        )

    def step(
        self, cache: Cache, token: Int[Array, " rows"], index: Int[Array, ""]
    ) -> tuple[Float[Array, "rows vocabulary"], Cache]:
        """See `Moonshine.step`."""
        x = self._embed(token[:, None])
        positions = jnp.broadcast_to(index, (token.shape[0], 1))
        turns = rotations(positions, cache.values[0].shape[2], self.config.rotary_dims, self.config.head_dim)
        # A row that has ended is looked after no more: whatever becomes of it, it reads nothing of its cache.
        going = ((token != self.config.eos) | (index == 0))[:, None]
        so_far = (going & (jnp.arange(cache.values[0].shape[2]) <= index)).astype(jnp.int32)
        frame_segments = jnp.where(going, cache.frame_segments, 0)
        keys, values = [], []
        for number, layer in enumerate(self.layer):
            x, key, value = layer.step(
                x,
                cache.keys[number],
                cache.values[number],
                cache.cross_keys[number],
                cache.cross_values[number],
                so_far,
                frame_segments,
                index,
                turns,
            )
            keys.append(key)
            values.append(value)
        cache = dataclasses.replace(cache, keys=tuple(keys), values=tuple(values))
        return self.logits(self.norm(x)[:, 0]), cache
