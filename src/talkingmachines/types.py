"""What crosses the border of the package: numpy only."""

from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 16_000
"""Samples per second of all speech inside the package, mono float32 in [-1, 1]."""

View = tuple[int, int, int, int]
"""Part of a picture: left, top, right, bottom in pixels."""

FPS = 25
"""Video frames per second."""

SAMPLES_PER_FRAME = SAMPLE_RATE // FPS


@dataclass(frozen=True)
class VideoFrame:
    """One picture of the stream. pixels: [H, W, 3] uint8 RGB; pts: seconds since the start of the session."""

    pixels: np.ndarray
    pts: float
