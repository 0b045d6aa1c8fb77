"""Initial kernels that make two convolutions on raw audio a filterbank: band-pass filters, and their rectification.

Kernels drawn at random pass what speech has most of, its first formant, with phases and all. On little speech training
then learns waveforms by heart before it finds the energies of bands that tell "two" from "three". Here they are there
from the first step; all kernels train on. After Zeghidour et al. 2018 (arXiv 1711.01161), who begin with Gabor filters
too, but square their outputs, where here the network's own nonlinearities do what squares and logarithms did.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# Hz. Speech falls by about 6 dB an octave above the corner; gains rise by as much.
_LOWEST, _HIGHEST, _CORNER = 60.0, 7600.0, 500.0
# Speech at its usual level (rms 0.06) then bends the tanh behind the filters: loud bands are compressed, as by a log.
_GAIN = 16.0
_RECTIFIED = 2.0  # a filter's weight in the units that rectify it: far enough into the bend of a GELU
_RANDOM = 0.3  # of `lecun_normal`, added: what units of one band do not see, and no two stay alike


def band_pass(sample_rate: int):
    """An initialiser of kernels (taps, 1, filters): a cosine and a sine Gabor filter for each of filters / 2 mel bands.

    Args:
        sample_rate: of the audio, in Hz.
    """

    def initialise(rng: jax.Array, shape: tuple[int, int, int], dtype=jnp.float32) -> jax.Array:
        taps, inputs, filters = shape
        if inputs != 1 or filters % 2:
            raise ValueError(f"band-pass filters come in pairs and read one channel: {filters} of {inputs} asked for")
        highest = min(_HIGHEST, 0.95 * sample_rate / 2)
        edges = _hertz(np.linspace(_mel(_LOWEST), _mel(highest), filters // 2 + 2))
        low, centre, high = edges[:-2], edges[1:-1], edges[2:]
        # A Gaussian whose spectrum is as wide at half height as the mel triangle; where that is longer than the taps,
        # what fits them.
        deviation = np.sqrt(2 * np.log(2)) / (np.pi * (high - low) / 2) * sample_rate
        deviation = np.minimum(deviation, taps / 5)
        time = np.arange(taps)[:, None] - (taps - 1) / 2
        window = np.exp(-0.5 * (time / deviation) ** 2)
        angle = 2 * np.pi * centre / sample_rate * time
        pairs = np.stack([window * np.cos(angle), window * np.sin(angle)], axis=-1)
        pairs -= window[..., None] * pairs.sum(0) / window.sum(0)[:, None]  # deaf to a constant offset
        pairs /= np.linalg.norm(pairs, axis=0)
        pairs *= np.sqrt(1 + (centre / _CORNER) ** 2)[:, None]
        kernel = pairs.reshape(taps, 1, filters)
        return jnp.asarray(_GAIN * kernel / np.sqrt(np.mean(np.sum(kernel**2, axis=0))), dtype)

    return initialise


def rectifiers():
    """An initialiser of kernels (taps, filters, units) behind `band_pass`: units / bands see one band at one moment.

    They see it at phases that are spread over the circle: behind a GELU, their sum is about the band's energy, whatever
    its phase is.
    """

    def initialise(rng: jax.Array, shape: tuple[int, int, int], dtype=jnp.float32) -> jax.Array:
        taps, filters, units = shape
        bands = filters // 2
        if filters % 2 or units % bands:
            raise ValueError(f"{units} units are no multiple of the {filters} / 2 bands before them")
        phase = 2 * np.pi * np.arange(units // bands) / (units // bands)
        kernel = np.zeros(shape)
        kernel[taps // 2] = _RECTIFIED * np.kron(np.eye(bands), [np.cos(phase), np.sin(phase)])
        return jnp.asarray(kernel, dtype) + _RANDOM * nn.initializers.lecun_normal()(rng, shape, dtype)

    return initialise


def _mel(hertz):
    """HTK's mel scale."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def _hertz(mel):
    return 700 * (10 ** (np.asarray(mel) / 2595) - 1)
