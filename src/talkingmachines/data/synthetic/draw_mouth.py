"""The mouth: lips that stretch around a dark cavity with teeth and a tongue."""

from dataclasses import dataclass
from typing import Any

from talkingmachines.data.synthetic.brush import Brush, Point, load_skia, mix, ramp, shade, tint
from talkingmachines.data.synthetic.palettes import Color
from talkingmachines.data.synthetic.skull import MOUTH_GAP, Skull

_CAVITY: Color = (84, 24, 34)
_TONGUE: Color = (212, 98, 104)
_TEETH: Color = (252, 248, 240)


@dataclass(frozen=True)
class _Mouth:
    """Where the parts of a mouth lie. Heights are those of the middle line; top and bottom coincide when shut."""

    x: float
    y: float
    left: float
    right: float
    corner: float
    top: float
    bottom: float
    upper: float
    lower: float
    fullness: float

    @property
    def gap(self) -> float:
        return self.bottom - self.top


def _measure(skull: Skull) -> _Mouth:
    pose, look = skull.pose, skull.character
    x, y = mouth_middle(skull)
    rounding = min(1.0, max(0.0, pose.mouth_round))
    smile = 0.22 + max(-1.0, min(1.0, pose.smile))  # at rest the face is friendly
    width = look.mouth_width * max(0.42, 1 + 0.22 * pose.mouth_wide - 0.44 * rounding + 0.11 * smile)
    gap = MOUTH_GAP * max(0.0, pose.mouth_open)
    bow = 2.4 * smile * (1 - 0.6 * rounding)
    thick = look.lip_full * (1 + 0.45 * rounding - 0.16 * max(0.0, pose.mouth_wide) - 0.1 * max(0.0, smile))
    turn = 0.14 * pose.head_yaw
    return _Mouth(
        x=x, y=y, left=x - width * (1 + turn), right=x + width * (1 - turn),
        corner=y + 0.34 * gap - 5.4 * smile * (1 - 0.5 * rounding),
        top=y + bow - 0.16 * gap, bottom=y + bow + 0.84 * gap,
        upper=3.9 * thick, lower=5.2 * thick, fullness=0.46 + 0.34 * rounding + 0.06 * pose.mouth_open,
    )  # fmt: skip


def _edge(path: Any, mouth: _Mouth, middle: float, *, back: bool, reach: float = 0.0) -> None:
    """Adds the curve from one corner to the other that passes the middle line at a height.

    reach widens the curve beyond the corners of the lips' seam.
    """
    start, end = mouth.left - reach, mouth.right + reach
    if back:
        start, end = end, start
    handle = (middle - 0.25 * mouth.corner) / 0.75
    x0 = mouth.x + (start - mouth.x) * mouth.fullness
    x1 = mouth.x + (end - mouth.x) * mouth.fullness
    path.cubicTo(x0, handle, x1, handle, end, mouth.corner)


def _opening(mouth: _Mouth, top: float = 0.0, bottom: float = 0.0) -> Any:
    path = load_skia().Path()
    path.moveTo(mouth.left, mouth.corner)
    _edge(path, mouth, mouth.top + top, back=False)
    _edge(path, mouth, mouth.bottom + bottom, back=True)
    path.close()
    return path


def _lips(mouth: _Mouth) -> Any:
    """The outer contour of both lips, with the bow of the upper one."""
    path = load_skia().Path()
    reach = 1.2
    left, right, y = mouth.left - reach, mouth.right + reach, mouth.top - mouth.upper
    path.moveTo(left, mouth.corner)
    peak_l, peak_r = mouth.x + 0.24 * (left - mouth.x), mouth.x + 0.24 * (right - mouth.x)
    dip = y + 0.2 * mouth.upper
    path.cubicTo(
        mouth.x + 0.72 * (left - mouth.x),
            mouth.corner - 0.2 * mouth.upper - 0.5 * (mouth.corner - y) * mouth.fullness,
        mouth.x + 0.5 * (left - mouth.x), y, peak_l, y,
    )  # fmt: skip
    path.quadTo(mouth.x + 0.1 * (left - mouth.x), y, mouth.x, dip)
    path.quadTo(mouth.x + 0.1 * (right - mouth.x), y, peak_r, y)
    path.cubicTo(
        mouth.x + 0.5 * (right - mouth.x), y, mouth.x + 0.72 * (right - mouth.x),
        mouth.corner - 0.2 * mouth.upper - 0.5 * (mouth.corner - y) * mouth.fullness, right, mouth.corner,
    )  # fmt: skip
    _edge(path, mouth, mouth.bottom + mouth.lower, back=True, reach=reach)
    path.close()
    return path


