"""Cuts a picture so that eyes and mouth come to lie where a model has learned to have them."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from talkingmachines.framing.finder import FaceFinder, face_size
from talkingmachines.media.image import fit_image
from talkingmachines.types import View

Point = tuple[float, float]

_WEIGHTS = np.array([[1], [1], [4]]) / 6
"""How much eyes and mouth count: a mouth that is elsewhere does not speak."""

_BLUR = 1 / 24
"""Of what is drawn out around a picture, over the side of the cut."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Framing:
    """What is made of a picture, both uint8 [height, width, 3]. pixels: what a model is given, and makes its video
    like; shown: what is seen of the picture in that video. view: where in `pixels` that lies; None: it is the same.
    """

    pixels: np.ndarray
    shown: np.ndarray
    view: View | None = None

    def whole(self, frames: np.ndarray) -> np.ndarray:
        """Frames [T, height, width, 3] uint8 as they are shown -> as large as a model has made them, in `pixels`."""
        if self.view is None:
            return frames
        left, top, right, bottom = self.view
        whole = np.repeat(self.pixels[None], len(frames), 0)
        for frame, shown in zip(whole, frames, strict=True):
            small = Image.fromarray(shown).resize((right - left, bottom - top), Image.Resampling.LANCZOS)
            frame[top:bottom, left:right] = np.asarray(small)
        return whole


Fit = Callable[[np.ndarray], Framing]
"""Of a picture uint8 [H, W, 3] of any size."""


def fit_centre(picture: np.ndarray, size: int | tuple[int, int]) -> Framing:
    """The largest centred part of a picture uint8 [H, W, 3], see media.fit_image."""
    fitted = fit_image(picture, size)
    return Framing(fitted, fitted)


@dataclass(frozen=True)
class FacePlaces:
    """Where the faces lie that a model has learned with, (x, y) in fractions of the picture; left as seen.

    reach: how far to the side, and up or down, the mouths lay from there, in fractions; scale: by what factor the faces
    were larger or smaller.
    """

    left_eye: Point
    right_eye: Point
    mouth: Point
    reach: Point
    scale: float

    def array(self) -> np.ndarray:
        """[3, 2]."""
        return np.array([self.left_eye, self.right_eye, self.mouth])

    def fits(self, places: np.ndarray) -> bool:
        """Whether the model knows faces like that one. places: [3, 2] in fractions."""
        away = np.abs(places[2] - self.mouth)
        factor = face_size(places) / face_size(self.array())
        return bool((away <= self.reach).all()) and abs(math.log(factor)) <= math.log(self.scale)


def fit_face(picture: np.ndarray, finder: FaceFinder, wanted: FacePlaces, size: int) -> Framing:
    """The part of a picture uint8 [H, W, 3] in which the face is where it is wanted, [size, size, 3].

    What lies outside of the picture are its edges, drawn out and blurred; none of that is shown. The largest centred
    part where the face is well placed in that, and where none is found, which is said in the log.
    """
    centred, goal = fit_centre(picture, size), wanted.array() * size
    near = finder.find_near(centred.pixels, goal)
    if near is not None and wanted.fits(near / size):
        return centred
    found = finder.find(picture)
    if found is None:
        log.warning(
            "no face was found in the picture, which is taken as it is: if the mouth does not speak, cut it so that "
            "the eyes are a little above its middle and the mouth is %.0f%% from the top",
            100 * wanted.mouth[1],
        )
        return centred
    height, width = picture.shape[:2]
    side = min(height, width)
    if wanted.fits((found - [(width - side) / 2, (height - side) / 2]) / side):
        return centred
    scale, shift = similarity(found, goal)
    left, top = (round(float(value)) for value in -shift)
    log.info("the picture is cut to the face: %.2f of its size, from %d,%d on", scale, left, top)
    return _window(picture, scale, left, top, size)


def similarity(places: np.ndarray, goal: np.ndarray, larger: float = 1.0) -> tuple[float, np.ndarray]:
    """scale, shift [2]: scale * places + shift is a face of the size of `goal`, or larger by a factor, as near to it as
    it gets. places, goal: [3, 2].
    """
    scale = larger * face_size(goal) / face_size(places)
    return scale, (_WEIGHTS * (goal - scale * places)).sum(0)


def _window(picture: np.ndarray, scale: float, left: int, top: int, size: int) -> Framing:
    """[size, size, 3] from left, top on of a picture that is made larger by `scale`."""
    height, width = picture.shape[:2]
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(round(scale * width), left + size), min(round(scale * height), top + size)
    inside = _part(picture, scale, (x0, y0, x1, y1), (x1 - x0, y1 - y0))
    if inside.shape[:2] == (size, size):
        return Framing(inside, inside)
    pads = ((y0 - top, top + size - y1), (x0 - left, left + size - x1))
    filled = Image.fromarray(np.pad(inside, (*pads, (0, 0)), mode="edge"))
    filled = filled.filter(ImageFilter.GaussianBlur(_BLUR * size))
    filled.paste(Image.fromarray(inside), (pads[1][0], pads[0][0]))
    side = min(inside.shape[:2])
    u, v = (min(max((size - side) // 2, before), size - after - side) for before, after in (pads[1], pads[0]))
    shown = _part(picture, scale, (left + u, top + v, left + u + side, top + v + side), (size, size))
    return Framing(np.array(filled), shown, (u, v, u + side, v + side))


def _part(picture: np.ndarray, scale: float, part: View, size: tuple[int, int]) -> np.ndarray:
    """A part of a picture that is made larger by `scale`, brought to a width and height."""
    height, width = picture.shape[:2]
    left, top, right, bottom = part
    box = (left / scale, top / scale, min(width, right / scale), min(height, bottom / scale))
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS, box))
