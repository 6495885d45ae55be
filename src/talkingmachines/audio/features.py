"""What the models hear: log-mel columns, strictly causal; and when somebody speaks.

Shapes: B batch, T video frames, J = 4T columns of 10 ms, M = 80 mel bands.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from talkingmachines.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

N_MELS = 80
HOP = SAMPLE_RATE // 100
COLUMNS_PER_FRAME = SAMPLES_PER_FRAME // HOP
WINDOW = 400
HISTORY = WINDOW - HOP
"""Samples before its own 10 ms that a column sees; what a stream carries from piece to piece."""

_FFT = 512

_COLUMNS_AT_ONCE = 6_000
"""One minute: the spectra of an hour would take gigabytes."""

_LOG_FLOOR = -9.0
"""log10 of what is added to the mel power; a full-scale sine has power 1. Below the hiss of most recordings."""

_LOG_MEAN, _LOG_STD = -5.9, 1.5
"""Of log10 mel power over 60 recorded sentences at -20 dBFS, rounded; digital silence becomes -2.07."""


def log_mel(samples: Tensor, history: Tensor | None = None) -> Tensor:
    """Log-mel features, float32 [B, T, 320]: 4 columns of 80 bands for each video frame, normalised by constants.

    samples: [B, 640 * T] in [-1, 1]. history: [B, 240], the samples just before them (default: silence), so that a
    stream taken in pieces gives the same features as the whole.

    Column j sees samples 160j - 240 .. 160j + 159 through a Hann window, so frame t knows nothing after its own
    last sample. Speech has about zero mean and unit variance; silence is the constant -2.07, never minus infinity.
    """
    batch, count = samples.shape
    assert count % SAMPLES_PER_FRAME == 0, f"{count} samples are not whole video frames of {SAMPLES_PER_FRAME}"
    # Autocast would round the powers to bfloat16 before their logarithm is taken.
    with torch.autocast(samples.device.type, enabled=False):
        samples = samples.float()
        if history is None:
            history = samples.new_zeros(batch, HISTORY)
        heard = torch.cat([history.float(), samples], dim=1)
        window, filters = _constants(samples.device)
        columns_BJW = heard.unfold(1, WINDOW, HOP)
        pieces = [_log_power(piece, window, filters) for piece in columns_BJW.split(_COLUMNS_AT_ONCE, dim=1)]
        log_BJM = (torch.cat(pieces, dim=1) - _LOG_MEAN) / _LOG_STD
    return log_BJM.reshape(batch, count // SAMPLES_PER_FRAME, COLUMNS_PER_FRAME * N_MELS)


def _log_power(columns_BJW: Tensor, window: Tensor, filters: Tensor) -> Tensor:
    """log10 of the mel power, [B, J, M]."""
    power_BJK = torch.fft.rfft(columns_BJW * window, n=_FFT).abs().square()
    return torch.log10(power_BJK @ filters + 10**_LOG_FLOOR)


@lru_cache(maxsize=8)
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """The Hann window [400], scaled so that a full-scale sine has power 1, and the mel filters [257, 80]."""
    window = torch.hann_window(WINDOW, dtype=torch.float64)
    window = window / (window.sum() / 2)
    return window.float().to(device), torch.from_numpy(mel_filters()).float().to(device)


def mel_filters() -> np.ndarray:
    """Triangles of height 1 over the FFT bins, evenly spaced on Slaney's mel scale, 20 to 8000 Hz: [257, 80].

    Height rather than area 1: the wider high bands then hold more power, which evens out the tilt of speech.
    """
    edges = _hertz(np.linspace(_mel(20.0), _mel(SAMPLE_RATE / 2), N_MELS + 2))
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    bins = np.arange(_FFT // 2 + 1)[:, None] * (SAMPLE_RATE / _FFT)
    return np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))


# Slaney's scale (Auditory Toolbox, 1998): 3 mel per 200 Hz up to 1000 Hz = 15 mel, then 27 mel per factor of 6.4.
_LOG_STEP = math.log(6.4) / 27


def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) / _LOG_STEP


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * _LOG_STEP))


_ON_DB, _OFF_DB = 10.0, 6.0
"""Above the noise floor: speech starts, speech may end."""

_QUIETEST_DB = -55.0
"""Nothing below this is speech."""

_FLOOR_FRAMES = 3 * FPS
"""The floor is the quietest frame of the last 3 s: nobody speaks for longer without a pause between words."""

_FIRST_FLOOR_DB = -45.0
"""The most that a recording's first frame is believed to be noise."""

_HANGOVER_FRAMES = round(0.3 * FPS)


_FRAMES_AT_ONCE = 1_500
"""One minute: the powers of an hour in float64 would take half a gigabyte."""


def activity(samples: np.ndarray) -> np.ndarray:
    """Whether somebody speaks in each video frame: bool [T] for float32 [640 * T] at 16 kHz. Causal.

    The energy in the voice band against the quietest frame of the last 3 s, with hysteresis (10 dB on,
    6 dB off) and 0.3 s of hangover. Noise louder than any assumed at the start counts as speech for those 3 s.
    """
    return Activity().push(samples)


class Activity:
    """`activity` for a stream: the same to the bit, whatever the pieces. Keeps 3 s of energies and 4 samples."""

    def __init__(self) -> None:
        self._before = np.zeros(4, dtype=np.float32)
        self._energies = np.zeros(0)
        self._left = 0

    def cut(self) -> None:
        """What comes next does not follow on what came last: without this, the jump between them would be a click."""
        self._before = np.zeros_like(self._before)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """bool [T] of the next float32 [640 * T]."""
        assert len(samples) % SAMPLES_PER_FRAME == 0, f"{len(samples)} samples are not whole video frames"
        step = _FRAMES_AT_ONCE * SAMPLES_PER_FRAME
        pieces = [self._push(samples[start : start + step]) for start in range(0, len(samples), step)]
        return np.concatenate([np.zeros(0, dtype=bool), *pieces])

    def _push(self, samples: np.ndarray) -> np.ndarray:
        energy_T = self._energy(samples)
        if not len(self._energies):
            self._energies = np.full(_FLOOR_FRAMES - 1, min(energy_T[0], _FIRST_FLOOR_DB))
        known = np.append(self._energies, energy_T)
        self._energies = known[1 - _FLOOR_FRAMES :].copy()
        floor_T = np.lib.stride_tricks.sliding_window_view(known, _FLOOR_FRAMES).min(axis=1)
        starts = energy_T > np.maximum(floor_T + _ON_DB, _QUIETEST_DB)
        goes_on = energy_T > np.maximum(floor_T + _OFF_DB, _QUIETEST_DB)
        speaking = np.zeros(len(energy_T), dtype=bool)
        for t, (start, keep) in enumerate(zip(starts, goes_on, strict=True)):
            self._left = _HANGOVER_FRAMES + 1 if start or (keep and self._left) else max(0, self._left - 1)
            speaking[t] = self._left > 0
        return speaking

    def _energy(self, samples: np.ndarray) -> np.ndarray:
        """Of each frame in dB, float64 [T]."""
        heard = np.concatenate([self._before, samples])
        self._before = heard[-4:].copy()
        # x[n] - x[n - 4] passes about 0.7 to 3.3 kHz: neither hum nor an offset, and half of a hiss.
        voice = heard[4:] - heard[:-4]
        # Converted before it is added up: numpy would convert in blocks that do not end where frames do, and a sum
        # would depend on where its frame lies.
        power_T = np.square(voice).astype(np.float64).reshape(-1, SAMPLES_PER_FRAME).mean(axis=1)
        return 10 * np.log10(power_T + 1e-12)
