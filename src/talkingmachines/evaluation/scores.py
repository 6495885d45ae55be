"""From what was read of the clips to the figures: lips and motion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from talkingmachines.data.synthetic.clip import Clip
from talkingmachines.data.synthetic.pose import POSE_FIELDS
from talkingmachines.evaluation import metrics
from talkingmachines.evaluation.reader import READ_FIELDS, SCALES
from talkingmachines.types import FPS

CLOSED_THRESHOLD = 0.1
"""A mouth read as less open than this is shut, in pose units: 1.5 pixels between the lips of a 256 pixel picture.

Fixed by how the reader reads drawn shut mouths (its `shut_q98`), not by anything generated.
"""

LAGS, RECORDING_LAGS = 5, 2
STILL_SHARE = 0.02
"""Less motion than this share of the drawn truth's, without a blink, is a still picture."""

_MOTION = ("eye_open", "gaze_x", "head_x", "head_y", "head_roll", "head_yaw", "head_pitch", "smile")
_MOTION_SCALES = np.array([SCALES[READ_FIELDS.index(name)] for name in _MOTION])
_MOUTH, _EYES = POSE_FIELDS.index("mouth_open"), POSE_FIELDS.index("eye_open")


@dataclass(frozen=True)
class Take:
    """A clip as it was read: drawn truth and generated. drift: how far it gets from its first frame, in 0..255."""

    clip: Clip
    true: dict[str, np.ndarray]
    made: dict[str, np.ndarray]
    drift: float

    @property
    def opening(self) -> np.ndarray:
        """The drawn opening of the mouth, [T]."""
        return self.clip.track[:, _MOUTH]


def _mean_by_lag(curves: Sequence[dict[int, float]]) -> dict[int, float]:
    return {lag: float(np.mean([curve[lag] for curve in curves])) for lag in curves[0]}


def envelope_r(opening: np.ndarray, samples: np.ndarray, reach: int) -> dict[int, float]:
    """r by lag between an opening of the mouth and the envelope of the speech, both at 1-8 Hz."""
    envelope = metrics.envelope_1_8_hz(samples, FPS)
    return metrics.lagged_pearson(metrics.band_1_8_hz(opening[: len(envelope)], FPS), envelope, reach)


def lips(speaking: list[Take], listening: list[Take]) -> dict[str, Any]:
    """r: mean over clips of the r between the opening read and the drawn one, at lag 0, without the given frame 0.

    closed_by_chance: how often any moment of speech would have passed as one of these p, b and m closures; a mouth that
    never opens has 1.
    """
    curves = [metrics.lagged_pearson(t.made["mouth_open"][1:], t.opening[1:], LAGS) for t in speaking]
    by_lag = _mean_by_lag(curves)
    truth = _mean_by_lag([envelope_r(t.opening, t.clip.samples, RECORDING_LAGS) for t in speaking])
    bilabial = np.concatenate(
        [metrics.bilabials_shut(t.made["mouth_open"], t.clip.bilabial, CLOSED_THRESHOLD) for t in speaking]
    )
    silence, attending = _shut_in_silence(speaking), _shut_in_silence(listening)
    cases = {"closed_silence": silence, "closed_bilabial": bilabial}
    figures: dict[str, Any] = {name: _share(flags) for name, flags in cases.items()}
    known = [value for value in figures.values() if value is not None]
    return figures | {
        "r": by_lag[0],
        "r_by_lag": by_lag,
        "lag_frames": metrics.best_lag(by_lag),
        "clips_r": [curve[0] for curve in curves],
        "closed": min(known) if known else None,
        "closed_silence_frames": len(silence),
        "closed_bilabial_cases": len(bilabial),
        "closed_listening": _share(attending),
        "closed_by_chance": _shut_by_chance(speaking),
        "closed_threshold": CLOSED_THRESHOLD,
        "reader_r": float(np.mean([metrics.pearson(t.true["mouth_open"], t.opening) for t in speaking])),
        "envelope_truth_r": truth[metrics.best_lag(truth)],
        "clips": len(speaking),
        "frames": sum(t.clip.num_frames for t in speaking),
    }


def _shut_in_silence(takes: list[Take]) -> np.ndarray:
    frames = [t.made["mouth_open"][metrics.silent_frames(t.clip.closed, t.clip.bilabial)] for t in takes]
    return np.concatenate(frames) < CLOSED_THRESHOLD


def _shut_by_chance(takes: list[Take]) -> float | None:
    """Mean over the closures; each has so many frames, and a longer one is easier to pass."""
    frames = [end - start for take in takes for start, end in metrics.closures(take.clip.bilabial)]
    passed = {length: _share(np.concatenate([_moments_shut(take, length) for take in takes])) for length in set(frames)}
    known = [share for length in frames if (share := passed[length]) is not None]
    return float(np.mean(known)) if known else None


def _moments_shut(take: Take, frames: int) -> np.ndarray:
    """bool, for every moment of so many frames of speech: would it have passed as a closure?"""
    view = np.lib.stride_tricks.sliding_window_view
    least = view(take.made["mouth_open"], frames + 2).min(1)
    return least[view(~take.clip.closed[1:-1], frames).all(1)] < CLOSED_THRESHOLD


def _share(flags: np.ndarray) -> float | None:
    return float(flags.mean()) if len(flags) else None


def real_lips(curves: list[dict[int, float]]) -> dict[str, Any]:
    """real_r: mean over recordings, all at the one lag that suits them best together."""
    if not curves:
        return {"real_r": None, "real_lag_frames": None, "real_clips": 0}
    by_lag = _mean_by_lag(curves)
    lag = metrics.best_lag(by_lag)
    return {
        "real_r": by_lag[lag],
        "real_lag_frames": lag,
        "real_clips": len(curves),
        "real_clips_r": [curve[lag] for curve in curves],
    }


def motion(speaking: list[Take], listening: list[Take]) -> dict[str, Any]:
    """Of heads and eyes: energy while listening, and in all clips, relative to the drawn truth as the reader sees it;
    blinks in all."""
    made = [energy(take.made) for take in listening]
    true = [energy(take.true) for take in listening]
    still = [
        take.drift < 0.5
        or bool(moved < STILL_SHARE * np.mean(true) and not metrics.count_blinks(take.made["eye_open"]))
        for take, moved in zip(listening, made, strict=True)
    ]
    takes = speaking + listening
    all_true = sum(energy(take.true) for take in takes)
    minutes = sum(take.clip.num_frames for take in takes) / FPS / 60
    return {
        "listening": float(np.sum(made) / np.sum(true)) if np.sum(true) > 0 else 1.0,
        "energy": sum(energy(take.made) for take in takes) / all_true if all_true > 0 else 1.0,
        "blinks_per_minute": sum(metrics.count_blinks(t.made["eye_open"]) for t in takes) / minutes,
        "truth_blinks_per_minute": sum(metrics.count_blinks(t.clip.track[:, _EYES]) for t in takes) / minutes,
        "still_clips": sum(still),
        "clips": len(listening),
    }


def energy(reading: dict[str, np.ndarray]) -> float:
    """Motion of head and eyes in readings (or poses) [T] by name: mean variance over time in units of SCALES."""
    return metrics.motion_energy(np.stack([reading[name] for name in _MOTION], 1), _MOTION_SCALES)
