"""How the rest of the face moves while the mouth speaks or the character listens."""

from itertools import pairwise

import numpy as np

from talkingmachines.data.synthetic.pose import POSE_FIELDS
from talkingmachines.types import FPS

_BLINK_CLOSING, _BLINK_HOLD, _BLINK_OPENING = 0.06, 0.04, 0.1


def face_motion(loud: np.ndarray, speaking: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Everything but the mouth. loud: [T] loudness of the clean speech per frame, about 0..1 (1 = a strong
    syllable); speaking: bool [T], the character's turns. Returns float32 [T, len(POSE_FIELDS)], mouth columns 0."""
    count = len(loud)
    times = (np.arange(count) + 0.5) / FPS
    turn = _ease(speaking.astype(float), 0.4)
    accents = _accents(loud, speaking, rng)
    track = np.zeros((count, len(POSE_FIELDS)))
    column = {name: track[:, index] for index, name in enumerate(POSE_FIELDS)}

    _move_head(column, times, turn, rng)
    for time in accents:
        if rng.random() < 0.55:
            _nod(column, times, time, rng.uniform(0.06, 0.22))
        if rng.random() < 0.35:
            column["brow_raise"] += rng.uniform(0.25, 0.6) * _bump(times, time, 0.12, 0.3)
    for start, end in runs(~speaking):
        _attend(column, times, start / FPS, end / FPS, rng)
    shifts = _move_gaze(column, times, speaking, rng)
    _blink(column["eye_open"], times, speaking, shifts, rng)

    mood = rng.normal(0.12, 0.18)
    column["smile"] += np.clip(mood + 0.14 * _sway(times, 0.03, 0.2, rng) - 0.05 * turn, -0.5, 0.8)
    column["brow_raise"] += 0.08 * _sway(times, 0.05, 0.4, rng)
    column["brow_frown"] += np.clip(0.25 * _sway(times, 0.05, 0.25, rng) - 0.2, 0, 0.5)
    rate, phase = rng.uniform(0.2, 0.3), rng.uniform(0, 2 * np.pi)
    column["breath"] += rng.uniform(0.5, 0.9) * np.sin(2 * np.pi * rate * times + phase)
    return _limited(track).astype(np.float32)


def _limited(track: np.ndarray) -> np.ndarray:
    limits = {
        "head_x": 0.03,
        "head_y": 0.03,
        "head_roll": 0.08,
        "head_yaw": 0.6,
        "head_pitch": 0.6,
        "brow_raise": 0.9,
    }
    for name, size in limits.items():
        index = POSE_FIELDS.index(name)
        track[:, index] = size * np.tanh(track[:, index] / size)
    return track


def _move_head(column: dict[str, np.ndarray], times: np.ndarray, turn: np.ndarray, rng: np.random.Generator) -> None:
    """Slow sway in all directions, livelier while speaking, around a resting pose of the clip's own."""
    life = 0.55 + 0.45 * turn
    for name, rest, size, top in (
        ("head_x", 0.006, 0.009, 0.8),
        ("head_y", 0.004, 0.006, 0.8),
        ("head_roll", 0.018, 0.02, 0.9),
        ("head_yaw", 0.13, 0.15, 1.2),
        ("head_pitch", 0.08, 0.1, 1.2),
    ):
        column[name] += rng.normal(0, rest) + size * life * _sway(times, 0.05, top, rng)


def _nod(column: dict[str, np.ndarray], times: np.ndarray, time: float, depth: float) -> None:
    dip = _bump(times, time + 0.04, 0.14, 0.26)
    column["head_pitch"] += depth * dip
    column["head_y"] += 0.03 * depth * dip


def _attend(
    column: dict[str, np.ndarray], times: np.ndarray, start: float, end: float, rng: np.random.Generator
) -> None:
    """Listening from start to end: small nods in ones to threes, a tilt of the head, a passing smile."""
    clock = start + rng.uniform(0.3, 3.0)
    while clock < end - 0.3:
        kind = rng.random()
        if kind < 0.6:
            depth = rng.uniform(0.12, 0.3)
            for index in range(rng.integers(1, 4)):
                _nod(column, times, clock + 0.38 * index, depth * 0.75**index)
        elif kind < 0.8:
            column["head_roll"] += rng.choice([-1, 1]) * rng.uniform(0.02, 0.05) * _bump(times, clock + 0.4, 0.5, 1.0)
        else:
            column["smile"] += rng.uniform(0.15, 0.35) * _bump(times, clock + 0.4, 0.5, 1.0)
            column["brow_raise"] += 0.2 * _bump(times, clock + 0.2, 0.3, 0.6)
        clock += rng.uniform(1.8, 5.0)


def _move_gaze(
    column: dict[str, np.ndarray], times: np.ndarray, speaking: np.ndarray, rng: np.random.Generator
) -> list[float]:
    """Mostly at the viewer, in jumps; away for a moment as a turn begins and now and then within it.
    Returns the times of the large jumps."""
    end = times[-1] + 1
    jumps: list[tuple[float, float, float]] = [(-1.0, *_near_viewer(rng))]
    clock = 0.0
    while (clock := clock + rng.exponential(1.3) + 0.25) < end:
        jumps.append((clock, *_near_viewer(rng)))
    aways = [start / FPS for start, _ in runs(speaking) if start > 0 and rng.random() < 0.6]
    talking = [start / FPS + rng.exponential(5.0) + 0.5 for start, _ in runs(speaking)]
    for time in aways + [t for t, (_, stop) in zip(talking, runs(speaking), strict=True) if t < stop / FPS]:
        back = time + rng.uniform(0.4, 1.1)
        jumps = [jump for jump in jumps if not time <= jump[0] <= back]
        jumps.append((time, rng.choice([-1, 1]) * rng.uniform(0.35, 0.8), rng.uniform(-0.5, 0.35)))
        jumps.append((back, *_near_viewer(rng)))
    jumps.sort()
    starts = np.array([jump[0] for jump in jumps])
    chosen = np.array([jump[1:] for jump in jumps])[np.searchsorted(starts, times, side="right") - 1]
    eased = chosen.copy()
    eased[1:] = 0.75 * chosen[1:] + 0.25 * chosen[:-1]
    column["gaze_x"] += np.clip(eased[:, 0] - 0.3 * column["head_yaw"], -1, 1)
    column["gaze_y"] += np.clip(eased[:, 1] - 0.2 * column["head_pitch"], -1, 1)
    return [after[0] for before, after in pairwise(jumps) if abs(before[1] - after[1]) > 0.3]


def _near_viewer(rng: np.random.Generator) -> tuple[float, float]:
    return float(rng.normal(0, 0.07)), float(rng.normal(0, 0.05))


def _blink(
    eye_open: np.ndarray, times: np.ndarray, speaking: np.ndarray, shifts: list[float], rng: np.random.Generator
) -> None:
    """A blink every 3 to 5 seconds, often with a jump of the eyes or the edge of a turn; never in frame 0."""
    eye_open += 1.0
    starts = [shift for shift in shifts if rng.random() < 0.4]
    edges = np.flatnonzero(np.diff(speaking.astype(int)))
    starts += [edge / FPS + rng.uniform(-0.1, 0.3) for edge in edges if rng.random() < 0.5]
    clock = -rng.uniform(0, 4.0)
    while (clock := clock + 0.8 + rng.gamma(3.0, 1.05)) < times[-1]:
        starts.append(clock)
    spaced: list[float] = []
    for start in sorted(starts):
        if not spaced or start - spaced[-1] > 0.9:
            spaced += [start, start + 0.32] if rng.random() < 0.12 else [start]
    for start in spaced:
        slow = rng.uniform(0.9, 1.25)
        peak = (np.floor(start * FPS) + 0.5) / FPS  # on a frame's centre, so that every blink shows the eyes shut
        fall = (peak - _BLINK_HOLD / 2 - times) / (_BLINK_CLOSING * slow)
        rise = (times - peak - _BLINK_HOLD / 2) / (_BLINK_OPENING * slow)
        lid = np.clip(np.maximum(fall, rise), 0, 1)
        if lid[0] == 1:
            np.minimum(eye_open, lid, out=eye_open)


def _accents(loud: np.ndarray, speaking: np.ndarray, rng: np.random.Generator) -> list[float]:
    """Times of the strong syllables: peaks of the loudness smoothed over a syllable, at least 0.3 s apart."""
    level = _ease(loud, 0.08) * speaking
    if len(level) < 3:
        return []
    inner = level[1:-1]
    peaks = 1 + np.flatnonzero((inner > level[:-2]) & (inner >= level[2:]) & (inner > 0.35))
    chosen: list[float] = []
    for peak in sorted(peaks, key=lambda index: -level[index]):
        time = (peak + 0.5) / FPS
        if all(abs(time - other) > 0.3 for other in chosen) and rng.random() < 0.7:
            chosen.append(time)
    return sorted(chosen)


def _sway(times: np.ndarray, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth stationary noise of unit variance: sines between low and high Hz, slow ones stronger."""
    rates = np.exp(rng.uniform(np.log(low), np.log(high), 7))
    weights = rates**-0.35
    phases = rng.uniform(0, 2 * np.pi, 7)
    waves = np.sin(2 * np.pi * rates * times[:, None] + phases)
    return waves @ weights / np.sqrt(0.5 * (weights**2).sum())


def _bump(times: np.ndarray, centre: float, rise: float, fall: float) -> np.ndarray:
    """0 to 1 and back, smooth, over rise seconds before and fall seconds after the centre."""
    offset = times - centre
    phase = np.clip(np.where(offset < 0, offset / rise, offset / fall), -1, 1)
    return 0.5 + 0.5 * np.cos(np.pi * phase)


def _ease(values: np.ndarray, seconds: float) -> np.ndarray:
    """Centred Hann smoothing over about the given time."""
    reach = max(1, round(seconds * FPS))
    taps = np.hanning(2 * reach + 3)[1:-1]
    padded = np.pad(values, reach, mode="edge")
    return np.convolve(padded, taps / taps.sum(), mode="valid")


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """[start, end) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
