"""What happens to sound on its way: never its timing."""

from collections.abc import Callable

import numpy as np
import pytest

from talkingmachines.data.synthetic.augment import augment, line, noise, room, tone
from talkingmachines.data.synthetic.sound import SPEECH_LEVEL, convolve, limit
from talkingmachines.types import SAMPLE_RATE


@pytest.fixture(scope="module")
def speechlike() -> np.ndarray:
    """Bursts of harmonics at the level of speech, with gaps of true silence."""
    rng = np.random.default_rng(0)
    times = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    voice = sum(np.sin(2 * np.pi * 130 * k * times + rng.uniform(0, 6)) / k for k in range(1, 20))
    gate = np.repeat(rng.random(20) > 0.4, SAMPLE_RATE // 10)
    sound = voice * gate
    return (SPEECH_LEVEL * sound / sound[gate].std()).astype(np.float32)


def _lag(one: np.ndarray, two: np.ndarray) -> int:
    """The shift of two against one, in samples, where they agree most."""
    size = 2 * len(one)
    product = np.fft.irfft(np.fft.rfft(two, size) * np.fft.rfft(one, size).conj(), size)
    peak = int(np.argmax(product))
    return peak - size if peak > size // 2 else peak


@pytest.mark.parametrize("change", [tone, room, line, augment])
def test_length_and_timing_stay(change: Callable[..., np.ndarray], speechlike: np.ndarray) -> None:
    for seed in range(12):
        heard = change(speechlike, np.random.default_rng(seed))
        assert heard.shape == speechlike.shape and heard.dtype == np.float32
        assert np.isfinite(heard).all()
        assert abs(_lag(speechlike, heard)) <= 1, seed
        assert not np.array_equal(heard, speechlike)


def test_the_result_never_clips_and_is_deterministic(speechlike: np.ndarray) -> None:
    for seed in range(12):
        heard = augment(4 * speechlike, np.random.default_rng(seed))
        assert np.abs(heard).max() < 1
        np.testing.assert_array_equal(heard, augment(4 * speechlike, np.random.default_rng(seed)))


def test_noise_is_15_to_40_db_below_speech() -> None:
    levels = [np.sqrt(np.mean(noise(16000, np.random.default_rng(seed)) ** 2)) for seed in range(40)]
    below = 20 * np.log10(SPEECH_LEVEL / np.array(levels))
    assert below.min() > 14.9 and below.max() < 40.1 and below.std() > 4


def test_silence_mostly_comes_with_a_noise_floor() -> None:
    silence = np.zeros(SAMPLE_RATE, np.float32)
    loud = [augment(silence, np.random.default_rng(seed)).std() > 1e-5 for seed in range(60)]
    assert 0.7 < np.mean(loud) < 1


def test_a_line_takes_the_treble(speechlike: np.ndarray) -> None:
    hiss = np.random.default_rng(1).normal(size=SAMPLE_RATE).astype(np.float32) * 0.1
    power = np.abs(np.fft.rfft(line(hiss, np.random.default_rng(2)))) ** 2
    assert power[6800:].mean() < 1e-3 * power[1000:3000].mean()


def test_the_limiter_is_linear_below_and_bent_above() -> None:
    quiet = np.linspace(-0.7, 0.7, 101)
    np.testing.assert_allclose(limit(quiet), quiet, atol=1e-6)
    loud = limit(np.linspace(0.7, 9, 200))
    assert (np.diff(loud) >= 0).all() and loud.max() <= 0.981


@pytest.mark.parametrize("taps", [1, 7, 5001])
def test_convolution_is_what_it_is_by_definition(taps: int) -> None:
    rng = np.random.default_rng(taps)
    samples, response = rng.normal(size=6007).astype(np.float32), rng.normal(size=taps)
    assert np.allclose(convolve(samples, response), np.convolve(samples, response)[: len(samples)], atol=1e-4)
