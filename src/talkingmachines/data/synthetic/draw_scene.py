"""Backgrounds. They never move, so a clip draws its own once."""

import numpy as np

from talkingmachines.data.synthetic.brush import Brush, load_skia, mix, shade, spline, tint
from talkingmachines.data.synthetic.character import Character
from talkingmachines.data.synthetic.palettes import Color


def draw_scene(brush: Brush, look: Character) -> None:
    """Fills a picture of 256 pixels."""
    skia, color = load_skia(), look.scene_color
    rng = np.random.default_rng(look.scene_seed)
    everything = skia.Path()
    everything.addRect(skia.Rect.MakeLTRB(0, 0, 256, 256))
    if look.scene == "plain":
        brush.fill(everything, color)
    else:
        brush.blend(everything, (0, 0), (60, 256), (tint(color, 0.22), color, mix(color, shade(color, 0.4), 0.6)))
    extra = {"sun": _sun, "blobs": _blobs, "bokeh": _bokeh, "window": _window, "hills": _hills}.get(look.scene)
    if extra is not None:
        extra(brush, color, look.accent, rng)
    if brush.style == "painted":
        for _ in range(7):
            x, y, size = rng.uniform(0, 256), rng.uniform(0, 256), rng.uniform(50, 110)
            other = mix(color, (look.accent, look.clothes_color, (255, 248, 230))[rng.integers(3)], 0.4)
            brush.glow(x, y, size, size * 0.7, other, 0.3)


def _sun(brush: Brush, color: Color, accent: Color, rng: np.random.Generator) -> None:
    brush.oval(128 + rng.uniform(-14, 14), 118, 104, 104, mix(color, accent, 0.35), 0.8)


def _blobs(brush: Brush, color: Color, accent: Color, rng: np.random.Generator) -> None:
    for x, y in ((20, 40), (236, 70), (16, 210), (246, 214)):
        angles = np.linspace(0, 2 * np.pi, 7)[:-1]
        size = rng.uniform(30, 62)
        reach = size * rng.uniform(0.75, 1.2, 6)
        points = [(x + float(r * np.cos(a)), y + float(r * np.sin(a))) for a, r in zip(angles, reach, strict=True)]
        brush.fill(spline(points), mix(color, accent if rng.random() < 0.5 else (255, 255, 255), 0.3), 0.7)


def _bokeh(brush: Brush, color: Color, accent: Color, rng: np.random.Generator) -> None:
    brush.glow(128, 300, 230, 140, shade(color, 0.8), 0.6)
    for _ in range(11):
        x, y, size = rng.uniform(0, 256), rng.uniform(0, 170), rng.uniform(9, 26)
        brush.oval(x, y, size, size, mix((255, 236, 190), accent, 0.3), rng.uniform(0.16, 0.4))


def _window(brush: Brush, color: Color, accent: Color, rng: np.random.Generator) -> None:
    skia = load_skia()
    left = 8.0 if rng.random() < 0.5 else 172.0
    frame, pane = skia.Path(), skia.Path()
    frame.addRoundRect(skia.Rect.MakeLTRB(left, 22, left + 76, 134), 6, 6)
    pane.addRoundRect(skia.Rect.MakeLTRB(left + 6, 28, left + 70, 128), 3, 3)
    brush.fill(frame, tint(color, 0.65))
    brush.blend(pane, (left, 28), (left, 128), ((150, 204, 236), (222, 238, 240), (252, 232, 200)))
    bar = spline([(left + 38, 28), (left + 38, 128)], closed=False)
    brush.stroke(bar, tint(color, 0.65), 4.0)
    other = 214.0 if left < 100 else 40.0
    brush.fill(spline([(other - 14, 206), (other + 14, 206), (other + 17, 176), (other - 17, 176)]), shade(accent, 0.2))
    leaf = mix((104, 150, 104), color, 0.25)
    for lean in (-1.0, -0.4, 0.3, 0.9):
        tip = (other + 34 * lean, 118 + 22 * abs(lean))
        mid = (other + 20 * lean, 146.0)
        path = [(other, 182.0), (mid[0] - 8, mid[1]), tip, (mid[0] + 8, mid[1] + 5)]
        brush.fill(spline(path, corners=frozenset({0, 2})), shade(leaf, 0.12 + 0.1 * lean))
    brush.fill(
        spline([(-40, 214), (300, 214), (300, 300), (-40, 300)], corners=frozenset(range(4))),
        shade(color, 0.3),
        0.6,
    )


def _hills(brush: Brush, color: Color, accent: Color, rng: np.random.Generator) -> None:
    brush.oval(rng.uniform(30, 70), rng.uniform(40, 64), 20, 20, (255, 240, 204), 0.9)
    for level, part in ((140, 0.2), (172, 0.38), (204, 0.55)):
        wave = rng.uniform(-16, 16, 5)
        points = [(-40.0, 320.0), (-40.0, level + wave[0]), (40, level + wave[1]), (128, level + wave[2]),
                  (214, level + wave[3]), (300.0, level + wave[4]), (300.0, 320.0)]  # fmt: skip
        brush.fill(
            spline(points, corners=frozenset({0, 1, 5, 6})), mix(color, shade(mix(color, accent, 0.3), 0.5), part)
        )
