"""Toons drawn with skia."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from talkingmachines.data.synthetic.brush import Brush, Point, load_skia, shade, spline, tint
from talkingmachines.data.synthetic.palettes import Color
from talkingmachines.data.synthetic.pose import Pose
from talkingmachines.data.synthetic.toon import Figure, Toon, any_color


def paint_toon(pixels: np.ndarray, toon: Toon, pose: Pose) -> None:
    """Draws a whole picture onto pixels, [size, size, 4] uint8."""
    skia = load_skia()
    canvas = skia.Canvas(pixels, skia.kRGBA_8888_ColorType)
    canvas.scale(pixels.shape[1] / 256, pixels.shape[0] / 256)
    _Painter(Brush(canvas, "flat", 1.0), Figure(toon, pose)).draw()


class _Painter:
    """Every number is drawn for every pose, in the same order: else a toon would change from frame to frame."""

    def __init__(self, brush: Brush, figure: Figure) -> None:
        self.brush, self.figure, self.rng = brush, figure, figure.rng

    def draw(self) -> None:
        rng, figure, canvas = self.rng, self.figure, self.brush.canvas
        self._background()
        hair, (dx, dy) = figure.color(any_color(rng)), figure.turn
        canvas.translate(*figure.shift)
        canvas.scale(figure.scale, figure.scale)
        canvas.save()
        canvas.translate(0, -1.8 * figure.pose.breath / figure.scale)
        if rng.random() < 0.7:
            self._body()
        canvas.restore()
        canvas.translate(256 * figure.pose.head_x / figure.scale, 256 * figure.pose.head_y / figure.scale)
        canvas.rotate(math.degrees(figure.pose.head_roll), *figure.pivot)
        if rng.random() < 0.3:
            behind = [(-1.1, 1.1), (-1.25, -0.3), (0, -1.3), (1.25, -0.3), (1.1, 1.1), (0, 0.9)]
            self._form(behind, hair, move=(-0.3 * dx, -0.3 * dy))
        self._ears(hair)
        self._head()
        self._cheeks()
        self._nose()
        self._mouth()
        kind, iris = _EYES[rng.integers(len(_EYES))], any_color(rng)
        for side in (-1, 1):
            self._eye(kind, side, iris)
        self._brows()
        if rng.random() < 0.5:
            self._fringe(hair)
        if rng.random() < 0.15:
            for side in (-1, 1):
                self.oval(figure.eye(side), 1.4 * figure.eye_size, 1.4 * figure.eye_size, None)

    def oval(self, centre: Point, rx: float, ry: float, color: Color | None) -> None:
        """With an outline, where there are some. Without a colour that alone."""
        if color is not None:
            self.brush.oval(*centre, rx, ry, color)
        if self.figure.width or color is None:
            path, (x, y) = load_skia().Path(), centre
            path.addOval(load_skia().Rect.MakeLTRB(x - rx, y - ry, x + rx, y + ry))
            self.brush.stroke(path, self.figure.ink, max(1.5, self.figure.width))

    def shape(self, path: Any, color: Color) -> None:
        self.brush.fill(path, color)
        if self.figure.width:
            self.brush.stroke(path, self.figure.ink, self.figure.width)

    def line(self, points: Sequence[Point], width: float = 0.0) -> None:
        self.brush.stroke(spline(points, closed=False), self.figure.ink, width or max(1.5, self.figure.width))

    def _form(
        self,
        points: Sequence[Point],
        color: Color,
        corners: frozenset[int] = frozenset(),
        move: Point = (0.0, 0.0),
    ) -> None:
        """points: in halves of the head, from its middle; moved by so many units."""
        (x, y), (rx, ry) = self.figure.middle, self.figure.half
        self.shape(spline([(x + a * rx + move[0], y + b * ry + move[1]) for a, b in points], corners=corners), color)

    def _background(self) -> None:
        rng, figure = self.rng, self.figure
        everything = load_skia().Path()
        everything.addRect(load_skia().Rect.MakeLTRB(0, 0, 256, 256))
        color = figure.color((255, 255, 255) if rng.random() < 0.25 else any_color(rng))
        if rng.random() < 0.5:
            self.brush.fill(everything, color)
        else:
            self.brush.blend(everything, (0, 0), (80, 256), (color, shade(color, 0.5)))
        for _ in range(rng.integers(0, 6)):  # things that are no face
            centre = (rng.uniform(0, 256), rng.uniform(0, 256))
            self.oval(centre, rng.uniform(3, 50), rng.uniform(3, 50), figure.color(any_color(rng)))

    def _body(self) -> None:
        rng, figure = self.rng, self.figure
        wide, high = rng.uniform(0.6, 1.8), rng.uniform(0.9, 1.3)
        color = figure.color(any_color(rng))
        if rng.random() < 0.5:
            self._form([(-0.3, 0.7), (0.3, 0.7), (0.35, 1.5), (-0.35, 1.5)], figure.skin, frozenset(range(4)))
        shoulders = [(-wide, 5.0), (-wide, high + 0.5), (-0.4, high), (0.4, high), (wide, high + 0.5), (wide, 5.0)]
        self._form(shoulders, color)

    def _ears(self, hair: Color) -> None:
        rng, figure = self.rng, self.figure
        kind, color = rng.random(), figure.skin if rng.random() < 0.6 else hair
        (dx, dy), low, size = figure.turn, rng.uniform(-0.2, 0.2), rng.uniform(0.1, 0.3)
        for side in (-1, 1):
            if kind < 0.3:
                centre = (
                    figure.middle[0] + side * figure.half[0] - 0.3 * dx,
                    figure.middle[1] + low * figure.half[1] - 0.3 * dy,
                )
                self.oval(centre, size * figure.half[0], 1.3 * size * figure.half[1], color)
            elif kind < 0.6:  # a cat's, or a rabbit's
                tip = 1.35 if kind < 0.48 else 2.2
                ear = [(side * 0.95, -0.3), (side * 0.8, -tip), (side * 0.2, -0.85)]
                self._form(ear, color, frozenset(range(3)), (-0.3 * dx, -0.3 * dy))

    def _head(self) -> None:
        """The jaw goes down with the mouth; muzzle or beard lie on it."""
        rng, figure = self.rng, self.figure
        chin, jaw, cheek = rng.uniform(0.9, 1.05), rng.uniform(0.45, 0.95), rng.uniform(0.85, 1.0)
        down = figure.jaw / figure.half[1]
        right = [(0, -1), (0.7, -0.8), (1, -0.1), (cheek, 0.4), (jaw * 0.85, 0.8 + 0.6 * down), (0, chin + down)]
        self._form([*right, *((-a, b) for a, b in reversed(right[1:-1]))], figure.skin)
        muzzle, (x, y), (rx, ry) = rng.random() < 0.25, figure.mouth, figure.half
        if muzzle:
            centre = (x, y - 0.08 * ry + 0.5 * figure.jaw)
            self.oval(centre, 0.45 * rx, 0.3 * ry + 0.5 * figure.jaw, figure.color(tint(figure.skin, 0.6)))

    def _cheeks(self) -> None:
        rosy, strength = self.rng.random() < 0.3, self.rng.uniform(0.2, 0.7)
        if rosy:
            for side in (-1, 1):
                x, y = self.figure.eye(side)
                self.brush.oval(x + side * 3, y + 0.45 * self.figure.mouth_drop, 8, 5, (235, 110, 110), strength)

    def _nose(self) -> None:
        rng, figure = self.rng, self.figure
        x, y = figure.mouth
        x += 0.4 * figure.turn[0]
        y += 0.4 * figure.turn[1] - figure.mouth_drop * rng.uniform(0.25, 0.5)
        size, kind, color = figure.mouth_drop * rng.uniform(0.05, 0.16), rng.random(), any_color(rng)
        if kind < 0.25:
            self.oval((x, y), size * 1.3, size, figure.color(color))
        elif kind < 0.5:
            self.line([(x, y - 2 * size), (x + size, y), (x, y)])
        elif kind < 0.65:
            self.line([(x - size, y), (x, y + size), (x + size, y)])
        if rng.random() < 0.12:  # whiskers
            for side in (-1, 1):
                for lift in (-5, 2, 9):
                    self.line([(x + side * 14, y + lift), (x + side * 48, y + 1.5 * lift)], 1.2)

    def _mouth(self) -> None:
        """Shut it is a line, with or without lips; open, a dark shape with that line as its upper edge."""
        rng, figure, pose = self.rng, self.figure, self.figure.pose
        kind, lips, bend = rng.random(), rng.random() < 0.3, figure.mouth_drop * rng.uniform(-0.12, 0.3)
        width, cavity = rng.uniform(1.5, 5), ((110, 28, 40), (60, 16, 24), figure.ink)[rng.integers(3)]
        teeth, tongue = rng.random() < 0.4, rng.random() < 0.4
        rounding = min(1.0, max(0.0, pose.mouth_round))
        smile = max(-1.0, min(1.0, pose.smile))
        half = figure.mouth_half * max(0.42, 1 + 0.22 * pose.mouth_wide - 0.44 * rounding + 0.11 * smile)
        bend += 0.1 * figure.mouth_drop * smile
        (x, y), gap = figure.mouth, figure.gap_open
        top = y - 0.16 * gap
        upper = [(x - half, y - 0.5 * bend), (x - 0.5 * half, top + 0.3 * bend), (x, top + 0.5 * bend),
                 (x + 0.5 * half, top + 0.3 * bend), (x + half, y - 0.5 * bend)]  # fmt: skip
        if kind < 0.15:  # as cats have it
            upper = [(x + half * (i - 2) / 2, top + 0.2 * figure.mouth_half * math.cos(math.pi * i)) for i in range(5)]
        bottom = y + 0.5 * bend + 0.84 * gap
        lower = [(x + 0.6 * half, bottom - 0.2 * gap), (x, bottom), (x - 0.6 * half, bottom - 0.2 * gap)]
        if lips:
            thick = max(2.0, 0.22 * figure.mouth_half)
            rim = [upper[0], (x, top + 0.5 * bend - thick), upper[4], (x, bottom + 1.3 * thick)]
            color = (200, 90, 95) if rng.random() < 0.5 else shade(figure.skin, 0.5)
            self.brush.fill(spline(rim, corners=frozenset({0, 2})), figure.color(color))
        if gap > 0.5:
            opening = spline([*upper, *lower], corners=frozenset({0, 4}))
            with self.brush.inside(opening):
                self.brush.fill(opening, cavity)
                if tongue:
                    self.brush.oval(x, bottom, 0.6 * half, 0.45 * gap, (212, 98, 104))
                if teeth:
                    self.brush.oval(x, top + 0.5 * bend, 0.8 * half, 0.22 * gap + 1, (255, 255, 255))
            self.brush.stroke(opening, figure.ink, width)
        else:
            self.line(upper, width)

    def _eye(self, kind: Callable[["_Painter", Point, int, Color], None], side: int, iris: Color) -> None:
        """Shutting lids flatten it to a line."""
        figure = self.figure
        (x, y), open_ = figure.eye(side), min(1.2, max(0.0, figure.pose.eye_open))
        if open_ < 0.15:
            size = 0.8 * figure.eye_size
            self.line([(x - size, y), (x, y + 0.15 * size), (x + size, y)])
            return
        self.brush.canvas.save()
        self.brush.canvas.translate(x, y)
        self.brush.canvas.scale(1, open_)
        kind(self, (figure.pose.gaze_x, figure.pose.gaze_y), side, iris)
        self.brush.canvas.restore()

    def _brows(self) -> None:
        rng, figure, pose = self.rng, self.figure, self.figure.pose
        there, lift = rng.random() < 0.5, figure.eye_size * rng.uniform(1.1, 1.9)
        tilt, width = rng.normal(0, 2.5) + 4 * max(0.0, pose.brow_frown) / figure.scale, rng.uniform(1.5, 5)
        lift += 4.8 * pose.brow_raise / figure.scale
        if not there:
            return
        for side in (-1, 1):
            (x, y), reach = figure.eye(side), figure.eye_size
            ends = [(x - side * reach, y - lift + tilt), (x, y - lift - 2), (x + side * reach, y - lift - tilt)]
            self.line(ends, width)

    def _fringe(self, hair: Color) -> None:
        """Never as low as the eyes."""
        rng, figure = self.rng, self.figure
        low = min(-0.35, (figure.eye_y - 1.3 * figure.eye_size - figure.middle[1]) / figure.half[1])
        count = int(rng.integers(2, 7))
        depth = [0.3 * rng.random() for _ in range(2 * count + 1)]
        edge = [(1.03 - 1.03 * i / count, low - (depth[i] if i % 2 else 0.0)) for i in range(2 * count + 1)]
        corners = frozenset(range(len(edge))) if rng.random() < 0.5 else frozenset({0, len(edge) - 1})
        self._form([*edge, (-0.75, -0.85), (0, -1.12), (0.75, -0.85)], hair, corners)


def _dot(painter: _Painter, gaze: Point, side: int, iris: Color) -> None:
    radius = max(2.5, 0.4 * painter.figure.eye_size)
    painter.brush.oval(0.5 * radius * gaze[0], 0.4 * radius * gaze[1], radius, radius * 1.2, painter.figure.ink)


def _oval(painter: _Painter, gaze: Point, side: int, iris: Color) -> None:
    size = painter.figure.eye_size
    painter.brush.oval(0.2 * size * gaze[0], 0.15 * size * gaze[1], 0.45 * size, 0.85 * size, painter.figure.ink)


def _goggle(painter: _Painter, gaze: Point, side: int, iris: Color) -> None:
    size = painter.figure.eye_size
    painter.oval((0, 0), size, size, (255, 255, 255))
    at = (size * (0.5 * gaze[0] - 0.2 * side), size * (0.1 + 0.5 * gaze[1]))
    painter.brush.oval(*at, 0.25 * size, 0.25 * size, painter.figure.ink)


def _iris(painter: _Painter, gaze: Point, side: int, iris: Color) -> None:
    size, figure = painter.figure.eye_size, painter.figure
    painter.oval((0, 0), size, 0.72 * size, (255, 255, 255))
    x, y = 0.34 * size * gaze[0], 0.2 * size * gaze[1]
    painter.brush.oval(x, y, 0.5 * size, 0.62 * size, shade(figure.color(figure.skin), 0.7))
    painter.brush.oval(x, y, 0.26 * size, 0.32 * size, figure.ink)
    painter.brush.oval(x + 0.2 * size, y - 0.25 * size, 0.15 * size, 0.15 * size, (255, 255, 255))


def _tall(painter: _Painter, gaze: Point, side: int, iris: Color) -> None:
    size = painter.figure.eye_size
    painter.brush.oval(0, 0, 0.85 * size, size, (255, 255, 255))
    x, y = 0.2 * size * gaze[0], 0.1 * size * gaze[1]
    painter.brush.oval(x, y + 0.05 * size, 0.62 * size, 0.92 * size, iris)
    painter.brush.oval(x, y + 0.1 * size, 0.32 * size, 0.5 * size, painter.figure.ink)
    painter.brush.oval(x - 0.2 * size, y - 0.4 * size, 0.2 * size, 0.25 * size, (255, 255, 255))
    lid = [(-0.85 * size, -0.5 * size), (0.0, -1.05 * size), (0.85 * size, -0.5 * size)]
    painter.line(lid, max(2.0, 0.16 * size))


def _happy(painter: _Painter, gaze: Point, side: int, iris: Color) -> None:
    size = 0.8 * painter.figure.eye_size
    bend = size * (0.8 if painter.figure.gap > 0.38 * painter.figure.half[0] else -0.5)
    painter.line([(-size, 0.4 * bend), (0.0, -0.6 * bend), (size, 0.4 * bend)])


def _slit(painter: _Painter, gaze: Point, side: int, iris: Color) -> None:
    size = painter.figure.eye_size
    painter.oval((0, 0), 0.8 * size, 0.9 * size, iris)
    painter.brush.oval(0.3 * size * gaze[0], 0.0, 0.22 * size, 0.75 * size, painter.figure.ink)


_EYES = (_dot, _oval, _goggle, _iris, _iris, _tall, _tall, _happy, _slit)
