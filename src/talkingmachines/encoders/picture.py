"""Pictures as Wan sees them: CLIP ViT-H/14, the last layer but one, 257 tokens of 1280."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(picture: np.ndarray, size: int = 224) -> Tensor:
    """[H, W, 3] uint8 -> [1, 3, size, size], normalised as CLIP is.

    The whole picture is squeezed to a square, bicubically and without a filter, because Wan was trained so.
    """
    pixels = torch.from_numpy(np.array(picture)).movedim(-1, 0)[None].float() / 255
    pixels = F.interpolate(pixels, (size, size), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (pixels - mean) / std


@torch.no_grad()
def embed_picture(model: Any, picture: np.ndarray) -> Tensor:
    """[1, 257, 1280] of a CLIPVisionModel: its class token and patches before the last layer."""
    pixels = clip_pixels(picture, model.config.image_size).to(model.device, model.dtype)
    return model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
