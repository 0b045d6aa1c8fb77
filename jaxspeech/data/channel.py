"""What lies between a microphone and us: level, overload, telephone bandwidth, lossy codecs. Length and time stay."""

import io

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

Samples = Float[np.ndarray, " samples"]

_TELEPHONE = 8000  # Hz
_BLOCK = 1 << 14  # frames; libsndfile overflows its stack on long writes of some codings
# libsndfile's names. LAME's variable bit rate tells its delay in the file, so the decoder takes it out; its constant
# bit rate does not.
_FORMATS = {
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mulaw": {"format": "RAW", "subtype": "ULAW"},
    "alaw": {"format": "RAW", "subtype": "ALAW"},
    "gsm": {"format": "RAW", "subtype": "GSM610"},
}
# libsndfile's compression levels from best to worst: at 16 kHz 60 to 18 kbit/s of MP3, 59 to 12 kbit/s of Opus.
_LEVELS = {"mp3": (0.0, 0.98), "opus": (0.8, 0.98)}
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
CODECS = tuple(_FORMATS)


def amplify(audio: Samples, gain_db: float) -> Samples:
    """Louder or quieter by so many dB, as a file of 16 bits holds it: cut at full scale, rounded to 1/32768."""
    steps = np.rint(audio * np.float32(32768 * 10 ** (gain_db / 20)))
    return np.clip(steps, -32768, 32767) / np.float32(32768)


def clip(audio: Samples, share: float) -> Samples:
    """Cuts the loudest `share` of the samples (0 to 1) to the level of the loudest that remains."""
    loud = round(share * len(audio))
    if loud <= 0:
        return audio
    magnitude = np.abs(audio)
    ceiling = np.partition(magnitude, len(audio) - loud - 1)[len(audio) - loud - 1] if loud < len(audio) else 0.0
    return np.clip(audio, -ceiling, ceiling)


def narrow(audio: Samples, sample_rate: int) -> Samples:
    """Telephone bandwidth: down to 8 kHz and up again, so that nothing is left above 4 kHz."""
    if sample_rate <= _TELEPHONE:
        return audio
    return _resample(_resample(audio, sample_rate, _TELEPHONE), _TELEPHONE, sample_rate, len(audio))


def encode_decode(audio: Samples, sample_rate: int, codec: str, compression: float = 0.5) -> Samples:
    """Through one of `CODECS` and back, in memory.

    `mp3` (LAME) and `opus` work at the audio's rate; `compression` from 0 to 1 goes from their best to their worst
    quality. `mulaw` and `alaw` (G.711) and `gsm` (GSM 06.10 full rate) work at 8 kHz and have one quality. Beyond ±1
    is clipped. The same audio gives the same samples with the same version of libsndfile.
    """
    if not len(audio):
        return audio
    rate = sample_rate
    if codec == "opus" and sample_rate not in _OPUS_RATES:
        rate = next((other for other in _OPUS_RATES if other > sample_rate), _OPUS_RATES[-1])
    elif codec not in _LEVELS:
        rate = _TELEPHONE
    coded = np.clip(_resample(audio, sample_rate, rate), -1.0, 1.0)
    settings: dict = {"samplerate": rate, "channels": 1, **_FORMATS[codec]}
    level = {}
    if codec in _LEVELS:
        best, worst = _LEVELS[codec]
        level = {"compression_level": best + compression * (worst - best)}
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", **settings, **level) as writer:
        for first in range(0, len(coded), _BLOCK):
            writer.write(coded[first : first + _BLOCK])
    file.seek(0)
    raw = settings if settings["format"] == "RAW" else {}  # all others say in the file what they are
    with soundfile.SoundFile(file, **raw) as reader:
        decoded = reader.read(len(coded), dtype="float32")
    return _resample(decoded, rate, sample_rate, len(audio))


def _resample(audio: Samples, rate: int, wanted: int, samples: int | None = None) -> Samples:
    """At another rate; with exactly so many samples, if said."""
    if rate != wanted:
        audio = soxr.resample(audio, rate, wanted, quality="HQ")
    if samples is None or len(audio) == samples:
        return audio
    return np.pad(audio[:samples], (0, max(0, samples - len(audio))))
