"""Any drawn character: the elaborate ones, and the simple ones."""

import numpy as np

from talkingmachines.data.synthetic import draw
from talkingmachines.data.synthetic.brush import Point
from talkingmachines.data.synthetic.character import Character, sample_character
from talkingmachines.data.synthetic.draw_toon import paint_toon
from talkingmachines.data.synthetic.pose import Pose
from talkingmachines.data.synthetic.toon import Toon, toon_boxes, toon_places

Look = Character | Toon

_TOONS = 0.35
"""Share of toons."""


def sample_look(seed: int) -> Look:
    """The same seed always gives the same one, and of the characters that which sample_character gives."""
    return Toon(seed) if np.random.default_rng([seed, 11]).random() < _TOONS else sample_character(seed)


def draw_clip(look: Look, track: np.ndarray, size: int = 256) -> np.ndarray:
    """As draw.draw_clip, of any look."""
    if isinstance(look, Character):
        return draw.draw_clip(look, track, size)
    frames = np.empty((len(track), size, size, 3), np.uint8)
    pixels = np.zeros((size, size, 4), np.uint8)
    for frame, row in zip(frames, track, strict=True):
        paint_toon(pixels, look, Pose.from_row(row))
        frame[:] = pixels[..., :3]
    return frames


def places_of(look: Look, pose: Pose) -> tuple[Point, Point, Point]:
    """The middles of left eye, right eye (as seen) and mouth, (x, y) in fractions of the picture."""
    return draw.eyes_and_mouth(look, pose) if isinstance(look, Character) else toon_places(look, pose)


def boxes(look: Look) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """x0, y0, x1, y1 in fractions, of a neutral pose: the face, and the mouth at its widest and most open."""
    if isinstance(look, Character):
        return draw.face_box(look, Pose()), draw.mouth_box(look, Pose())
    return toon_boxes(look)
