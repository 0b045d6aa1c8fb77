"""Audio samples on the device."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num


def floats(audio: Num[Array, "*batch samples"]) -> Float[Array, "*batch samples"]:
    """Samples as float32: int16 within ±1, floats as they are; to the bit what `data.audio.floats` makes of them."""
    if audio.dtype == jnp.int16:
        return audio.astype(jnp.float32) * jnp.float32(1 / 32768)
    return audio
