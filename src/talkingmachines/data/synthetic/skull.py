"""The shape of a head, and how its points move with the pose. Origin: the middle of the head; x right, y down."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from talkingmachines.data.synthetic.brush import Point, mirrored, ramp, spline
from talkingmachines.data.synthetic.character import Character
from talkingmachines.data.synthetic.pose import Pose

CENTRE: Point = (128.0, 118.0)
"""Where the middle of a head at rest lies in a picture of 256 pixels."""
CHIN = 62.0
MOUTH_GAP = 16.0
"""Between the lips at mouth_open = 1: an eighth of the height of the head."""

_OUTLINES: dict[str, tuple[Point, ...]] = {
    "round": ((0, -64), (31, -57), (51, -30), (54, 2), (50, 30), (34, 53), (14, 61.5), (0, 62)),
    "oval": ((0, -64), (30, -57), (49, -30), (51, 2), (46, 29), (30, 52), (13, 61.5), (0, 62)),
    "square": ((0, -64), (31, -57), (50, -30), (52, 2), (50, 31), (37, 53), (16, 61.5), (0, 62)),
    "heart": ((0, -64), (32, -57), (53, -30), (54, 0), (46, 27), (26, 51), (10, 61), (0, 62)),
    "long": ((0, -66), (29, -58), (47, -30), (48, 2), (45, 32), (32, 55), (13, 63.5), (0, 64)),
}  # fmt: skip


class Skull:
    """One head in one pose: maps points of the head at rest to where the pose puts them."""

    def __init__(self, character: Character, pose: Pose) -> None:
        self.character, self.pose = character, pose
        self.width = character.face_width
        self.drop = 0.4 * MOUTH_GAP * pose.mouth_open

    def place(self, x: float, y: float, depth: float = 0.0) -> Point:
        """A point on the face. depth: how far it stands out of the face (nose tip: 0.5)."""
        pose = self.pose
        near = max(0.0, 1.0 - (x / 58) ** 2 - (y / 70) ** 2)
        side = max(0.0, 1.0 - (x / 58) ** 2)
        low = min(1.0, max(0.0, y / CHIN))
        turn = near * (1.0 + depth) + 0.35 * side * low * low
        nod = near * (1.0 + depth) + 0.25 * side * low * low
        jaw = self.drop * ramp(y, 22, 58)
        return x + 14.0 * pose.head_yaw * turn, y + 10.0 * pose.head_pitch * nod + jaw

    def points(self, points: Iterable[Point], depth: float = 0.0) -> list[Point]:
        """Each point, placed."""
        return [self.place(x, y, depth) for x, y in points]

    def spline(self, points: Sequence[Point], *, closed: bool = True, corners: frozenset[int] = frozenset()) -> Any:
        """A path through the placed points."""
        return spline(self.points(points), closed=closed, corners=corners)

    def outline(self) -> Any:
        """The path of the head: crown, cheeks and chin. A smile lifts and widens the cheeks."""
        smile = max(0.0, self.pose.smile)
        right = []
        for x, y in _OUTLINES[self.character.face]:
            cheek = ramp(y, 0, 28) * (1 - ramp(y, 34, 58))
            right.append((x * self.width * (1 + 0.025 * smile * cheek), y - 0.8 * smile * cheek))
        return self.spline(mirrored(right))

    def half_width(self, y: float) -> float:
        """Half the width of the head at rest at height y."""
        outline = _OUTLINES[self.character.face]
        for (x0, y0), (x1, y1) in itertools.pairwise(outline):
            if y0 <= y <= y1:
                return self.width * (x0 + (x1 - x0) * (y - y0) / max(1e-6, y1 - y0))
        return 0.0
