"""Simple characters of any proportion: emoji, line drawings, animals, big-eyed heads.

They are what `character` has not: mouths of a single line, eyes of a single dot, heads of any shape and colour. One
seed is one of them, and what it is made of is drawn from it anew for each frame, in the same order.
"""

import colorsys
import math
from dataclasses import dataclass

import numpy as np

from talkingmachines.data.synthetic.brush import Point
from talkingmachines.data.synthetic.palettes import SKINS, Color
from talkingmachines.data.synthetic.pose import Pose
from talkingmachines.framing.cut import similarity

_PLACED = np.array([(103.4, 122.3), (152.6, 122.3), (128.0, 156.4)])
"""Where the other characters have their eyes and their mouth, in a picture of 256 pixels."""


@dataclass(frozen=True)
class Toon:
    """One of them."""

    seed: int


class Figure:
    """A toon in a pose, measured in units of its own, to be drawn scaled by `scale` and moved by `shift`."""

    def __init__(self, toon: Toon, pose: Pose) -> None:
        self.pose = pose
        self.rng = rng = np.random.default_rng([toon.seed, 13])
        self.lined = rng.random() < 0.2
        """A drawing of lines on white."""
        self.width = 0.0 if rng.random() < 0.4 and not self.lined else float(rng.uniform(1.2, 6))
        self.ink: Color = (20, 18, 22) if rng.random() < 0.7 else any_color(rng, 0.4)
        self.skin = self.color(SKINS[rng.integers(len(SKINS))] if rng.random() < 0.4 else any_color(rng))
        self.half = rng.uniform((38, 42), (72, 76))
        self.middle = (float(rng.normal(128, 6)), float(rng.normal(122, 8)))
        tall = self.half[1]
        self.eye_y = self.middle[1] + tall * rng.uniform(-0.35, 0.2)
        self.gap = self.half[0] * rng.uniform(0.26, 0.55)
        self.mouth_drop = tall * rng.uniform(0.28, min(0.75, (self.middle[1] + 0.85 * tall - self.eye_y) / tall))
        self.side = float(rng.normal(0, 0.06) * self.half[0])
        """Where the features lie in a head that is turned."""
        self.eye_size = min(self.gap * 0.85, self.mouth_drop * rng.uniform(0.12, 0.62))
        self.mouth_half = self.half[0] * rng.uniform(0.1, 0.5)
        self._place(rng)
        self.turn = (14 * pose.head_yaw / self.scale, 10 * pose.head_pitch / self.scale)
        self.gap_open = min(16 / self.scale, 1.5 * self.mouth_half) * max(0.0, pose.mouth_open)
        self.jaw = 0.4 * self.gap_open

    def _place(self, rng: np.random.Generator) -> None:
        """Its face as large as those of others, and its mouth where theirs are, give or take a little."""
        own = np.array([self._eye(-1), self._eye(1), self._mouth()])
        self.scale, (x, y) = similarity(own, _PLACED, float(rng.uniform(0.94, 1.06)))
        self.shift = (float(x + rng.uniform(-3, 3)), float(y + rng.uniform(-2, 2)))

    def _eye(self, side: int) -> Point:
        return self.middle[0] + self.side + side * self.gap, self.eye_y

    def _mouth(self) -> Point:
        return self.middle[0] + self.side, self.eye_y + self.mouth_drop

    @property
    def mouth(self) -> Point:
        """The middle of the shut mouth, in this pose, within the head."""
        return self._mouth()[0] + self.turn[0], self._mouth()[1] + self.turn[1]

    def eye(self, side: int) -> Point:
        return self._eye(side)[0] + self.turn[0], self._eye(side)[1] + self.turn[1]

    def color(self, color: Color) -> Color:
        """Lined ones are white."""
        return (255, 255, 255) if self.lined else color

    @property
    def pivot(self) -> Point:
        """About which the head rolls."""
        return self.middle[0], self.middle[1] + 1.1 * self.half[1]

    def to_picture(self, point: Point) -> Point:
        """From within the head to a picture of 256 pixels."""
        sine, cosine = math.sin(self.pose.head_roll), math.cos(self.pose.head_roll)
        x, y = point[0] - self.pivot[0], point[1] - self.pivot[1]
        x, y = self.pivot[0] + cosine * x - sine * y, self.pivot[1] + sine * x + cosine * y
        return (
            self.scale * x + self.shift[0] + 256 * self.pose.head_x,
            self.scale * y + self.shift[1] + 256 * self.pose.head_y,
        )


def toon_places(toon: Toon, pose: Pose) -> tuple[Point, Point, Point]:
    """The middles of left eye, right eye (as seen) and mouth, (x, y) in fractions of the picture."""
    figure = Figure(toon, pose)
    left, right, mouth = (figure.to_picture(point) for point in (figure.eye(-1), figure.eye(1), figure.mouth))
    return (left[0] / 256, left[1] / 256), (right[0] / 256, right[1] / 256), (mouth[0] / 256, mouth[1] / 256)


def toon_boxes(toon: Toon) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """x0, y0, x1, y1 in fractions of the picture, of a neutral pose: its face, and its mouth at its widest."""
    figure = Figure(toon, Pose())
    (x, y), wide, high = figure.mouth, 1.36 * figure.mouth_half + 3, min(16 / figure.scale, 1.5 * figure.mouth_half)
    mouth = (x - wide, y - 5 - 0.3 * high, x + wide, y + 5 + high)
    bottom = max(figure.middle[1] + figure.half[1], mouth[3])
    face = (
        figure.middle[0] - figure.half[0],
        min(figure.middle[1] - 0.72 * figure.half[1], figure.eye_y - 1.2 * figure.eye_size),
        figure.middle[0] + figure.half[0],
        bottom,
    )
    return _fractions(figure, face), _fractions(figure, mouth)


def _fractions(figure: Figure, box: tuple[float, float, float, float]) -> tuple[float, ...]:
    corners = figure.to_picture((box[0], box[1])), figure.to_picture((box[2], box[3]))
    return tuple(min(1.0, max(0.0, value / 256)) for corner in corners for value in corner)


def any_color(rng: np.random.Generator, value: float = 1.0) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.9), value * rng.uniform(0.25, 1.0))
    return int(255 * red), int(255 * green), int(255 * blue)
