"""What a microphone, a room and a line do to speech. Nothing here moves sound in time."""

import numpy as np
import torch
from torch import Tensor

from talkingmachines.audio.features import COLUMNS_PER_FRAME, N_MELS
from talkingmachines.data.synthetic.sound import SPEECH_LEVEL, convolve, filter_spectrum, limit, smooth
from talkingmachines.types import SAMPLE_RATE

_OCTAVES = np.array([60.0, 150, 400, 1000, 2500, 6000, 8000])


def augment(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """samples: clean speech at SPEECH_LEVEL, float32 [n]. Returns float32 [n] in [-1, 1] as a listener might get
    it: tone, room, noise, line and gain, each of them only in a share of the calls."""
    heard = samples
    if rng.random() < 0.5:
        heard = tone(heard, rng)
    if rng.random() < 0.4:
        heard = room(heard, rng)
    if rng.random() < 0.85:
        heard = heard + noise(len(heard), rng)
    if rng.random() < 0.2:
        heard = line(heard, rng)
    gain = 10 ** (rng.uniform(-12, 6) / 20)
    return limit(heard * gain)


def other_throat(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """log-mel [T, 320] as a longer or shorter throat would give it (vocal tract length perturbation, Jaitly and Hinton
    2013): its bands moved up or down by at most an eighth, and each a little louder or softer."""
    places = torch.arange(N_MELS) * 2 ** rng.uniform(-0.17, 0.17)
    low = places.long().clamp(max=N_MELS - 2)
    share = (places - low).clamp(0, 1)
    columns = mel.unflatten(1, (COLUMNS_PER_FRAME, N_MELS))
    bend = np.interp(np.arange(N_MELS), np.linspace(0, N_MELS - 1, 6), rng.normal(0, 0.12, 6)).astype(np.float32)
    moved = (1 - share) * columns[..., low] + share * columns[..., low + 1]
    return (moved + torch.from_numpy(bend)).flatten(1)


def tone(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tilt of up to 4 dB an octave step, and a random bend of each band."""
    tilt = rng.uniform(-2, 2) * np.linspace(-2, 2, len(_OCTAVES))
    return filter_spectrum(samples, _OCTAVES, tilt + rng.normal(0, 2, len(_OCTAVES)))


def room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Decaying noise after the direct sound, which stays at delay 0 and strongest."""
    decay = rng.uniform(0.1, 0.45)
    count = int(decay * SAMPLE_RATE)
    response = rng.normal(size=count) * 10 ** (-3 * np.arange(count) / count)
    response[: int(rng.uniform(0.002, 0.012) * SAMPLE_RATE)] = 0
    response *= 10 ** (rng.uniform(-22, -5) / 20) / np.sqrt((response**2).sum())
    response[0] = 1.0
    return convolve(samples, response)


def noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Background 15 to 40 dB below speech: hiss, pink, babble-like or hum, sometimes with a few knocks. [count]."""
    kind = rng.choice(["white", "pink", "babble", "hum"], p=[0.25, 0.4, 0.2, 0.15])
    if kind == "hum":
        times = np.arange(count) / SAMPLE_RATE
        base = rng.choice([50.0, 60.0])
        wave = sum(np.sin(2 * np.pi * base * k * times + rng.uniform(0, 6.28)) / k for k in range(1, 7))
        sound = wave + 0.3 * _coloured(count, 1.0, rng)
    elif kind == "babble":
        sound = _babble(count, rng)
    else:
        sound = _coloured(count, 0.0 if kind == "white" else 1.0, rng)
    if rng.random() < 0.15:
        sound = sound + _knocks(count, rng)
    level = SPEECH_LEVEL * 10 ** (-rng.uniform(15, 40) / 20)
    return (sound * level / max(np.sqrt(np.mean(sound**2)), 1e-9)).astype(np.float32)


def line(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The band of a telephone (300 to 3400 Hz), of an 8 kHz codec, or of a cheap microphone."""
    low, high = ((300.0, 3400.0), (60.0, 3800.0), (180.0, 5500.0))[rng.integers(3)]
    edges = np.array([low * 0.5, low, high, high * 1.15])
    return filter_spectrum(samples, edges, np.array([-40.0, 0.0, 0.0, -50.0]))


def _coloured(count: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit RMS whose power falls as 1 / f**exponent above 40 Hz."""
    hertz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    spectrum = rng.normal(size=len(hertz)) + 1j * rng.normal(size=len(hertz))
    spectrum *= np.maximum(hertz, 40.0) ** (-exponent / 2) * (hertz > 20)
    sound = np.fft.irfft(spectrum, count)
    return sound / np.sqrt(np.mean(sound**2))


def _babble(count: int, rng: np.random.Generator) -> np.ndarray:
    """Many far voices: bands of noise, each swelling at the pace of syllables."""
    hertz = np.array([60.0, 200, 600, 1500, 3500, 8000])
    total = np.zeros(count)
    for centre in (1, 2, 3, 4):
        gains = np.full(len(hertz), -40.0)
        gains[centre] = -6.0 * (centre - 1)
        band = filter_spectrum(_coloured(count, 0.5, rng), hertz, gains)
        swell = smooth(rng.normal(size=count // 800 + 2), 1.2)
        total += band * np.maximum(1 + np.interp(np.arange(count) / 800, np.arange(len(swell)), swell), 0.1)
    return total


def _knocks(count: int, rng: np.random.Generator) -> np.ndarray:
    """Short decaying bursts, as of keys and cups."""
    sound = np.zeros(count)
    decay = np.exp(-np.arange(1600) / rng.uniform(60, 300))
    for start in rng.integers(0, max(1, count - 1600), rng.integers(1, 6)):
        burst = rng.normal(size=1600) * decay * rng.uniform(2, 8)
        room_left = min(1600, count - start)
        sound[start : start + room_left] += burst[:room_left]
    return sound
