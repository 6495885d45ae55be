"""Cuts a picture so that eyes and mouth come to lie where a model has learned to have them."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from talkingmachines.framing.finder import FaceFinder, face_size
from talkingmachines.media.image import fit_image

Point = tuple[float, float]
Fit = Callable[[np.ndarray], np.ndarray]
"""A picture uint8 [H, W, 3] of any size in, what a video begins with out."""

_WEIGHTS = np.array([[1], [1], [4]]) / 6
"""How much eyes and mouth count: a mouth that is elsewhere does not speak."""

_BLUR = 1 / 24
"""Of what is drawn out around a picture, over the side of the cut."""

log = logging.getLogger(__name__)


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


def fit_face(picture: np.ndarray, finder: FaceFinder, wanted: FacePlaces, size: int) -> np.ndarray:
    """The part of a picture uint8 [H, W, 3] in which the face is where it is wanted, [size, size, 3].

    What lies outside of the picture are its edges, drawn out and blurred. The largest centred part (media.fit_image)
    where the face is well placed in that, and where none is found, which is said in the log.
    """
    fitted, goal = fit_image(picture, size), wanted.array() * size
    near = finder.find_near(fitted, goal)
    if near is not None and wanted.fits(near / size):
        return fitted
    found = finder.find(picture)
    if found is None:
        log.warning(
            "no face was found in the picture, which is taken as it is: if the mouth does not speak, cut it so that "
            "the eyes are a little above its middle and the mouth is %.0f%% from the top",
            100 * wanted.mouth[1],
        )
        return fitted
    height, width = picture.shape[:2]
    side = min(height, width)
    if wanted.fits((found - [(width - side) / 2, (height - side) / 2]) / side):
        return fitted
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


def _window(picture: np.ndarray, scale: float, left: int, top: int, size: int) -> np.ndarray:
    """[size, size, 3] from left, top on of a picture that is made larger by `scale`."""
    height, width = picture.shape[:2]
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(round(scale * width), left + size), min(round(scale * height), top + size)
    box = (x0 / scale, y0 / scale, min(width, x1 / scale), min(height, y1 / scale))
    inside = np.array(Image.fromarray(picture).resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS, box))
    if inside.shape[:2] == (size, size):
        return inside
    pads = ((y0 - top, top + size - y1), (x0 - left, left + size - x1))
    filled = Image.fromarray(np.pad(inside, (*pads, (0, 0)), mode="edge"))
    filled = filled.filter(ImageFilter.GaussianBlur(_BLUR * size))
    filled.paste(Image.fromarray(inside), (pads[1][0], pads[0][0]))
    return np.array(filled)
