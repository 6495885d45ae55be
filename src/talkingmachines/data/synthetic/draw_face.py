"""The head itself: neck, ears, skin and its light, cheeks, nose, age lines and beard."""

from typing import Any

from talkingmachines.data.synthetic.brush import Brush, load_skia, mirrored, mix, ramp, shade, spline, tint
from talkingmachines.data.synthetic.palettes import Color
from talkingmachines.data.synthetic.skull import MOUTH_GAP, Skull


def blush_color(skin: Color) -> Color:
    """A rosy version of any skin."""
    red, green, blue = skin
    return min(255, int(red * 1.02) + 6), int(green * 0.72), int(blue * 0.74)


def draw_ears(brush: Brush, skull: Skull) -> None:
    """Ears, behind the head: they shift against the features."""
    look, pose = skull.character, skull.pose
    size = look.ear_size * (0.92 if look.age == "child" else 1.06 if look.age == "elder" else 1.0)
    for side in (-1, 1):
        x = side * (skull.half_width(8) + 2.5) - 4.5 * pose.head_yaw
        y = look.eye_y + 7 - 4 * pose.head_pitch
        right = [(-5, -15), (3, -16), (8.5, -11), (8, 0), (4, 10), (-1, 14), (-6, 10)]
        ear = spline([(x + side * px * size, y + py * size) for px, py in right])
        brush.form(ear, mix(look.skin, blush_color(look.skin), 0.25), (x - 9, y - 15, x + 9, y + 14))
        inner = spline([(x + side * px * size, y + py * size) for px, py in ((1, -9), (4.5, -7), (3.5, 2), (0, 6))])
        brush.fill(inner, shade(look.skin, 0.5), 0.4)
        if look.earrings:
            bob = x + side * 2.5 * size
            brush.oval(bob, y + 16 * size, 3.2, 3.2, shade((238, 196, 104), 0.25))
            brush.oval(bob - 0.4, y + 15.6 * size, 2.5, 2.5, (250, 214, 130))


def draw_head(brush: Brush, skull: Skull) -> Any:
    """Skin and its light. Returns the path of the head."""
    pose, skin = skull.pose, skull.character.skin
    head = skull.outline()
    brush.fill(head, skin)
    rosy = blush_color(skin)
    with brush.inside(head):
        if brush.rich:
            brush.glow(-12 + 16 * brush.light, -14, 62, 60, tint(skin, 0.5), 0.55)
            brush.glow(-56 * brush.light, 22, 46, 76, shade(skin, 0.75), 0.42)
            brush.glow(6 * pose.head_yaw, 74 + skull.drop, 62, 26, shade(skin, 0.8), 0.42)
        else:
            side = -brush.light
            shadow = spline([(side * 60, -46), (side * 49, -18), (side * 47, 16), (side * 36, 46),
                (0, 59 + skull.drop),
                             (side * 30, 76), (side * 80, 40)])  # fmt: skip
            brush.fill(shadow, shade(skin, 0.5), 0.26)
        if brush.style == "painted":
            brush.glow(*skull.place(-26, -26), 30, 22, mix(skin, (250, 214, 150), 0.5), 0.4)
            brush.glow(*skull.place(30, 34), 26, 26, mix(skin, (150, 120, 190), 0.4), 0.24)
            brush.glow(*skull.place(4, 20, 0.4), 18, 14, rosy, 0.4)
        _cheeks(brush, skull, rosy)
    if brush.outline:
        brush.stroke(head, brush.ink(skin), brush.outline)
    return head


def _cheeks(brush: Brush, skull: Skull, rosy: Color) -> None:
    look, smile = skull.character, max(0.0, skull.pose.smile)
    for side in (-1, 1):
        x, y = skull.place(side * 31, look.eye_y + 19.5 - 3.0 * smile, 0.1)
        strength = look.blush * (0.6 + 0.25 * smile)
        if brush.rich:
            brush.glow(x, y, 15, 11, rosy, strength)
        else:
            brush.oval(x, y, 9.5, 6.8, rosy, 0.62 * strength)
        if look.freckles:
            for dx, dy in ((-7, -2), (-1, -4), (5, -1), (0, 2.5)):
                fx, fy = skull.place(side * 25 + dx, look.eye_y + 17 + dy, 0.15)
                brush.oval(fx, fy, 1.25, 1.15, shade(look.skin, 0.75), 0.5)