def _inside(brush: Brush, mouth: _Mouth, skull: Skull) -> None:
    pose = skull.pose
    gap, half = mouth.gap, (mouth.right - mouth.left) / 2
    tongue = min(1.0, max(0.0, pose.tongue))
    teeth = min(1.0, max(0.0, pose.teeth))
    opening = _opening(mouth)
    with brush.inside(opening):
        brush.fill(opening, _CAVITY)
        rise = 0.34 * gap + 0.42 * gap * tongue
        brush.oval(mouth.x, mouth.bottom + 5.0 - rise + 4.0, half * 0.74, 9.0, _TONGUE)
        brush.oval(mouth.x, mouth.bottom + 6.0 - rise + 4.0, half * 0.3, 7.0, shade(_TONGUE, 0.25), 0.6)
        length = 1.2 + 5.4 * max(teeth, 0.38 * (1 - 0.8 * pose.mouth_round))
        upper = _opening(mouth, top=-6.0, bottom=length - gap)
        brush.fill(upper, _TEETH)
        lower = 3.2 * teeth * (1 - tongue) - 0.4
        if lower > 0:
            brush.fill(_opening(mouth, top=gap - lower, bottom=6.0), mix(_TEETH, _CAVITY, 0.14))
        brush.fill(_opening(mouth, top=-6.0, bottom=1.5 - gap), _CAVITY, 0.28)


def draw_mouth(brush: Brush, skull: Skull) -> None:
    """Lips, and what shows between them."""
    mouth, look = _measure(skull), skull.character
    lips, color = _lips(mouth), look.lip_color
    brush.fill(lips, look.skin)
    if brush.rich:
        if look.beard in ("none", "moustache"):
            brush.glow(mouth.x, mouth.bottom + mouth.lower + 3.5, 13, 4.5, shade(look.skin, 0.7), 0.3)
        ends = ((mouth.x, mouth.top - mouth.upper), (mouth.x, mouth.bottom + mouth.lower))
        brush.blend(lips, *ends, (shade(color, 0.22), color, tint(color, 0.14)), look.lip_alpha)
    else:
        brush.fill(lips, color, look.lip_alpha)
        with brush.inside(lips):
            brush.fill(_opening(mouth, top=-12.0), shade(color, 0.5), 0.22 * look.lip_alpha)
    shine = mouth.bottom + 0.52 * mouth.lower
    brush.oval(mouth.x - 1.5, shine, 0.22 * (mouth.right - mouth.left), 0.17 * mouth.lower, tint(color, 0.6), 0.32)
    if mouth.gap > 0:
        _inside(brush, mouth, skull)
    line = mix(shade(color, 1.0), (70, 24, 34), 0.6)
    brush.stroke(_opening(mouth), line, 1.5 + 0.5 * (brush.outline > 0), 0.9)
    for side, x in ((-1, mouth.left), (1, mouth.right)):
        brush.oval(x + 0.2 * side, mouth.corner, 1.5, 1.4, line, 0.6)


def mouth_middle(skull: Skull) -> Point:
    """Of the shut mouth, in this pose of the head."""
    x, y = skull.place(0.0, skull.character.mouth_y, 0.12)
    return x, y - skull.drop * ramp(skull.character.mouth_y, 22, 58)  # the upper lip does not follow the jaw


def mouth_bounds(skull: Skull) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 around the mouth as wide and as open as it gets in this pose of the head."""
    (x, y), width = mouth_middle(skull), skull.character.mouth_width
    return x - 1.36 * width - 3, y - 13, x + 1.36 * width + 3, y + MOUTH_GAP + 11
