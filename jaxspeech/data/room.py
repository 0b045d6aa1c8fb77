"""Reverberation: speech convolved with the impulse response of a room."""

import math

import numpy as np
from jaxtyping import Float

from jaxspeech.data.audio import AudioError
from jaxspeech.data.noise import power


def reverberate(
    audio: Float[np.ndarray, " samples"], response: Float[np.ndarray, " taps"]
) -> Float[np.ndarray, " samples"]:
    """The audio as heard in the room: as long, as loud (mean power), and not later than it was.

    The response's highest peak, the direct sound, falls on the moment of the source; what it says after the end of the
    utterance is cut. Raises `AudioError` for a response that is silent.
    """
    direct = int(np.argmax(np.abs(response)))
    if response[direct] == 0.0:
        raise AudioError("augmentation: silent impulse response")
    loudness = power(audio)
    if loudness == 0.0:
        return audio
    size = 1 << (len(audio) + len(response) - 2).bit_length()
    spectrum = np.fft.rfft(audio.astype(np.float32), size) * np.fft.rfft(response.astype(np.float32), size)
    heard = np.fft.irfft(spectrum, size)[direct : direct + len(audio)].astype(np.float32)
    after = power(heard)
    return heard * np.float32(math.sqrt(loudness / after)) if after > 0.0 else audio


def decay_time(response: Float[np.ndarray, " taps"], sample_rate: int) -> float:
    """Seconds in which the sound falls by 60 dB (RT60), by Schroeder's backward integration (J. Acoust. Soc. Am. 37,
    1965) from the decay between -5 and -25 dB; NaN if it does not fall so far."""
    energy = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]
    level = 10 * np.log10(np.maximum(energy / energy[0], 1e-20))
    begin, end = (int(np.argmax(level <= bound)) for bound in (-5.0, -25.0))
    if level[end] > -25.0 or end <= begin:
        return math.nan
    return 3 * (end - begin) / sample_rate
