"""Characters drawn with skia: one pose, or a clip of them."""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from talkingmachines.data.synthetic.brush import Brush, Point, load_skia, shade, tint
from talkingmachines.data.synthetic.character import Character
from talkingmachines.data.synthetic.draw_body import draw_body
from talkingmachines.data.synthetic.draw_eyes import draw_brow, draw_eye, draw_glasses
from talkingmachines.data.synthetic.draw_face import (
    draw_beard,
    draw_ears,
    draw_head,
    draw_lines,
    draw_moustache,
    draw_neck,
    draw_nose,
)
from talkingmachines.data.synthetic.draw_mouth import draw_mouth, mouth_bounds, mouth_middle
from talkingmachines.data.synthetic.draw_scene import draw_scene
from talkingmachines.data.synthetic.hair import Hair, build_hair
from talkingmachines.data.synthetic.pose import POSE_FIELDS, Pose
from talkingmachines.data.synthetic.skull import CENTRE, CHIN, Skull

_PIVOT = 70.0
"""The head rolls about a point this far below its middle: the top of the neck."""
_MASK_MARGIN = 2


def draw(character: Character, pose: Pose, size: int = 256) -> np.ndarray:
    """One picture, [size, size, 3] uint8 RGB. Deterministic. Raises MissingPackageError without skia."""
    return draw_clip(character, pose.to_row()[None], size)[0]


def draw_clip(character: Character, track: np.ndarray, size: int = 256) -> np.ndarray:
    """track: [T, len(POSE_FIELDS)] float32 -> pictures [T, size, size, 3] uint8 RGB."""
    if track.ndim != 2 or track.shape[1] != len(POSE_FIELDS):
        raise ValueError(f"the track has shape {track.shape}; it must be [frames, {len(POSE_FIELDS)}]")
    frames = np.empty((len(track), size, size, 3), np.uint8)
    scene = _scene(character, size)
    for frame, row in zip(frames, track, strict=True):
        pixels = scene.copy()
        _paint(pixels, character, Pose.from_row(row), with_body=True)
        frame[:] = pixels[..., :3]
    return frames


def head_mask(character: Character, pose: Pose, size: int = 256) -> np.ndarray:
    """[size, size] bool: the head with hair, ears, beard, glasses and neck, and 2 pixels around."""
    pixels = np.zeros((size, size, 4), np.uint8)
    _paint(pixels, character, pose, with_body=False)
    mask = pixels[..., 3] > 0
    for axis in (0, 1):
        grown = mask.copy()
        for step in range(1, _MASK_MARGIN + 1):
            for shift in (-step, step):
                grown |= _shifted(mask, shift, axis)
        mask = grown
    return mask


def _shifted(mask: np.ndarray, shift: int, axis: int) -> np.ndarray:
    moved = np.roll(mask, shift, axis)
    edge = [slice(None), slice(None)]
    edge[axis] = slice(0, shift) if shift > 0 else slice(shift, None)
    moved[tuple(edge)] = False
    return moved


def face_box(character: Character, pose: Pose) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 in fractions of the picture: from the forehead to the chin, from cheek to cheek."""
    skull = Skull(character, pose)
    half = skull.half_width(2.0)
    return _box(pose, (-half, -46.0, half, CHIN + skull.drop + 1.0))


def mouth_box(character: Character, pose: Pose) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 in fractions: the mouth at its widest and most open in this pose of the head."""
    return _box(pose, mouth_bounds(Skull(character, pose)))


def eyes_and_mouth(character: Character, pose: Pose) -> tuple[Point, Point, Point]:
    """The middles of left eye, right eye (as seen) and mouth, (x, y) in fractions of the picture."""
    skull = Skull(character, pose)
    left, right = (skull.place(side * character.eye_gap, character.eye_y, 0.06) for side in (-1, 1))
    return _fraction(pose, left), _fraction(pose, right), _fraction(pose, mouth_middle(skull))


def _fraction(pose: Pose, point: Point) -> Point:
    x, y = _to_picture(pose, *point)
    return x / 256, y / 256


