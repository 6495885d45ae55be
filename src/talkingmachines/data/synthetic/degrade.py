"""Makes a drawn picture as soft and as slightly wrong as a small generative model would."""

import io

import numpy as np
from PIL import Image, ImageFilter

_BLOCK = 32
"""Pixels across what one token of a small transformer paints."""


def degrade(pixels: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """pixels, other: [H, W, 3] uint8, one character in two poses; the first stays the one that is mainly seen.

    Some pictures come back clean, most with a few faults: ghosts of the other pose, lost detail, wrong blocks,
    shifted colours, noise, compression. Returns [H, W, 3] uint8.
    """
    if rng.random() < 0.2:
        return pixels
    image: np.ndarray = pixels.astype(np.float32)
    if rng.random() < 0.35:
        image += rng.uniform(0.05, 0.35) * _some_blocks(image.shape, rng) * (other.astype(np.float32) - image)
    image = _lose_detail(image, rng)
    if rng.random() < 0.5:
        image = _spoil_blocks(image, rng)
    if rng.random() < 0.6:
        image = (image - 128) * rng.uniform(0.8, 1.2) + 128 + rng.normal(0, 8, 3)
    if rng.random() < 0.5:
        image += rng.normal(0, rng.uniform(1, 7), image.shape)
    spoilt = np.clip(image, 0, 255).astype(np.uint8)
    return _compress(spoilt, int(rng.integers(25, 90))) if rng.random() < 0.35 else spoilt


def _lose_detail(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        factor = rng.uniform(1.2, 2.6)
        small = (round(picture.width / factor), round(picture.height / factor))
        picture = picture.resize(small, Image.Resampling.BOX).resize(picture.size, Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.6)))
    return np.asarray(picture, np.float32)


def _spoil_blocks(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """In some blocks the detail is smoothed away, moved by a pixel, or of a wrong brightness."""
    smooth = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(rng.uniform(1.0, 2.5))
    )
    image = image + 0.8 * _some_blocks(image.shape, rng) * (np.asarray(smooth, np.float32) - image)
    moved = np.roll(image, tuple(rng.integers(-1, 2, 2)), (0, 1))
    image = image + _some_blocks(image.shape, rng) * (moved - image)
    return image + rng.normal(0, 6) * _some_blocks(image.shape, rng)


def _some_blocks(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """[H, W, 1] of 0 and 1: a grid of blocks at a random place, about a third of them on."""
    top, left = rng.integers(0, _BLOCK, 2)
    rows, columns = shape[0] // _BLOCK + 2, shape[1] // _BLOCK + 2
    grid = (rng.random((rows, columns)) < 0.35).astype(np.float32)
    full = grid.repeat(_BLOCK, 0).repeat(_BLOCK, 1)
    return full[top : top + shape[0], left : left + shape[1], None]


def _compress(pixels: np.ndarray, quality: int) -> np.ndarray:
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer).convert("RGB"))