def draw_nose(brush: Brush, skull: Skull) -> None:
    """The part that stands out most, so that a turn of the head shows."""
    look, skin = skull.character, skull.character.skin
    size, y = look.nose_size, look.eye_y + 19.5
    line = shade(skin, 0.95)

    def at(dx: float, dy: float, depth: float = 0.5) -> tuple[float, float]:
        return skull.place(dx * size, y + dy * size, depth)

    tip = at(0, 0)
    if brush.rich:
        brush.glow(tip[0], tip[1] + 4.5 * size, 11 * size, 5 * size, shade(skin, 0.9), 0.4)
        brush.glow(tip[0], tip[1] - 1, 9 * size, 8 * size, mix(skin, blush_color(skin), 0.6), 0.6)
        brush.glow(tip[0] + 2 * brush.light, tip[1] - 3.5, 4.2 * size, 4 * size, tint(skin, 0.75), 0.7)
    side = -brush.light
    if look.nose == "button":
        brush.stroke(spline([at(-5, 1.5), at(0, 4.6), at(5, 1.5)], closed=False), line, 2.0, 0.7)
    elif look.nose == "curve":
        points = [at(side * 2, -12, 0.2), at(side * 5.4, 0.5), at(side * 3, 4), at(-side * 2.5, 4.2)]
        brush.stroke(spline(points, closed=False), line, 1.9, 0.62)
    elif look.nose == "bridge":
        shadow = [at(side * 1.5, -15, 0.1), at(side * 0.5, -2), at(0, 4.6), at(side * 7, 4), at(side * 4, -4, 0.3)]
        brush.fill(spline(shadow, corners=frozenset({0, 2, 3})), shade(skin, 0.6), 0.45)
        brush.stroke(spline([at(-4, 4), at(0, 5.4), at(4, 4)], closed=False), line, 1.8, 0.55)
    elif look.nose == "broad":
        points = [
            at(-9, 0.5, 0.35),
            at(-6.5, 4.4, 0.4),
            at(-2, 4),
            at(0, 5.2),
            at(2, 4),
            at(6.5, 4.4, 0.4),
            at(9, 0.5, 0.35),
        ]
        brush.stroke(spline(points, closed=False), line, 2.0, 0.62)
    else:
        brush.oval(tip[0], tip[1] + 1.2, 6.6 * size, 4.6 * size, mix(shade(skin, 0.35), blush_color(skin), 0.6), 0.6)
        brush.oval(tip[0] + 1.6 * brush.light, tip[1] - 0.6, 2.4 * size, 1.5 * size, tint(skin, 0.6), 0.7)


def draw_lines(brush: Brush, skull: Skull) -> None:
    """The folds of a smile, and what the years leave."""
    look, smile = skull.character, max(0.0, skull.pose.smile)
    old = look.age == "elder"
    strength = (0.3 if old else 0.0) + 0.4 * smile
    line = shade(look.skin, 0.85)
    for side in (-1, 1):
        fold = [(side * 13, look.eye_y + 23), (side * 22, look.mouth_y - 7), (side * 25, look.mouth_y + 4)]
        brush.stroke(skull.spline(fold, closed=False), line, 1.3, 0.62 * strength)
        if old:
            bag = [(side * (look.eye_gap - 9), look.eye_y + 13), (side * look.eye_gap, look.eye_y + 15.5),
                   (side * (look.eye_gap + 9), look.eye_y + 13)]  # fmt: skip
            brush.stroke(skull.spline(bag, closed=False), line, 1.2, 0.3)
    if old:
        for y, half in ((-34, 17), (-28, 13)):
            lift = -2.5 * skull.pose.brow_raise
            furrow = [(-half, y + 1 + lift), (0, y - 1 + lift), (half, y + 1 + lift)]
            brush.stroke(skull.spline(furrow, closed=False), line, 1.1, 0.2)