def _box(pose: Pose, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    corners = [_to_picture(pose, x, y) for x in (x0, x1) for y in (y0, y1)]
    xs, ys = zip(*corners, strict=True)
    return min(xs) / 256, min(ys) / 256, max(xs) / 256, max(ys) / 256


def _to_picture(pose: Pose, x: float, y: float) -> tuple[float, float]:
    """From the coordinates of the head to those of a picture of 256 pixels."""
    sine, cosine = math.sin(pose.head_roll), math.cos(pose.head_roll)
    down = y - _PIVOT
    return (
        CENTRE[0] + 256 * pose.head_x + cosine * x - sine * down,
        CENTRE[1] + 256 * pose.head_y + _PIVOT + sine * x + cosine * down,
    )


@lru_cache(maxsize=32)
def _scene(character: Character, size: int) -> np.ndarray:
    """The background, [size, size, 4] uint8; not to be written to."""
    pixels = np.zeros((size, size, 4), np.uint8)
    canvas = _canvas(pixels)
    draw_scene(Brush(canvas, character.style, character.light), character)
    pixels.setflags(write=False)
    return pixels


@lru_cache(maxsize=32)
def _body(character: Character) -> Any:
    """The clothes as a recording: nothing in them changes from frame to frame."""
    recorder = load_skia().PictureRecorder()
    canvas = recorder.beginRecording(load_skia().Rect.MakeLTRB(-140, 150, 140, 330))
    draw_body(Brush(canvas, character.style, character.light), character)
    return recorder.finishRecordingAsPicture()


def _canvas(pixels: np.ndarray) -> Any:
    skia = load_skia()
    canvas = skia.Canvas(pixels, skia.kRGBA_8888_ColorType)
    canvas.scale(pixels.shape[1] / 256, pixels.shape[0] / 256)
    return canvas


def _paint(pixels: np.ndarray, look: Character, pose: Pose, *, with_body: bool) -> None:
    """Draws onto pixels, [size, size, 4] uint8, what they hold being the background."""
    canvas = _canvas(pixels)
    brush, skull = Brush(canvas, look.style, look.light), Skull(look, pose)
    hair = build_hair(skull)
    rise = -1.8 * pose.breath
    _enter_head(canvas, pose)
    _hair(brush, hair, front=False)
    canvas.restore()
    corners = (_to_picture(pose, -20, 38), _to_picture(pose, 20, 38), (152, 206 + rise), (104, 206 + rise))
    draw_neck(brush, look.skin, corners, _to_picture(pose, 6 * pose.head_yaw, CHIN + skull.drop))
    if with_body:
        canvas.save()
        canvas.translate(CENTRE[0], rise)
        canvas.drawPicture(_body(look))
        canvas.restore()
    _enter_head(canvas, pose)
    _face(brush, skull, hair)
    canvas.restore()


def _enter_head(canvas: Any, pose: Pose) -> None:
    canvas.save()
    canvas.translate(CENTRE[0] + 256 * pose.head_x, CENTRE[1] + 256 * pose.head_y + _PIVOT)
    canvas.rotate(math.degrees(pose.head_roll))
    canvas.translate(0, -_PIVOT)


def _face(brush: Brush, skull: Skull, hair: Hair) -> None:
    look = skull.character
    draw_ears(brush, skull)
    head = draw_head(brush, skull)
    draw_lines(brush, skull)
    draw_beard(brush, skull, head)
    _cast_shadow(brush, hair, head, look)
    draw_nose(brush, skull)
    draw_mouth(brush, skull)
    draw_moustache(brush, skull)
    for side in (-1, 1):
        draw_eye(brush, skull, side)
    _hair(brush, hair, front=True)
    for side in (-1, 1):
        draw_brow(brush, skull, side)
    draw_glasses(brush, skull)


def _cast_shadow(brush: Brush, hair: Hair, head: Any, look: Character) -> None:
    """What lies on the head darkens the skin just below it."""
    with brush.inside(head):
        for drop, alpha in ((2.0, 0.2), (4.0, 0.16), (6.0, 0.12)) if brush.rich else ((4.5, 0.34),):
            brush.canvas.save()
            brush.canvas.translate(-1.5 * brush.light, drop)
            for lock in hair.front:
                brush.fill(lock.path, shade(look.skin, 0.75), alpha)
            brush.canvas.restore()


def _hair(brush: Brush, hair: Hair, *, front: bool) -> None:
    for lock in hair.front if front else hair.back:
        bounds = lock.path.getBounds()
        brush.form(lock.path, lock.color, (-62, max(-84.0, bounds.top()), 62, min(100.0, bounds.bottom())), lock.depth)
    if front and hair.front:
        color = hair.front[0].color
        dark = sum(color) < 240
        for strand in hair.strands:
            brush.stroke(strand, tint(color, 0.22) if dark else shade(color, 0.6), 1.7, 0.5)
