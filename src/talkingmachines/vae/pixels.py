"""Pictures as the world sees them, and as the autoencoder does."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkingmachines.types import View


def to_unit(video: Tensor) -> Tensor:
    """uint8 [B, T, H, W, 3] -> float [B, 3, T, H, W] in [-1, 1]"""
    return video.movedim(-1, 1).float() / 127.5 - 1


def to_pixels(video: Tensor) -> Tensor:
    """float [B, 3, T, H, W] in [-1, 1] -> uint8 [B, T, H, W, 3]"""
    # In place from the first on: a chunk's pixels are 9 MB, and fresh memory costs more than the arithmetic.
    return video.float().clamp(-1, 1).add_(1).mul_(127.5).round_().byte().movedim(1, -1)


def to_tensor(pixels: np.ndarray) -> Tensor:
    """[H, W, 3] uint8 -> [1, 3, H, W] in [-1, 1]"""
    return to_unit(torch.from_numpy(np.array(pixels))[None])


def to_frames(video: Tensor, view: View | None = None) -> np.ndarray:
    """[1, 3, T, H, W] in [-1, 1] -> [T, H, W, 3] uint8; with view, that part alone, as large as the whole."""
    pixels = to_pixels(video)[0].cpu()
    if view is not None:
        left, top, right, bottom = view
        part = pixels[:, top:bottom, left:right].contiguous().movedim(-1, 1)
        # Bytes that lie pixel by pixel take an eighth of the time that numbers do.
        pixels = F.interpolate(part, pixels.shape[1:3], mode="bicubic", antialias=True).movedim(1, -1)
    return pixels.numpy()
