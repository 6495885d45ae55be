"""Drawing tools on a skia canvas: smooth shapes through points, and fills that know the drawing style."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from talkingmachines.data.synthetic.palettes import Color
from talkingmachines.errors import MissingPackageError

Point = tuple[float, float]
"""(x, y) in pixels of a 256 pixel picture."""


@lru_cache(maxsize=1)
def load_skia() -> Any:
    """The skia module. Raises MissingPackageError without it, or without libraries of the system that it needs."""
    try:
        import skia
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "drawing characters needs skia-python: pip install 'talkingmachines[data]'"
        ) from error
    except ImportError as error:
        raise MissingPackageError(
            f"drawing characters needs skia-python, which is installed and cannot be loaded ({error}): install the "
            "system's libEGL, libGL and fontconfig (Debian, Ubuntu: libegl1 libgl1 libfontconfig1)"
        ) from error
    return skia


def mix(one: Color, other: Color, part: float) -> Color:
    """one at part 0, other at part 1."""
    red, green, blue = (round((1 - part) * a + part * b) for a, b in zip(one, other, strict=True))
    return red, green, blue


def shade(color: Color, amount: float) -> Color:
    """Darker, and towards a warm violet: shadows that are never grey."""
    red, green, blue = color
    tinted = (int(red * 0.55), int(green * 0.38), int(blue * 0.46))
    return mix(color, tinted, amount)


def tint(color: Color, amount: float) -> Color:
    """Lighter and a little warmer."""
    return mix(color, (255, 246, 228), amount)


def ramp(value: float, low: float, high: float) -> float:
    """0 below low, 1 above high, smooth between."""
    part = min(1.0, max(0.0, (value - low) / (high - low)))
    return part * part * (3 - 2 * part)


def spline(points: Sequence[Point], *, closed: bool = True, corners: frozenset[int] = frozenset()) -> Any:
    """A path through the points (Catmull-Rom); the points whose index is in corners stay sharp."""
    path = load_skia().Path()
    count = len(points)
    path.moveTo(*points[0])
    for i in range(count if closed else count - 1):
        after = (i + 1) % count
        (x0, y0), (x1, y1) = points[i], points[after]
        dx0, dy0 = _tangent(points, i, closed, corners)
        dx1, dy1 = _tangent(points, after, closed, corners)
        path.cubicTo(x0 + dx0, y0 + dy0, x1 - dx1, y1 - dy1, x1, y1)
    if closed:
        path.close()
    return path


def _tangent(points: Sequence[Point], i: int, closed: bool, corners: frozenset[int]) -> Point:
    count = len(points)
    if i in corners or (not closed and i in (0, count - 1)):
        return 0.0, 0.0
    (x0, y0), (x1, y1) = points[i - 1], points[(i + 1) % count]
    return (x1 - x0) / 6, (y1 - y0) / 6


def mirrored(right: Sequence[Point]) -> list[Point]:
    """A closed, symmetric outline from its right half, given from top to bottom with both ends at x = 0."""
    return [*right, *((-x, y) for x, y in reversed(right[1:-1]))]


class Brush:
    """Paints on one canvas in one style. light: -1 from the left, +1 from the right."""

    def __init__(self, canvas: Any, style: str, light: float) -> None:
        self.canvas, self.style, self.light = canvas, style, light
        self.skia = load_skia()
        self.rich = style in ("shaded", "painted")
        self.outline = 1.9 if style == "outlined" else 0.0

    def color(self, color: Color, alpha: float = 1.0) -> int:
        """The packed colour of skia."""
        opacity = round(255 * min(1.0, max(0.0, alpha)))
        return self.skia.ColorSetARGB(opacity, *color)

    def fill(self, path: Any, color: Color, alpha: float = 1.0) -> None:
        """One plain colour."""
        self.canvas.drawPath(path, self.skia.Paint(Color=self.color(color, alpha), AntiAlias=True))

    def stroke(self, path: Any, color: Color, width: float, alpha: float = 1.0) -> None:
        """A line with round ends."""
        skia = self.skia
        paint = skia.Paint(
            Color=self.color(color, alpha), AntiAlias=True, Style=skia.Paint.kStroke_Style,
            StrokeWidth=width, StrokeCap=skia.Paint.kRound_Cap, StrokeJoin=skia.Paint.kRound_Join,
        )  # fmt: skip
        self.canvas.drawPath(path, paint)

    def blend(self, path: Any, start: Point, end: Point, colors: Sequence[Color], alpha: float = 1.0) -> None:
        """A linear gradient from start to end."""
        shader = self.skia.GradientShader.MakeLinear([start, end], [self.color(c) for c in colors])
        self.canvas.drawPath(path, self.skia.Paint(Shader=shader, AntiAlias=True, Alphaf=alpha))

    def form(self, path: Any, color: Color, box: tuple[float, float, float, float], depth: float = 1.0) -> None:
        """A solid thing, in the way of the style. box: x0, y0, x1, y1 that its light spans; depth: how round."""
        if self.outline:  # below the fill: parts that overlap in one path get no lines between them
            self.stroke(path, self.ink(color), 2 * self.outline)
        if self.rich:
            x0, y0, x1, y1 = box
            middle, side = (x0 + x1) / 2, self.light * (x1 - x0) / 3
            colors = (tint(color, 0.16 * depth), color, shade(color, 0.3 * depth))
            self.blend(path, (middle + side, y0), (middle - side, y1), colors)
        else:
            self.fill(path, color)

    def ink(self, color: Color) -> Color:
        """The colour of the outline around a colour."""
        return mix(shade(color, 1.0), (46, 28, 40), 0.55)

    def glow(self, x: float, y: float, rx: float, ry: float, color: Color, alpha: float) -> None:
        """A soft ellipse that fades to nothing at its edge."""
        canvas = self.canvas
        canvas.save()
        canvas.translate(x, y)
        canvas.scale(rx, ry)
        canvas.drawCircle(0, 0, 1, self.skia.Paint(Shader=_soft_disc(color), AntiAlias=True, Alphaf=alpha))
        canvas.restore()

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color, alpha: float = 1.0) -> None:
        """A plain ellipse."""
        paint = self.skia.Paint(Color=self.color(color, alpha), AntiAlias=True)
        self.canvas.drawOval(self.skia.Rect.MakeLTRB(x - rx, y - ry, x + rx, y + ry), paint)

    @contextmanager
    def inside(self, path: Any) -> Iterator[None]:
        """What is drawn in this block shows only inside the path."""
        self.canvas.save()
        self.canvas.clipPath(path, self.skia.ClipOp.kIntersect, True)
        yield
        self.canvas.restore()


@lru_cache(maxsize=512)
def _soft_disc(color: Color) -> Any:
    skia = load_skia()
    stops = [skia.ColorSetARGB(alpha, *color) for alpha in (255, 190, 64, 0)]
    return skia.GradientShader.MakeRadial((0, 0), 1, stops, [0.0, 0.35, 0.75, 1.0])
