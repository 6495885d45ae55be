"""Characters as users bring them: in pictures of any shape, with the face anywhere in it and of any size."""

import numpy as np

from talkingmachines.data.synthetic.character import Character
from talkingmachines.data.synthetic.draw import draw, face_box
from talkingmachines.data.synthetic.pose import Pose

SHAPES = ((360, 480), (480, 360), (400, 400))
"""Heights and widths of the pictures, in pixels."""

SCALES = (0.5, 1.7)
"""Of a character, over its size in a picture of 256 x 256."""


def elsewhere(character: Character, pose: Pose, rng: np.random.Generator) -> np.ndarray:
    """A picture [H, W, 3] uint8 with the character somewhere; all of its face is inside. Where the drawing ends, its
    edge goes on."""
    height, width = SHAPES[rng.integers(len(SHAPES))]
    side = round(256 * rng.uniform(*SCALES))
    x0, y0, x1, y1 = (side * value for value in face_box(character, pose))
    left = round(rng.uniform(-x0, width - x1))
    # Shoulders end where a picture does, or are cut by it.
    top = round(rng.uniform(max(-y0, height - side), height - y1))
    pad = 2 * max(height, width)
    drawn = np.pad(draw(character, pose, side), ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    return drawn[pad - top :, pad - left :][:height, :width].copy()
