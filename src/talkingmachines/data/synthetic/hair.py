"""The shapes of hair and headwear: what lies behind the head, what lies on it, and the lines of its strands."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from talkingmachines.data.synthetic.brush import Point, load_skia, mirrored, mix, shade, spline
from talkingmachines.data.synthetic.palettes import Color
from talkingmachines.data.synthetic.skull import Skull


@dataclass(frozen=True)
class Lock:
    """One solid shape of a colour."""

    path: Any
    color: Color
    depth: float = 1.0


@dataclass
class Hair:
    """back is drawn behind the neck, front over the face; strands are open lines on the front."""

    back: list[Lock] = field(default_factory=list)
    front: list[Lock] = field(default_factory=list)
    strands: list[Any] = field(default_factory=list)


def build_hair(skull: Skull) -> Hair:
    """The hair of a character in one pose of its head."""
    hair = Hair()
    _STYLES[skull.character.hair](skull, hair)
    return hair


def _cap(skull: Skull, hairline: Sequence[Point], *, lift: float = 6.0, puff: float = 4.0, side_y: float = 2.0) -> Any:
    """Hair around the crown. hairline: the edge on the forehead, from the right to the left of the picture.

    lift: height above the crown; puff: thickness at the temples; side_y: how far down it comes at the sides.
    """
    w = skull.half_width(-10) + 1.0
    flip = -1 if skull.character.hair_flip else 1
    outer = [(w + puff - 1.5, side_y), (w + puff - 0.5, -26), (30 + 0.6 * puff, -59 - 0.7 * lift), (0, -65 - lift)]
    outer = [(-x, y) for x, y in outer[:3]] + [outer[3]] + list(reversed(outer[:3]))
    line = list(hairline) if flip > 0 else [(-x, y) for x, y in reversed(hairline)]
    points = [*outer, (w - 5, side_y), *line, (-w + 5, side_y)]
    return skull.spline(points, corners=frozenset({0, 6, 7, len(points) - 1}))


def _strands(skull: Skull, *lines: Sequence[Point]) -> list[Any]:
    flip = -1 if skull.character.hair_flip else 1
    return [skull.spline([(flip * x, y) for x, y in line], closed=False) for line in lines]


def _behind(skull: Skull, points: Sequence[Point], corners: frozenset[int] = frozenset()) -> Any:
    """A shape behind the head: it shifts against the features."""
    dx, dy = -4.0 * skull.pose.head_yaw, -3.0 * skull.pose.head_pitch
    return spline([(x + dx, y + dy) for x, y in points], corners=corners)


def _bumps(centre: Point, rx: float, ry: float, count: int, size: float, start: float, end: float) -> Any:
    """A cloud: discs along an arc of an ellipse (angles in turns, clockwise from the right), and its inside."""
    path = load_skia().Path()
    for i in range(count):
        angle = 2 * math.pi * (start + (end - start) * i / max(1, count - 1))
        grow = size * (1.0 + 0.14 * math.sin(2.4 * i + 0.6))
        path.addCircle(centre[0] + rx * math.cos(angle), centre[1] + ry * math.sin(angle), grow)
    return path


_SOFT_LINE = ((44, -14), (38, -30), (20, -39), (0, -41), (-20, -39), (-38, -30), (-44, -14))
_SIDE_LINE = ((45, -10), (41, -24), (22, -36), (-8, -46), (-22, -50), (-34, -40), (-44, -16))
_CENTRE_LINE = ((46, -2), (40, -24), (18, -42), (0, -54), (-18, -42), (-40, -24), (-46, -2))


def _short(skull: Skull, hair: Hair) -> None:
    look = skull.character
    line = ((45, -12), (40, -26), (26, -30), (12, -37), (-6, -31), (-22, -37), (-38, -26), (-45, -12))
    hair.front.append(Lock(_cap(skull, line, lift=8 + 4 * look.hair_volume, puff=4), look.hair_color))
    hair.strands = _strands(skull, [(10, -70), (20, -58), (22, -42)], [(-12, -68), (-10, -54), (-14, -42)])


def _crop(skull: Skull, hair: Hair) -> None:
    look = skull.character
    hair.front.append(Lock(_cap(skull, _SOFT_LINE, lift=3, puff=1.5, side_y=-2), look.hair_color))


def _side(skull: Skull, hair: Hair) -> None:
    look = skull.character
    path = _cap(skull, _SIDE_LINE, lift=9 + 4 * look.hair_volume, puff=4)
    hair.front.append(Lock(path, look.hair_color))
    hair.strands = _strands(
        skull,
        [(-24, -52), (0, -60), (30, -52), (45, -28)],
        [(-20, -56), (4, -68), (32, -60)],
        [(-30, -48), (-46, -34)],
    )


def _quiff(skull: Skull, hair: Hair) -> None:
    look = skull.character
    hair.front.append(Lock(_cap(skull, _SOFT_LINE, lift=3, puff=1.5), shade(look.hair_color, 0.2)))
    flip = -1 if look.hair_flip else 1
    top = [(-40, -34), (-46, -58), (-30, -80), (4, -90 - 5 * look.hair_volume), (38, -82), (46, -60),
        (42, -36), (24, -44),
           (0, -40), (-22, -45)]  # fmt: skip
    hair.front.append(Lock(skull.spline([(flip * x, y) for x, y in top]), look.hair_color))
    hair.strands = _strands(
        skull, [(-24, -48), (-20, -66), (2, -80)], [(0, -44), (4, -62), (24, -76)], [(22, -46), (32, -66)]
    )


def _spiky(skull: Skull, hair: Hair) -> None:
    look = skull.character
    w, high = skull.half_width(-10) + 3, 6 * look.hair_volume
    tips = [(-w - 8, -34), (-w - 2, -64 - high), (-28, -84 - high), (2, -94 - high), (32, -86 - high),
        (w + 4, -66 - high),
            (w + 9, -34)]  # fmt: skip
    valleys = [(-w + 1, -46), (-38, -64), (-13, -74), (17, -75), (42, -62), (w, -44)]
    points: list[Point] = [(-w, 0)]
    for tip, valley in zip(tips, [*valleys, (w, 0)], strict=True):
        points += [tip, valley]
    points += [
        (w - 6, 0),
        (44, -18),
        (34, -38),
        (24, -27),
        (10, -40),
        (-4, -25),
        (-18, -39),
        (-32, -28),
        (-44, -18),
        (-w + 6, 0),
    ]
    sharp = frozenset({0, 1, 3, 5, 7, 9, 11, 13, 14, 15, 18, 20, 22, len(points) - 1})
    hair.front.append(Lock(skull.spline(points, corners=sharp), look.hair_color))
    hair.strands = _strands(skull, [(-14, -58), (-18, -74)], [(14, -58), (20, -76)], [(34, -50), (42, -64)])


def _mass(skull: Skull, width: float, bottom: float, tip: float, *, top: float = -76.0) -> Any:
    right = [
        (0, top),
        (33, top + 9),
        (width - 6, -32),
        (width - 1, 4),
        (width, bottom - 26),
        (width - tip, bottom),
        (0, bottom - 2),
    ]
    return _behind(skull, mirrored(right))


def _bob(skull: Skull, hair: Hair) -> None:
    look = skull.character
    width = 63 + 5 * look.hair_volume
    hair.back.append(Lock(_mass(skull, width, 66, 10), shade(look.hair_color, 0.3)))
    path = _cap(skull, _SIDE_LINE, lift=9, puff=8, side_y=34)
    hair.front.append(Lock(path, look.hair_color))
    _curtains(skull, hair, width - 3, 58)
    hair.strands = _strands(skull, [(-22, -54), (6, -60), (34, -48), (48, -20)], [(-18, -60), (10, -70), (40, -56)])


def _fringe(skull: Skull, hair: Hair) -> None:
    look = skull.character
    width = 62 + 6 * look.hair_volume
    hair.back.append(Lock(_mass(skull, width, 72, 14), shade(look.hair_color, 0.3)))
    line = ((45, -8), (42, -20), (30, -23), (16, -21), (0, -23), (-16, -21), (-30, -23), (-42, -20), (-45, -8))
    hair.front.append(Lock(_cap(skull, line, lift=10, puff=7, side_y=20), look.hair_color))
    _curtains(skull, hair, width - 3, 60)
    hair.strands = _strands(
        skull,
        [(0, -68), (2, -50), (0, -30)],
        [(20, -62), (25, -46), (26, -30)],
        [(-20, -62), (-25, -46), (-26, -30)],
    )


def _curtains(skull: Skull, hair: Hair, width: float, bottom: float, curl: float = 0.0) -> None:
    """Hair that falls in front of the ears on both sides."""
    dx = -2.5 * skull.pose.head_yaw
    w = skull.half_width(4)
    for side in (-1, 1):
        points = [(w - 4, -34), (w + 5, -36), (width, -4), (width + curl, bottom * 0.5),
            (width - 3, bottom - 8), (width - 12, bottom),
                  (w - 6, bottom - 8), (w - 1 - 0.6 * curl, bottom * 0.55), (w - 2, 14),
                      (w - 5, -8)]  # fmt: skip
        path = spline([(side * x + dx, y) for x, y in points])
        hair.front.append(Lock(path, skull.character.hair_color))


def _long(skull: Skull, hair: Hair) -> None:
    look = skull.character
    width = 64 + 6 * look.hair_volume
    hair.back.append(Lock(_mass(skull, width + 4, 128, 4), shade(look.hair_color, 0.32)))
    line = _CENTRE_LINE if look.hair_volume < 0.5 else _SIDE_LINE
    hair.front.append(Lock(_cap(skull, line, lift=8, puff=8, side_y=20), look.hair_color))
    _curtains(skull, hair, width, 98)
    hair.strands = _strands(skull, [(4, -60), (28, -54), (46, -28)], [(-6, -62), (-30, -54), (-47, -28)])


def _wavy(skull: Skull, hair: Hair) -> None:
    look = skull.character
    big = 4 * look.hair_volume
    right = [(0, -78), (38, -71), (60 + big, -42), (62 + big, -14), (70 + big, 12), (66 + big, 38),
        (76 + big, 64), (70 + big, 88),
             (74 + big, 118), (40, 128), (0, 126)]  # fmt: skip
    hair.back.append(Lock(_behind(skull, mirrored(right)), shade(look.hair_color, 0.3)))
    hair.front.append(Lock(_cap(skull, _SIDE_LINE, lift=11, puff=8, side_y=16), look.hair_color))
    _curtains(skull, hair, 64 + big, 86, curl=5.0)
    hair.strands = _strands(skull, [(-22, -54), (4, -62), (34, -52), (48, -24)], [(-26, -52), (-44, -38), (-51, -16)])


def _curly(skull: Skull, hair: Hair) -> None:
    look = skull.character
    size = 15 + 2 * look.hair_volume
    dark = shade(look.hair_color, 0.3)
    dx, dy = -4.0 * skull.pose.head_yaw, -3.0 * skull.pose.head_pitch
    low = 0.62 if look.lashes > 0.3 else 0.5
    hair.back.append(Lock(_mass(skull, 56, 40 if low > 0.5 else 0, 10), dark))
    hair.back.append(Lock(_bumps((dx, -10 + dy), 55, 57, 15, size, low - 0.04, 1.5 - low + 0.04), dark))
    front = load_skia().Path()
    for x, y, r in ((-46, -24, 13), (-38, -43, 15), (-20, -54, 16), (1, -58, 16), (22, -54, 16),
        (39, -43, 15), (46, -24, 13),
                    (-28, -66, 15), (-8, -74, 15), (14, -73, 15), (33, -63, 14)):  # fmt: skip
        front.addCircle(*skull.place(x, y), r)
    hair.front.append(Lock(front, look.hair_color))


def _afro(skull: Skull, hair: Hair) -> None:
    look = skull.character
    size, dx, dy = 4 * look.hair_volume, -4.0 * skull.pose.head_yaw, -3.0 * skull.pose.head_pitch
    hair.back.append(
        Lock(_bumps((dx, -24 + dy), 55 + size, 52 + size, 22, 17, 0.39, 1.11), shade(look.hair_color, 0.25))
    )
    hair.back.append(Lock(_mass(skull, 62, 24, 12), shade(look.hair_color, 0.25)))
    hair.front.append(Lock(_cap(skull, _SOFT_LINE, lift=14, puff=9, side_y=-2), look.hair_color))


def _bun(skull: Skull, hair: Hair) -> None:
    look = skull.character
    dx, dy = -3.0 * skull.pose.head_yaw, -3.0 * skull.pose.head_pitch
    size = 20 + 4 * look.hair_volume
    ball = load_skia().Path()
    ball.addOval(load_skia().Rect.MakeLTRB(dx - size - 2, dy - 76 - 2 * size + 8, dx + size + 2, dy - 68))
    hair.back.append(Lock(ball, look.hair_color))
    line = _CENTRE_LINE if look.hair_volume < 0.4 else _SOFT_LINE
    hair.front.append(Lock(_cap(skull, line, lift=5, puff=3, side_y=-4), look.hair_color))
    hair.strands = _strands(skull, [(4, -66), (28, -52), (42, -28)], [(-4, -66), (-28, -52), (-42, -28)])


def _ponytail(skull: Skull, hair: Hair) -> None:
    look = skull.character
    flip = -1 if look.hair_flip else 1
    tail = [(10, -62), (34, -80), (62, -76), (80, -48), (84, -8), (76, 40), (66, 62), (62, 30), (58, 0), (44, -30)]
    hair.back.append(
        Lock(_behind(skull, [(flip * x, y) for x, y in tail], frozenset({6})), shade(look.hair_color, 0.14))
    )
    hair.front.append(Lock(_cap(skull, _SIDE_LINE, lift=7, puff=3, side_y=-2), look.hair_color))
    hair.strands = _strands(skull, [(-22, -52), (4, -58), (32, -48), (46, -24)], [(-18, -56), (8, -66), (36, -58)])


def _pigtails(skull: Skull, hair: Hair) -> None:
    look = skull.character
    for side in (-1, 1):
        tail = [(46, -28), (62, -38), (80, -22), (84, 8), (78, 36), (70, 50), (62, 32), (60, 6), (50, -10)]
        path = _behind(skull, [(side * x, y) for x, y in tail], frozenset({5}))
        hair.back.append(Lock(path, shade(look.hair_color, 0.1)))
        band = load_skia().Path()
        band.addCircle(side * 55 - 4 * skull.pose.head_yaw, -22 - 3 * skull.pose.head_pitch, 7)
        hair.back.append(Lock(band, look.accent))
    line = ((45, -10), (42, -24), (28, -28), (12, -30), (0, -42), (-12, -30), (-28, -28), (-42, -24), (-45, -10))
    hair.front.append(Lock(_cap(skull, line, lift=7, puff=4, side_y=-4), look.hair_color))
    hair.strands = _strands(
        skull,
        [(0, -71), (0, -56), (0, -44)],
        [(18, -64), (32, -48), (36, -32)],
        [(-18, -64), (-32, -48), (-36, -32)],
    )


def _bald(skull: Skull, hair: Hair) -> None:
    look = skull.character
    if look.age != "elder":
        return
    w = skull.half_width(0)
    for side in (-1, 1):
        points = [(w - 5, 4), (w + 4, 6), (w + 7, -10), (w + 4, -28), (w - 4, -30), (w - 6, -12)]
        hair.front.append(Lock(skull.spline([(side * x, y) for x, y in points]), look.hair_color))


def _hijab(skull: Skull, hair: Hair) -> None:
    color = skull.character.accent
    w = skull.half_width(0)
    right = [(0, -78), (38, -70), (62, -36), (66, 10), (64, 50), (74, 92), (70, 128), (0, 130)]
    hair.back.append(Lock(_behind(skull, mirrored(right)), shade(color, 0.34)))
    dx, dy = skull.place(0, 40)[0] * 0.4, skull.drop
    outer = [(0, -74), (36, -67), (w + 9, -34), (w + 10, 8), (w + 4, 44), (44, 74 + dy), (50, 104), (0, 112)]
    inner = [(0, -44), (26, -38), (w - 8, -16), (w - 3, 10), (w - 8, 34), (26, 52), (0, 60.5)]
    path = spline(skull.points(mirrored(outer)))
    path.addPath(spline([(x + dx * 0.5, y) for x, y in skull.points(mirrored(inner))]))
    path.setFillType(load_skia().PathFillType.kEvenOdd)
    hair.front.append(Lock(path, color))
    hair.strands = _strands(
        skull, [(-40, 70), (-10, 84), (34, 80)], [(-34, 84), (0, 98), (40, 94)], [(20, -64), (46, -36), (54, 0)]
    )


def _beanie(skull: Skull, hair: Hair) -> None:
    look = skull.character
    if look.lashes > 0.3:
        hair.back.append(Lock(_mass(skull, 62, 84, 8), shade(look.hair_color, 0.25)))
        _curtains(skull, hair, 60, 72)
    else:
        hair.front.append(Lock(_cap(skull, _SOFT_LINE, lift=2, puff=3), look.hair_color))
    dome = [(-56, -34), (-54, -62), (-34, -88), (0, -96), (34, -88), (54, -62), (56, -34), (0, -42)]
    hair.front.append(Lock(skull.spline(dome, corners=frozenset({0, 6})), look.accent))
    band = [(-58, -30), (-57, -52), (0, -62), (57, -52), (58, -30), (0, -38)]
    hair.front.append(Lock(skull.spline(band, corners=frozenset({0, 1, 3, 4})), shade(look.accent, 0.22), 0.6))


def _hat(skull: Skull, hair: Hair) -> None:
    look = skull.character
    hair.front.append(Lock(_cap(skull, _SOFT_LINE, lift=2, puff=4, side_y=4), look.hair_color))
    dome = [(-55, -34), (-52, -64), (-30, -86), (0, -91), (30, -86), (52, -64), (55, -34), (0, -44)]
    hair.front.append(Lock(skull.spline(dome, corners=frozenset({0, 6})), look.accent))
    brim = [
        skull.place(x, y, 0.35)
        for x, y in ((-52, -36), (-28, -46), (0, -48), (28, -46), (52, -36), (34, -31), (0, -34), (-34, -31))
    ]
    hair.front.append(
        Lock(spline(brim, corners=frozenset({0, 4})), mix(shade(look.accent, 0.4), look.clothes_color, 0.25), 0.6)
    )
    hair.strands = _strands(skull, [(0, -89), (0, -70), (0, -50)])


_STYLES: dict[str, Callable[[Skull, Hair], None]] = {
    "short": _short, "crop": _crop, "side": _side, "quiff": _quiff, "spiky": _spiky, "bob": _bob,
        "fringe": _fringe,
    "long": _long, "wavy": _wavy, "curly": _curly, "afro": _afro, "bun": _bun, "ponytail": _ponytail,
    "pigtails": _pigtails, "bald": _bald, "hijab": _hijab, "beanie": _beanie, "cap": _hat,
}  # fmt: skip
