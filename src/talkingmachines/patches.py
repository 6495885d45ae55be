"""Convolutions of patches that do not overlap."""

from einops import rearrange
from torch import Tensor
from torch.nn import functional as F


def convolve_patches(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """conv2d of x [B, C, H, W] with weight [D, C, S, S] and a stride of S -> [B, D, H / S, W / S], channels last.

    A matrix product, as oneDNN's convolution cannot be trusted here: in bfloat16 on processors with AMX, torch 2.13's
    gives noise for 12 channels and S = 8.
    """
    size = weight.shape[-1]
    patches = rearrange(x, "B C (H p) (W q) -> B H W (C p q)", p=size, q=size)
    return F.linear(patches, weight.flatten(1), bias).movedim(-1, 1)
