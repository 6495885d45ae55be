"""Pictures as the world sees them, and as the autoencoder does."""

import numpy as np
import torch
from torch import Tensor


def to_tensor(pixels: np.ndarray) -> Tensor:
    """[H, W, 3] uint8 -> [1, 3, H, W] in [-1, 1]"""
    return torch.from_numpy(np.array(pixels)).movedim(-1, 0)[None].float() / 127.5 - 1


def to_frames(video: Tensor) -> np.ndarray:
    """[1, 3, T, H, W] in [-1, 1] -> [T, H, W, 3] uint8"""
    return ((video[0].float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(0, -1).cpu().numpy()
