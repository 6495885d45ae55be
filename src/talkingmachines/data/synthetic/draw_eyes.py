"""Eyes with lids that close, brows and glasses."""

from dataclasses import dataclass
from typing import Any

from talkingmachines.data.synthetic.brush import Brush, Point, load_skia, mix, shade, spline, tint
from talkingmachines.data.synthetic.palettes import Color
from talkingmachines.data.synthetic.skull import Skull

_SHAPES: dict[str, tuple[float, float, float, float, float]] = {
    "round": (13.8, 12.4, 9.4, 0.0, 0.0),
    "almond": (15.0, 11.4, 7.6, -1.2, 0.1),
    "droopy": (14.2, 11.8, 8.2, 1.6, -0.1),
    "cat": (15.0, 11.8, 7.4, -2.6, 0.18),
    "soft": (14.0, 11.8, 8.4, 0.3, 0.04),
}
"""Half width, height of the upper lid, depth of the lower lid, drop of the outer corner, lean of the peak."""


@dataclass(frozen=True)
class _Eye:
    """One eye. inner and outer are its corners; the handles shape the lids."""

    x: float
    y: float
    side: int
    half: float
    inner: Point
    outer: Point
    upper: float
    lower: float
    lean: float

    def lid(self, path: Any, height: float, *, back: bool = False) -> None:
        """Adds the curve of a lid whose middle lies height above (or, negative, below) the corners."""
        handle = height / 0.75
        reach = self.half * 0.86
        out = self.x + self.side * (reach + self.lean * self.half) * 0.7
        into = self.x - self.side * (reach - self.lean * self.half) * 0.66
        if back:
            path.cubicTo(out, self.outer[1] - handle, into, self.inner[1] - handle, *self.inner)
        else:
            path.cubicTo(into, self.inner[1] - handle, out, self.outer[1] - handle, *self.outer)


def _measure(skull: Skull, side: int) -> _Eye:
    look, pose = skull.character, skull.pose
    half, high, low, drop, lean = _SHAPES[look.eyes]
    x, y = skull.place(side * look.eye_gap, look.eye_y, 0.06)
    size = look.eye_size
    half *= size * (1 - 0.13 * side * pose.head_yaw)
    shut = -0.42 * low * size
    upper = shut + (high * size - shut) * pose.eye_open
    lower = shut + (-low * size * (1 - 0.26 * max(0.0, pose.smile)) - shut) * min(1.0, pose.eye_open)
    inner, outer = (x - side * half, y + 1.0), (x + side * half, y + drop)
    return _Eye(x, y, side, half, inner, outer, upper, lower, lean)


def _aperture(eye: _Eye) -> Any:
    path = load_skia().Path()
    path.moveTo(*eye.inner)
    eye.lid(path, eye.upper)
    eye.lid(path, eye.lower, back=True)
    path.close()
    return path


def _lash_line(eye: _Eye, weight: float, lashes: float) -> Any:
    """The upper lid as a tapering shape, thickest outside, with a small wing on made-up eyes."""
    path = load_skia().Path()
    wing = 3.4 * lashes
    path.moveTo(*eye.inner)
    eye.lid(path, eye.upper)
    tip = (eye.outer[0] + eye.side * wing, eye.outer[1] - 0.75 * wing)
    path.lineTo(*tip)
    thick = weight + 0.8 * lashes
    handle = (eye.upper + thick) / 0.75
    out = eye.x + eye.side * (eye.half * 0.86 + eye.lean * eye.half) * 0.8
    into = eye.x - eye.side * eye.half * 0.6
    path.cubicTo(out, eye.outer[1] - handle, into, eye.inner[1] - handle, *eye.inner)
    path.close()
    return path


def _ball(brush: Brush, eye: _Eye, skull: Skull, ink: Color) -> None:
    look, pose = skull.character, skull.pose
    radius = 9.8 * look.eye_size
    x = eye.x + pose.gaze_x * eye.half * 0.34 - eye.side * 0.6
    y = eye.y - 0.6 + pose.gaze_y * 4.0
    aperture = _aperture(eye)
    with brush.inside(aperture):
        brush.fill(aperture, (252, 250, 246))
        squeeze = 1 - 0.1 * abs(pose.gaze_x)
        brush.oval(x, y, radius * squeeze, radius * 1.06, shade(look.iris, 0.75))
        brush.oval(x, y + 0.4, (radius - 1.4) * squeeze, radius * 1.06 - 1.4, look.iris)
        brush.glow(x, y + 3.6, radius * 0.9 * squeeze, radius * 0.62, tint(look.iris, 0.6), 0.75)
        brush.oval(x, y, radius * 0.5 * squeeze, radius * 0.54, (24, 18, 24))
        shadow = load_skia().Path()
        shadow.moveTo(*eye.inner)
        eye.lid(shadow, eye.upper + 6)
        eye.lid(shadow, eye.upper - 2.6, back=True)
        brush.fill(shadow, mix(ink, (96, 70, 110), 0.6), 0.3)
        brush.oval(x + 3.2 * brush.light, y - 3.9, 3.0, 3.2, (255, 255, 255))
        brush.oval(x - 3.3 * brush.light, y + 4.0, 1.6, 1.7, (255, 255, 255), 0.75)


