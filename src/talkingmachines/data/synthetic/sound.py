"""Small signal tools on 16 kHz float32 mono, in plain numpy."""

import numpy as np

from talkingmachines.types import SAMPLE_RATE, SAMPLES_PER_FRAME

CURVE_RATE = 100
"""Values per second of curves (envelopes, mouth tracks) before they are sampled at frame centres."""

SPEECH_LEVEL = 0.1
"""RMS of the voiced parts of every synthesised utterance (-20 dBFS)."""


def resample(samples: np.ndarray, ratio: float) -> np.ndarray:
    """Band-limited change of rate: the result has round(n * ratio) samples. float32 [n] -> float32 [m]."""
    pads = np.arange(512, 1024)
    exact = (len(samples) + pads) * ratio
    pad = pads[np.argmin(np.abs(exact - np.round(exact)))]  # so that the rate is met to a fraction of a sample
    padded = np.pad(samples.astype(np.float64), (0, pad))
    length = round(len(padded) * ratio)
    spectrum = np.fft.rfft(padded)[: length // 2 + 1]
    out = np.fft.irfft(spectrum, length) * (length / len(padded))
    return out[: round(len(samples) * ratio)].astype(np.float32)


def filter_spectrum(samples: np.ndarray, frequencies: np.ndarray, gains_db: np.ndarray) -> np.ndarray:
    """Zero-phase equaliser: gains in dB at ascending frequencies (Hz), linear in log frequency between."""
    padded = np.pad(samples, (0, 1024))
    spectrum = np.fft.rfft(padded)
    hertz = np.maximum(np.fft.rfftfreq(len(padded), 1 / SAMPLE_RATE), 1.0)
    gain = np.interp(np.log(hertz), np.log(frequencies), gains_db)
    return np.fft.irfft(spectrum * 10 ** (gain / 20), len(padded))[: len(samples)].astype(np.float32)


def convolve(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Causal convolution cut to the input's length."""
    # A length of large prime factors takes a Fourier transform five times as long.
    size = -(-(len(samples) + len(response)) // 4096) * 4096
    out = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    return out[: len(samples)].astype(np.float32)


def smooth(curve: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing along axis 0; sigma in steps of the curve; edges are held."""
    if len(curve) == 0:
        return curve
    reach = max(1, int(np.ceil(3 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    padded = np.pad(curve, [(reach, reach)] + [(0, 0)] * (curve.ndim - 1), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(taps), axis=0)
    return windows @ taps


def loudness(samples: np.ndarray) -> np.ndarray:
    """RMS of 25 ms windows, CURVE_RATE values a second, centred on (k + 0.5) / CURVE_RATE. [n] -> [n // 160]."""
    hop, window = SAMPLE_RATE // CURVE_RATE, SAMPLE_RATE // 40
    count = len(samples) // hop
    margin = (window - hop) // 2
    squares = np.pad(samples.astype(np.float64) ** 2, (margin, margin + window))
    sums = np.concatenate([[0.0], np.cumsum(squares)])
    starts = np.arange(count) * hop
    return np.sqrt(np.maximum(sums[starts + window] - sums[starts], 0) / window)


def normalise(samples: np.ndarray) -> np.ndarray:
    """Brings the louder half of the sounding windows to SPEECH_LEVEL, peaks softly limited to 0.95."""
    levels = loudness(samples)
    sounding = levels[levels > 0.1 * levels.max()] if levels.size else levels
    level = np.sqrt(np.mean(sounding**2)) if sounding.size else 0.0
    return limit(samples * (SPEECH_LEVEL / level)) if level > 0 else samples.astype(np.float32)


def limit(samples: np.ndarray) -> np.ndarray:
    """Soft limiter: linear to 0.7, then bends so that nothing passes 0.98."""
    size = np.abs(samples)
    bent = 0.7 + 0.28 * np.tanh((size - 0.7) / 0.28)
    return (np.sign(samples) * np.where(size > 0.7, bent, size)).astype(np.float32)


def frame_loudness(samples: np.ndarray) -> np.ndarray:
    """RMS of each video frame's samples. [640 * T] -> [T]."""
    frames = samples.reshape(-1, SAMPLES_PER_FRAME).astype(np.float64)
    return np.sqrt((frames**2).mean(axis=1))
