"""Squares of coded clips around the face, and how much an error counts in each of their cells."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from talkingmachines.data.latents import LatentClips

CROPS, CROP_SHARES = (1 / 2, 3 / 4, 1), (0.5, 0.3, 0.2)
"""Sides of the squares that a teacher trains on, over the picture's, and how often each is drawn."""


def batch_squares(
    rng: np.random.Generator, clips: LatentClips, patch: int, batch: int, cuts: int = 1
) -> Iterator[tuple[int, slice, slice]]:
    """Clip, rows and columns of latent cells of each sample of a batch: squares of one size.

    As many as cost as much as `batch` of 3/4 of the picture's side. cuts: squares from each clip, one after the other.
    """
    crop = patch * max(1, round(clips.cells * rng.choice(CROPS, p=CROP_SHARES) / patch))
    count = max(1, round(batch * (0.75 * clips.cells / crop) ** 2))
    for done in range(0, count, cuts):
        index = int(rng.integers(clips.clips))
        for _ in range(min(cuts, count - done)):
            yield index, *_face_square(rng, clips.arrays["face"][index], crop, clips.cells, patch)


def stacked(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def _face_square(rng: np.random.Generator, face: np.ndarray, crop: int, cells: int, patch: int) -> tuple[slice, slice]:
    """A square on the grid of tokens around the face, give or take a token."""
    x0, y0, x1, y1 = (float(value) for value in face)
    middle = np.array([y0 + y1, x0 + x1]) / 2 * cells
    offset = patch * np.rint((middle - crop / 2) / patch + rng.uniform(-0.75, 0.75, 2)).astype(int)
    top, left = offset.clip(0, cells - crop)
    return slice(top, top + crop), slice(left, left + crop)


def crop_weight(clips: LatentClips, index: int, frames: int) -> np.ndarray:
    """[frames, cells, cells]: how much an error counts in each latent cell of a clip, and after its end.

    Most at the mouth, then at the eyes; more still in the few frames in which they shut, which an average over all
    frames would leave half open.
    """
    cells, known = clips.cells, clips.arrays["shut"][index][:frames]
    shut = np.zeros((frames, 2), bool)
    shut[: len(known)] = known
    weight = np.ones((frames, cells, cells), np.float32)
    face, mouth = clips.arrays["face"][index], clips.arrays["mouth"][index]
    x0, y0, x1, y1 = face
    eyes = np.array([x0, y0 + 0.18 * (y1 - y0), x1, y0 + 0.5 * (y1 - y0)])
    weight[:, *_box_cells(face, cells)] = 3
    weight[:, *_box_cells(eyes, cells)] = np.where(shut[:, 0], 18, 6)[:, None, None]
    weight[:, *_box_cells(mouth, cells)] = np.where(shut[:, 1], 60, 12)[:, None, None]
    return weight


def _box_cells(box: np.ndarray, cells: int) -> tuple[slice, slice]:
    """The latent cells of a box, with a margin of one for the head's motion."""
    x0, y0, x1, y1 = (float(value) * cells for value in box)
    return (
        slice(max(0, int(y0) - 1), min(cells, int(y1) + 2)),
        slice(max(0, int(x0) - 1), min(cells, int(x1) + 2)),
    )