def draw_eye(brush: Brush, skull: Skull, side: int) -> None:
    """One eye (side -1: at the left of the picture)."""
    look = skull.character
    eye = _measure(skull, side)
    ink: Color = mix((44, 28, 34), look.hair_color, 0.12)
    open_lid = look.eye_size * _SHAPES[look.eyes][1]
    lid = load_skia().Path()
    lid.moveTo(*eye.inner)
    eye.lid(lid, max(open_lid + 2.6, eye.upper + 2.6))
    eye.lid(lid, eye.lower, back=True)
    lid.close()
    paint = mix(shade(look.skin, 0.26), look.accent, 0.5 * look.lid_paint)
    brush.fill(lid, paint, 0.55 + 0.3 * look.lid_paint)
    crease = load_skia().Path()
    crease.moveTo(eye.inner[0] + side * 3, eye.inner[1] - 4)
    eye.lid(crease, max(open_lid + 3.4, eye.upper + 3.4))
    brush.stroke(crease, shade(look.skin, 0.6), 1.1, 0.35)
    _ball(brush, eye, skull, ink)
    brush.fill(_lash_line(eye, 2.4 + 0.4 * (brush.outline > 0), look.lashes), ink)
    under = load_skia().Path()
    under.moveTo(*eye.outer)
    eye.lid(under, eye.lower, back=True)
    brush.stroke(under, mix(shade(look.skin, 0.9), ink, 0.3), 1.0, 0.55)


def draw_brow(brush: Brush, skull: Skull, side: int) -> None:
    """One brow: a tapering stroke that rises and frowns."""
    look, pose = skull.character, skull.pose
    lift = look.eye_y - 20.0 - 2.0 * look.eye_size - 4.8 * pose.brow_raise - 1.0 * max(0.0, pose.eye_open - 1)
    frown = max(0.0, pose.brow_frown)
    x = look.eye_gap
    inner = (
        x - 11.5 - 2.0 * frown,
        lift - 0.6 + 6.0 * frown - 1.4 * max(0.0, pose.brow_raise) + 0.5 * look.brow_tilt,
    )
    middle = (x + 3.0, lift - look.brow_arch + 0.6 + 1.8 * frown - 0.8 * pose.brow_raise)
    outer = (x + 15.0, lift + 4.4 - 0.5 * look.brow_tilt)
    ends = skull.points(((side * px, py) for px, py in (inner, middle, outer)), 0.05)
    (xi, yi), (xm, ym), (xo, yo) = ends
    half = look.brow_thick / 2
    path = spline(
        [(xi, yi - half), (xm, ym - half), (xo, yo), (xm, ym + half), (xi, yi + half * 1.1)],
        corners=frozenset({2}),
    )
    color = look.hair_color if sum(look.hair_color) < 500 else shade(look.hair_color, 0.45)
    brush.fill(path, mix(shade(color, 0.35), (60, 40, 40), 0.15), 0.95)


def draw_glasses(brush: Brush, skull: Skull) -> None:
    """Frames and a breath of glass in front of the eyes."""
    look, skia = skull.character, load_skia()
    if look.glasses == "none":
        return
    width, height, corner = (19.0, 18.5, 18.5) if look.glasses == "round" else (19.5, 16.5, 8.0)
    edges = []
    for side in (-1, 1):
        x, y = skull.place(side * (look.eye_gap + 0.5), look.eye_y + 2.0, 0.16)
        half = width * (1 - 0.13 * side * skull.pose.head_yaw)
        lens = skia.Path()
        lens.addRoundRect(skia.Rect.MakeLTRB(x - half, y - height, x + half, y + height), corner, corner)
        brush.fill(lens, (255, 255, 255), 0.1)
        brush.stroke(lens, look.glasses_color, 2.6)
        edges.append((x - half, x + half, y))
        temple = skia.Path()
        temple.moveTo(x + side * half, y - 3)
        temple.lineTo(side * (skull.half_width(0) + 1) - 3 * skull.pose.head_yaw, look.eye_y - 2)
        brush.stroke(temple, shade(look.glasses_color, 0.3), 2.4)
    bridge = skia.Path()
    bridge.moveTo(edges[0][1], edges[0][2] - 2)
    bridge.quadTo((edges[0][1] + edges[1][0]) / 2, edges[0][2] - 6, edges[1][0], edges[1][2] - 2)
    brush.stroke(bridge, look.glasses_color, 2.6)
