"""Shoulders and clothes."""

from talkingmachines.data.synthetic.brush import Brush, Point, load_skia, mirrored, mix, shade, spline, tint
from talkingmachines.data.synthetic.character import Character

_NECKLINES: dict[str, tuple[Point, ...]] = {
    "tee": ((0, 221), (16, 217), (26, 204)),
    "vneck": ((0, 240), (14, 219), (25, 203)),
    "shirt": ((0, 226), (13, 214), (22, 203)),
    "hoodie": ((0, 222), (18, 217), (28, 205)),
    "turtleneck": ((0, 203), (14, 202), (23, 200)),
    "blazer": ((0, 250), (15, 224), (26, 203)),
    "overalls": ((0, 219), (17, 215), (27, 204)),
    "scarf": ((0, 216), (16, 213), (26, 204)),
}
"""From the middle to the side of the neck, in a picture of 256 pixels; x from the middle line."""


def _garment(look: Character, neckline: tuple[Point, ...]) -> list[Point]:
    reach = 80.0 if look.age == "child" else 92.0
    right = [*neckline, (48, 211), (reach - 22, 220), (reach - 4, 234), (reach + 6, 262), (0, 268)]
    return mirrored(right)


def draw_body(brush: Brush, look: Character) -> None:
    """Clothes, with the middle line at x = 0. The neck is drawn before."""
    color, accent = look.clothes_color, look.accent
    neckline = _NECKLINES[look.clothes]
    points = _garment(look, neckline)
    sharp = (
        frozenset({0, 2, len(points) - 2})
        if look.clothes in ("vneck", "shirt", "blazer")
        else frozenset({2, len(points) - 2})
    )
    garment = spline(points, corners=sharp)
    if look.clothes in ("blazer",):
        shirt = spline(_garment(look, _NECKLINES["shirt"]), corners=frozenset({0, 2}))
        brush.form(shirt, mix(accent, (252, 248, 240), 0.65), (-40, 200, 40, 260), 0.6)
    brush.form(garment, color, (-92, 196, 92, 276))
    with brush.inside(garment):
        _pattern(brush, look)
        for side in (-1, 1):
            arm = spline([(side * 66, 236), (side * 62, 250), (side * 63, 270)], closed=False)
            brush.stroke(arm, shade(color, 0.6), 2.2, 0.35)
    _trim(brush, look, neckline)


def _pattern(brush: Brush, look: Character) -> None:
    accent = look.accent
    if look.pattern == "stripes":
        for y in (222, 238, 254):
            band = spline([(-110, y + 8), (-50, y + 1), (0, y + 3), (50, y + 1), (110, y + 8)], closed=False)
            brush.stroke(band, accent, 6.0, 0.85)
    elif look.pattern == "dots":
        for row, y in enumerate((222, 238, 254)):
            for x in range(-96, 97, 24):
                brush.oval(x + 12 * (row % 2), y, 3.6, 3.6, accent, 0.85)
    elif look.pattern == "yoke":
        brush.fill(
            spline([(-120, 244), (-60, 238), (0, 244), (60, 238), (120, 244), (120, 300), (-120, 300)]), accent, 0.9
        )


def _trim(brush: Brush, look: Character, neckline: tuple[Point, ...]) -> None:
    color, accent = look.clothes_color, look.accent
    edge = [(-x, y) for x, y in reversed(neckline[1:])] + list(neckline)
    if look.clothes in ("tee", "vneck", "overalls"):
        sharp = frozenset({2}) if look.clothes == "vneck" else frozenset()
        rim = accent if look.clothes == "tee" else shade(color, 0.35)
        brush.stroke(spline(edge, closed=False, corners=sharp), rim, 4.0)
    if look.clothes == "shirt":
        _flaps(brush, mix(color, (255, 250, 240), 0.35), 9)
        brush.stroke(spline([(0, 226), (0, 262)], closed=False), shade(color, 0.5), 1.4, 0.6)
        brush.oval(0, 240, 2.0, 2.0, tint(color, 0.7))
    elif look.clothes == "blazer":
        _flaps(brush, mix(accent, (252, 248, 240), 0.65), 5)
        for side in (-1, 1):
            lapel = spline(
                [
                    (side * 24, 202),
                    (side * 36, 222),
                    (side * 26, 228),
                    (side * 29, 234),
                    (0, 258),
                    (side * 13, 226),
                ],
                corners=frozenset(range(6)),
            )
            brush.form(lapel, shade(color, 0.18), (-30, 200, 30, 260), 0.5)
            brush.stroke(lapel, shade(color, 0.7), 1.2, 0.5)
    elif look.clothes == "hoodie":
        for side in (-1, 1):
            hood = [(side * 30, 196), (side * 46, 208), (side * 36, 226), (side * 12, 238), (0, 234),
                (side * 14, 222),
                    (side * 26, 210)]  # fmt: skip
            brush.form(spline(hood), shade(color, 0.14), (-44, 196, 44, 240), 0.8)
            brush.stroke(spline([(side * 11, 231), (side * 12, 262)], closed=False), accent, 2.6)
    elif look.clothes == "turtleneck":
        band = spline(
            [(-23, 192), (0, 197), (23, 192), (25, 210), (0, 217), (-25, 210)], corners=frozenset({0, 2, 3, 5})
        )
        brush.form(band, shade(color, 0.1), (-25, 190, 25, 218))
        brush.stroke(spline([(-25, 211), (0, 218), (25, 211)], closed=False), shade(color, 0.7), 1.8, 0.5)
    elif look.clothes == "overalls":
        for side in (-1, 1):
            strap = spline([(side * 38, 200), (side * 33, 240)], closed=False)
            brush.stroke(strap, accent, 11.0)
            brush.oval(side * 33, 241, 4.2, 4.2, (248, 214, 130))
        bib = load_skia().Path()
        bib.addRoundRect(load_skia().Rect.MakeLTRB(-42, 244, 42, 290), 6, 6)
        brush.form(bib, accent, (-42, 240, 42, 280), 0.6)
    elif look.clothes == "scarf":
        tail = spline([(8, 214), (26, 214), (30, 250), (22, 268), (6, 266)])
        brush.form(tail, shade(accent, 0.12), (4, 210, 32, 268), 0.8)
        wrap = spline([(-34, 206), (-20, 196), (0, 202), (20, 196), (34, 206), (26, 220), (0, 226), (-26, 220)])
        brush.form(wrap, accent, (-34, 194, 34, 228))
        fold = spline([(-28, 210), (0, 215), (27, 208)], closed=False)
        brush.stroke(fold, shade(accent, 0.7), 1.8, 0.5)


def _flaps(brush: Brush, color: tuple[int, int, int], gap: float) -> None:
    for side in (-1, 1):
        flap = spline(
            [(side * 23, 198), (side * 30, 212), (side * (gap + 9), 230), (0, 217 + gap), (side * 14, 212)],
            corners=frozenset(range(5)),
        )
        brush.form(flap, color, (-30, 198, 30, 232), 0.5)
        brush.stroke(flap, shade(color, 0.6), 1.1, 0.4)
