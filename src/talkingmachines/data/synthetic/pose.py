"""What moves in a character: one pose per video frame."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Pose:
    """The state of a face at one instant. The neutral value is 0 unless a default says otherwise.

    Axes are those of the picture: +x is to the viewer's right and +y (also of gaze and pitch) is down.
    """

    mouth_open: float = 0.0
    """0 shut (the lips touch, no gap) .. 1 widest; the gap in pixels is proportional to it."""
    mouth_wide: float = 0.0
    """-1 narrow .. +1 spread lips."""
    mouth_round: float = 0.0
    """0 .. 1 rounded and pushed forward (oo)."""
    teeth: float = 0.0
    """0 .. 1 upper teeth visible when open."""
    tongue: float = 0.0
    """0 .. 1 tongue visible when open."""
    smile: float = 0.0
    """-1 sad .. +1 smiling corners of the mouth."""
    eye_open: float = 1.0
    """0 shut .. 1 normal .. 1.2 surprised; both eyes."""
    gaze_x: float = 0.0
    """-1 .. 1."""
    gaze_y: float = 0.0
    """-1 up .. 1 down."""
    brow_raise: float = 0.0
    """-1 .. 1."""
    brow_frown: float = 0.0
    """0 .. 1."""
    head_x: float = 0.0
    """Shift in fractions of the picture, about +-0.03."""
    head_y: float = 0.0
    """Shift in fractions of the picture, about +-0.03; down is positive."""
    head_roll: float = 0.0
    """Radians, clockwise as seen, about +-0.08."""
    head_yaw: float = 0.0
    """-1 .. 1: the features shift within the head."""
    head_pitch: float = 0.0
    """-1 looks up .. 1 looks down: the features shift within the head."""
    breath: float = 0.0
    """-1 .. 1: the shoulders rise by a pixel or two."""

    @classmethod
    def from_row(cls, row: np.ndarray) -> Self:
        """row: [len(POSE_FIELDS)], one row of a motion track."""
        return cls(*(float(value) for value in row))

    def to_row(self) -> np.ndarray:
        """[len(POSE_FIELDS)] float32, one row of a motion track."""
        return np.array([getattr(self, name) for name in POSE_FIELDS], dtype=np.float32)


POSE_FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Pose))
"""The order of the columns of a motion track."""
