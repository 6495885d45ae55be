"""The part of a motion track that is not the mouth, in units that a model learns well."""

import numpy as np

from talkingmachines.data.synthetic.pose import POSE_FIELDS, Pose

_USUAL_CHANGE = {
    "smile": 0.2,
    "eye_open": 0.25,
    "gaze_x": 0.2,
    "gaze_y": 0.15,
    "brow_raise": 0.2,
    "brow_frown": 0.15,
    "head_x": 0.012,
    "head_y": 0.008,
    "head_roll": 0.025,
    "head_yaw": 0.2,
    "head_pitch": 0.15,
    "breath": 0.6,
}

GESTURE_FIELDS = tuple(_USUAL_CHANGE)

_COLUMNS = [POSE_FIELDS.index(name) for name in GESTURE_FIELDS]
_NEUTRAL = Pose().to_row()[_COLUMNS]
_SCALE = np.array(list(_USUAL_CHANGE.values()), np.float32)


def gestures_of(track: np.ndarray) -> np.ndarray:
    """[T, len(POSE_FIELDS)] -> [T, len(GESTURE_FIELDS)] float32: 0 is a neutral face, 1 a usual change."""
    return (track[:, _COLUMNS] - _NEUTRAL) / _SCALE
