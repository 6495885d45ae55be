"""Pictures with a face at any place and of any size, for what finds faces."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from talkingmachines.data.synthetic.character import sample_character
from talkingmachines.data.synthetic.clip import HELDOUT_CHARACTERS
from talkingmachines.data.synthetic.degrade import degrade
from talkingmachines.data.synthetic.looks import Look, draw_clip, places_of
from talkingmachines.data.synthetic.palettes import Color
from talkingmachines.data.synthetic.pose import Pose
from talkingmachines.data.synthetic.toon import Toon
from talkingmachines.framing.finder import SIDE, SIZES, face_size, middle

_TOONS = 0.5
_EMPTY = 0.1
"""Shares of pictures: of simple faces, and without any."""

_LARGEST = 700
"""Pixels across the largest drawing that a picture is cut from."""


@dataclass(frozen=True)
class FaceBatches(Dataset[dict[str, Tensor]]):
    """pixels uint8 [batch, SIDE, SIDE, 3]; places float32 [batch, 3, 2], (x, y) of left eye, right eye and mouth in
    pixels; seen bool [batch]: whether there is a face. Of training characters, or of held-out ones.
    """

    batch: int = 32
    seed: int = 0
    heldout: bool = False

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step, 29, self.heldout])
        samples = [self._sample(rng) for _ in range(self.batch)]
        pixels, places, seen = (np.stack(part) for part in zip(*samples, strict=True))
        return {"pixels": torch.from_numpy(pixels), "places": torch.from_numpy(places), "seen": torch.from_numpy(seen)}

    def _sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, bool]:
        size = math.exp(rng.uniform(*np.log(SIZES)))
        drawing, places = self._draw(rng, size)
        seen = bool(rng.random() >= _EMPTY)
        goal = rng.uniform(0.08, 0.92, 2) * SIDE
        if not seen:  # all of the face is beside the picture
            angle, away = rng.uniform(0, 2 * np.pi), SIDE / 2 + 1.6 * size
            goal = SIDE / 2 + away * np.array([np.cos(angle), np.sin(angle)]) / max(
                abs(np.cos(angle)), abs(np.sin(angle))
            )
        pixels, places = _put(rng, drawing, places, goal)
        pixels = restyle(pixels, rng)
        return degrade(pixels, pixels, rng), places.astype(np.float32), seen

    def _draw(self, rng: np.random.Generator, size: float) -> tuple[np.ndarray, np.ndarray]:
        """A drawing whose face is of that size, and its places, in pixels."""
        seed = int(rng.integers(*(0, HELDOUT_CHARACTERS) if self.heldout else (HELDOUT_CHARACTERS, 2**31)))
        look: Look = Toon(seed) if rng.random() < _TOONS else sample_character(seed)
        pose = _any_pose(rng)
        places = np.array(places_of(look, pose), np.float32)
        across = int(np.clip(size / face_size(places), 24, _LARGEST))
        return draw_clip(look, pose.to_row()[None], across)[0], places * across


def _any_pose(rng: np.random.Generator) -> Pose:
    return Pose(
        mouth_open=float(rng.uniform(0, 1) * (rng.random() < 0.4)),
        mouth_wide=float(rng.uniform(-0.6, 0.8)),
        mouth_round=float(rng.uniform(0, 1) * (rng.random() < 0.2)),
        teeth=float(rng.random()),
        smile=float(rng.uniform(-0.6, 0.9)),
        eye_open=float(rng.uniform(0.6, 1.2) if rng.random() < 0.9 else 0.0),
        gaze_x=float(rng.uniform(-0.9, 0.9)),
        gaze_y=float(rng.uniform(-0.7, 0.7)),
        brow_raise=float(rng.uniform(-0.6, 0.9)),
        head_yaw=float(rng.uniform(-0.8, 0.8)),
        head_pitch=float(rng.uniform(-0.6, 0.6)),
    )


def _put(
    rng: np.random.Generator, drawing: np.ndarray, places: np.ndarray, goal: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A picture of SIDE pixels in which the middle of the face is at `goal`, turned a little, before something else."""
    angle = rng.normal(0, 0.12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = middle(places)
    back = turn.T
    offset = centre - back @ goal
    coefficients = (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1])
    image = Image.fromarray(drawing).convert("RGBA")
    moved = image.transform((SIDE, SIDE), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    kind = rng.random()
    if kind < 0.4:
        below = Image.new("RGBA", (SIDE, SIDE), (*(int(v) for v in rng.integers(0, 256, 3)), 255))
    elif kind < 0.8:  # the drawing's own colours, as far as its edges go
        below = image.resize((SIDE, SIDE)).filter(ImageFilter.GaussianBlur(SIDE / 8))
    else:
        below = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).convert("RGBA")
        below = below.resize((SIDE, SIDE), Image.Resampling.NEAREST if kind < 0.9 else Image.Resampling.BICUBIC)
    return np.asarray(Image.alpha_composite(below, moved).convert("RGB")), (places - centre) @ turn.T + goal


def restyle(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same drawing in another manner: colours, grey, ink, few shades. pixels: [H, W, 3] uint8, as what returns."""
    image = Image.fromarray(pixels)
    kind = rng.random()
    if kind < 0.15:
        image = ImageOps.grayscale(image).convert("RGB")
    elif kind < 0.25:  # ink on paper
        edges = ImageOps.grayscale(image).filter(ImageFilter.FIND_EDGES)
        image = ImageOps.colorize(
            ImageOps.autocontrast(ImageOps.invert(edges)), _color(rng, 0, 80), _color(rng, 180, 256)
        )
    elif kind < 0.33:
        image = ImageOps.posterize(image, int(rng.integers(2, 5)))
    elif kind < 0.4:
        image = ImageOps.invert(image)
    elif kind < 0.55:
        image = Image.fromarray(np.ascontiguousarray(pixels[..., rng.permutation(3)]))
    elif kind < 0.65:  # sepia and the like
        image = ImageOps.colorize(ImageOps.grayscale(image), _color(rng, 0, 90), _color(rng, 150, 256))
    values = np.asarray(image, np.float32) / 255
    if rng.random() < 0.5:
        values = values ** math.exp(rng.normal(0, 0.3))
    if rng.random() < 0.3:  # light from one side
        ramp = np.linspace(-1, 1, values.shape[0])
        away = rng.normal(0, 0.2) * ramp[:, None] + rng.normal(0, 0.2) * ramp
        values = values * (1 + away[..., None])
    return (255 * values.clip(0, 1)).astype(np.uint8)


def _color(rng: np.random.Generator, low: int, high: int) -> Color:
    red, green, blue = (int(value) for value in rng.integers(low, high, 3))
    return red, green, blue
