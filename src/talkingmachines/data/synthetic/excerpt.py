"""A clip that is short to draw and yet late in a call: its beginning, and a stretch from up to 10 s further on."""

from dataclasses import dataclass

import numpy as np

from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.clip import Clip, make_clip
from talkingmachines.data.synthetic.gestures import GESTURE_FIELDS
from talkingmachines.data.synthetic.pose import POSE_FIELDS
from talkingmachines.types import FPS

OPENING = 9
"""Frames before the jump: the first chunk of a call, which all later ones see."""

_LATEST = 10 * FPS
_GLIDE = 12
"""Frames in which the head gets from where it was before the jump to where it is after: the second chunk."""

_NO_JUMP = 0.25
"""Share of the clips without a jump."""

_FAST = ("eye_open", "gaze_x", "gaze_y")
_HEAD = [POSE_FIELDS.index(name) for name in GESTURE_FIELDS if name not in _FAST]


@dataclass(frozen=True)
class Excerpt:
    """clip: all of it, the time between as well. shown: int [T], which of its frames are seen. track: float32
    [T, len(POSE_FIELDS)], of those, without a jump of the head."""

    clip: Clip
    shown: np.ndarray
    track: np.ndarray


def make_excerpt(seed: int, split: str, num_frames: int, bank: SpeechBank) -> Excerpt:
    """num_frames frames of a call, the same for the same arguments. Errors as of make_clip.

    A student sees the first chunk of a call and the latest ones. In clips of 2.4 s a head is seldom far from where it
    was in the picture; in a call it is, most of the time.
    """
    rng = np.random.default_rng([seed, 5])
    gap = 0 if rng.random() < _NO_JUMP or num_frames <= OPENING else int(rng.integers(_LATEST))
    clip = make_clip(seed, split, num_frames + gap, bank)
    shown = np.concatenate([np.arange(OPENING), np.arange(OPENING + gap, num_frames + gap)])[:num_frames]
    track = clip.track[shown]
    if gap:
        glide = slice(OPENING, OPENING + _GLIDE)
        there = np.arange(1, len(track[glide]) + 1)[:, None] / (_GLIDE + 1)
        there = there * there * (3 - 2 * there)
        track[glide, _HEAD] = there * track[glide, _HEAD] + (1 - there) * track[OPENING - 1, _HEAD]
    return Excerpt(clip, shown, track)
