"""The initial filterbank: bands on the mel scale, both phases of each, and units whose sum is a band's energy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspeech.nn.conv import StridedConv
from jaxspeech.nn.filterbank import band_pass, rectifiers
from jaxspeech.ops.activations import gelu

RATE, DIM = 16_000, 64


def mel(hertz):
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


@pytest.fixture(scope="module")
def kernel():
    return np.asarray(band_pass(RATE)(jax.random.key(0), (127, 1, DIM)))[:, 0]


def spectra(kernel):
    return np.abs(np.fft.rfft(kernel, 1 << 14, axis=0)), np.fft.rfftfreq(1 << 14, 1 / RATE)


def test_bands_rise_in_equal_steps_of_mel_and_both_phases_share_one(kernel):
    magnitude, hertz = spectra(kernel)
    centre = hertz[magnitude.argmax(0)].reshape(-1, 2)
    inner = centre[DIM // 8 :]  # below, 127 taps are shorter than the periods of a band
    assert np.abs(inner[:, 0] / inner[:, 1] - 1).max() < 0.05
    steps = np.diff(mel(inner.mean(1)))
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.1)
    assert 6500 < inner[-1].max() < 7600


def test_no_filter_hears_a_constant(kernel):
    assert np.abs(kernel.sum(0)).max() < 1e-4 * np.abs(kernel).sum(0).min()


def test_gains_rise_by_six_decibels_an_octave(kernel):
    magnitude, hertz = spectra(kernel)
    level = 20 * np.log10(np.linalg.norm(kernel, axis=0)[::2])
    centre = hertz[magnitude.argmax(0)][::2]
    at = lambda f: np.interp(f, centre, level)  # noqa: E731
    assert at(4000) - at(2000) == pytest.approx(6.0, abs=0.5)
    assert at(400) - at(200) < 2.5


@pytest.mark.parametrize("frequency", [400.0, 1000.0, 2300.0, 5000.0])
def test_the_loudest_band_is_that_of_the_tone_whatever_its_phase(frequency):
    """Behind tanh and GELU, as in Moonshine's stem: the units of a band sum to the same at all phases."""
    first = StridedConv(DIM, 127, 64, use_bias=False, kernel_init=band_pass(RATE))
    second = StridedConv(2 * DIM, 7, 3, kernel_init=rectifiers())
    time = np.arange(RATE // 4) / RATE
    phases = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    sound = jnp.asarray(0.03 * np.sin(2 * np.pi * frequency * time + phases[:, None]), jnp.float32)[..., None]
    filtered = jnp.tanh(first.apply(first.init(jax.random.key(0), sound), sound))
    units = gelu(second.apply(second.init(jax.random.key(1), filtered), filtered))
    heard = np.asarray(units.reshape(len(phases), -1, DIM // 2, 4).sum(-1).mean(1))  # by phase and band
    centre = mel(60) + (mel(7600) - mel(60)) * np.arange(1, DIM // 2 + 1) / (DIM // 2 + 1)
    assert np.abs(centre[heard.argmax(1)] - mel(frequency)).max() < 1.5 * (centre[1] - centre[0])
    loudest = heard.mean(0).argmax()
    assert heard[:, loudest].std() < 0.1 * heard[:, loudest].mean()


def test_units_of_a_band_see_no_other_but_for_the_random_part():
    kernel = np.asarray(rectifiers()(jax.random.key(0), (7, DIM, 2 * DIM)))
    own = np.kron(np.eye(DIM // 2), np.ones((2, 4)))
    assert np.abs(kernel[3][own == 0]).max() < 0.2
    np.testing.assert_allclose(np.hypot(*(kernel[3] * own).reshape(DIM // 2, 2, -1).swapaxes(0, 1)).max(), 2, atol=0.3)
    assert np.abs(np.delete(kernel, 3, axis=0)).max() < 0.2


@pytest.mark.parametrize(
    ("initialiser", "shape"),
    [(band_pass(RATE), (127, 1, 7)), (band_pass(RATE), (127, 2, 8)), (rectifiers(), (7, 8, 9))],
)
def test_shapes_that_cannot_be_a_filterbank_are_refused(initialiser, shape):
    with pytest.raises(ValueError, match=r"asked for|no multiple"):
        initialiser(jax.random.key(0), shape)
