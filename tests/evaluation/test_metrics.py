import numpy as np
import pytest

from talkingmachines.evaluation import metrics
from talkingmachines.types import FPS, SAMPLE_RATE

RNG = np.random.default_rng(0)


def test_pearson_by_hand() -> None:
    assert metrics.pearson(np.array([1.0, 2, 3]), np.array([10.0, 20, 30])) == pytest.approx(1)
    assert metrics.pearson(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    assert metrics.pearson(np.array([0.0, 1, 0]), np.array([0.0, 1, 1])) == pytest.approx(0.5)
    assert metrics.pearson(np.full(5, 0.1), np.arange(5.0)) == 0


@pytest.mark.parametrize("late", [-4, -1, 0, 2, 5])
def test_a_late_video_has_a_positive_lag(late: int) -> None:
    true = RNG.normal(size=80)
    seen = np.roll(true, late)
    by_lag = metrics.lagged_pearson(seen, true, 5)
    assert sorted(by_lag) == list(range(-5, 6))
    assert metrics.best_lag(by_lag) == late and by_lag[late] == pytest.approx(1)


def test_best_lag_of_a_constant_is_none_at_all() -> None:
    assert metrics.best_lag(metrics.lagged_pearson(np.zeros(20), np.arange(20.0), 3)) == 0


@pytest.mark.parametrize(("rate", "kept"), [(0.25, 0.0), (4.0, 1.0), (11.0, 0.0)])
def test_band_keeps_1_to_8_hz(rate: float, kept: float) -> None:
    times = np.arange(200) / FPS
    wave = np.cos(2 * np.pi * rate * times)
    band = metrics.band_1_8_hz(wave + 3, FPS)
    assert band.std() == pytest.approx(kept * wave.std(), abs=0.1)


def test_envelope_follows_syllables() -> None:
    times = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    loud = 1 + np.cos(2 * np.pi * 3 * times)
    envelope = metrics.envelope_1_8_hz(0.1 * loud * np.sin(2 * np.pi * 220 * times), FPS)
    assert envelope.shape == (100,)
    syllables = np.cos(2 * np.pi * 3 * (np.arange(100) + 0.5) / FPS)
    assert metrics.pearson(envelope, syllables) > 0.95
    assert np.allclose(metrics.envelope_1_8_hz(np.zeros(SAMPLE_RATE), FPS), 0)


def test_psnr_by_hand() -> None:
    true = np.full((2, 4, 4, 3), 100, np.uint8)
    assert metrics.psnr(true + 1, true) == pytest.approx(48.1308, abs=1e-3)
    assert metrics.psnr(true, true + 255) == pytest.approx(48.1308, abs=1e-3), "differences do not wrap around"
    assert metrics.psnr(true, true) == float("inf")


def test_errors_at_borders_and_inside_by_hand() -> None:
    true = np.full((9, 2, 2, 3), 50, np.uint8)
    made = true.copy()
    made[1:5] += 2  # errors 0 | 2 2 2 2 | 0 0 0 0: changes of 2 at both borders
    made[8] += 1  # and one of 1 among the six inside
    border, inside = metrics.change_errors(made, true)
    assert border.mean() == pytest.approx(4) and inside.mean() == pytest.approx(1 / 6)


def test_edge_errors_by_hand() -> None:
    true = np.full((2, 12, 10, 3), 50, np.uint8)
    made = true.copy()
    made[:, 0], made[:, :, 0] = 53, 53
    made[:, 9:] = 99  # below what counts
    assert metrics.edge_errors(made, true, 8, 1) == pytest.approx((3 * (10 + 7) / (10 + 7 + 7), 0))
    made[:, 1, 1:9] = 52
    assert metrics.edge_errors(made, true, 8, 1)[1] == pytest.approx(2 * 8 / (8 + 6 + 6))


def test_nearest_is_the_one_it_was_taken_from() -> None:
    gallery = RNG.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    seen = gallery[[3, 0]] // 8 * 8
    assert metrics.nearest(metrics.identity_vectors(seen), metrics.identity_vectors(gallery)).tolist() == [3, 0]


def test_gradient_energy_counts_pairs_inside_the_mask() -> None:
    frame = np.zeros((3, 4, 3), np.uint8)
    frame[:, 2:, 0] = 10  # one vertical edge, three rows high
    everywhere = np.ones((3, 4), bool)
    assert metrics.gradient_energy(frame, everywhere) == 300
    everywhere[0, 2] = False
    assert metrics.gradient_energy(frame, everywhere) == 200


def test_blinks_are_counted_once_each() -> None:
    assert metrics.count_blinks(np.array([1, 0.9, 0.3, 0.1, 0.5, 0.4, 0.9, 1, 0.2, 1])) == 2
    assert metrics.count_blinks(np.array([0.0, 0.1, 1, 1])) == 0, "eyes shut from the start have not blinked"
    assert metrics.count_blinks(np.array([1, 0.5, 1, 0.5])) == 0


def test_motion_energy_is_a_variance_in_scales() -> None:
    track = np.repeat(np.array([0.0, 1.0]), 300)[:, None]
    assert metrics.motion_energy(track, np.array([1.0])) == pytest.approx(0.25, rel=0.01)
    assert metrics.motion_energy(track, np.array([2.0])) == pytest.approx(0.0625, rel=0.01)
    jitter = np.tile([0.0, 1.0], 300)[:, None]
    assert metrics.motion_energy(jitter, np.array([1.0])) < 0.05


def test_grow_reaches_so_many_pixels() -> None:
    mask = np.zeros((7, 9), bool)
    mask[3, 0] = mask[6, 8] = True
    grown = metrics.grow(mask, 2)
    assert grown[1:6, :3].all() and grown[4:, 6:].all() and grown.sum() == 15 + 9


def test_bilabials_by_hand() -> None:
    bilabial = np.array([1, 0, 0, 1, 1, 0, 0, 0, 1, 0], bool)
    opening = np.array([0.9, 0.9, 0.05, 0.5, 0.5, 0.9, 0.9, 0.3, 0.3, 0.3])
    assert metrics.bilabials_shut(opening, bilabial, 0.1).tolist() == [True, False]


def test_silence_keeps_its_distance_from_speech() -> None:
    closed = np.ones(20, bool)
    closed[10] = False
    assert np.flatnonzero(metrics.silent_frames(closed, np.zeros(20, bool))).tolist() == [3, 4, 5, 6, 14, 15, 16]
    lips = np.zeros(20, bool)
    lips[5] = True
    assert np.flatnonzero(metrics.silent_frames(closed, lips)).tolist() == [14, 15, 16]
    assert metrics.closures(lips) == [(5, 6)]