def draw_beard(brush: Brush, skull: Skull, head: Any) -> None:
    """A beard goes down with the jaw; a moustache stays with the upper lip. Drawn below the lips."""
    look = skull.character
    if look.beard == "none":
        return
    color = shade(look.hair_color, 0.1)
    mouth = look.mouth_y
    if look.beard in ("stubble", "short", "full"):
        grow = {"stubble": 0.0, "short": 3.0, "full": 11.0}[look.beard]
        wide = skull.half_width(12) + (1.0 if grow else 4.0)
        right = [(0, mouth - 8), (9, mouth - 8.5), (22, mouth - 5), (31, mouth - 10), (wide - 8, 17),
            (wide - 1, -4),
                 (wide + 0.5, 14), (skull.half_width(38) + 1 + 0.4 * grow, 38),
                     (27 + 0.2 * grow, 56 + 0.8 * grow),
                 (0, 62.5 + grow)]  # fmt: skip
        shape = skull.spline(mirrored(right), corners=frozenset({5, 13}))
        if look.beard == "stubble":
            with brush.inside(head):
                brush.fill(shape, mix(look.skin, color, 0.6), 0.42)
        else:
            brush.form(shape, color, (-50, 10, 50, 76), 0.8)
    if look.beard == "goatee":
        right = [(0, mouth + 8.5), (8, mouth + 9), (17, mouth + 6), (19, 52), (12, 64), (0, 69)]
        shape = spline(skull.points(mirrored(right)))
        brush.form(shape, color, (-16, mouth, 16, 72), 0.8)


def draw_moustache(brush: Brush, skull: Skull) -> None:
    """Above the upper lip, which it follows up but not down."""
    look, pose = skull.character, skull.pose
    if look.beard not in ("full", "goatee", "moustache"):
        return
    y = look.mouth_y - 6.2 * look.lip_full - 0.6
    rise = -0.16 * MOUTH_GAP * pose.mouth_open + 1.4 * pose.smile
    spread = 1 + 0.14 * pose.mouth_wide - 0.2 * pose.mouth_round + 0.06 * pose.smile
    tip = -2.2 * pose.smile
    right = [(0, y - 4.5), (8, y - 6.5), (17, y - 2), (25, y + 4 + tip), (14, y + 3.4), (5, y + 3), (0, y + 1.2)]
    moved = [skull.place(x * spread, py + rise, 0.16) for x, py in mirrored(right)]
    drop = skull.drop * ramp(y, 22, 58)
    shape = spline([(x, py - drop) for x, py in moved], corners=frozenset({3, 9}))
    brush.form(shape, shade(look.hair_color, 0.16), (-25, y - 8, 25, y + 8), 0.8)


def draw_neck(brush: Brush, skin: Color, corners: tuple[tuple[float, float], ...], chin: tuple[float, float]) -> None:
    """corners: top left, top right, bottom right, bottom left of the neck; chin: what throws a shadow on it."""
    (lx, ly), (rx, ry), (bx, by), (ax, ay) = corners
    path = load_skia().Path()
    path.moveTo(lx, ly)
    path.cubicTo(lx + 1, ly + 22, ax + 4, ay - 16, ax - 14, ay)
    path.lineTo(ax - 30, ay + 46)
    path.lineTo(bx + 30, by + 46)
    path.lineTo(bx + 14, by)
    path.cubicTo(bx - 4, by - 16, rx - 1, ry + 22, rx, ry)
    path.close()
    brush.form(path, shade(skin, 0.1), (ax - 6, ly, bx + 6, by + 46), 0.7)
    with brush.inside(path):
        if brush.rich:
            brush.glow(chin[0], chin[1] + 2, 52, 27, shade(skin, 1.0), 0.75)
        else:
            brush.oval(chin[0], chin[1] - 12, 42, 25, shade(skin, 0.62), 0.8)
