"""Pictures as patches that do not overlap, and back.

B batch, C channels, H W rows and columns, S rows and columns of a patch, h w = H / S and W / S.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_NUMBERS = {8: torch.int64, 16: torch.complex128}
"""Numbers as wide as so many bytes."""


def permute_runs(x: Tensor, *order: int) -> Tensor:
    """x.permute(*order, last axis), contiguous.

    On a processor runs along the last axis that are as wide as a number are moved as one: a third to a fifth of the
    time. Not where a gradient is to flow back through it.
    """
    number = _NUMBERS.get(x.shape[-1] * x.element_size())
    whole = x.is_contiguous() and x.storage_offset() % x.shape[-1] == 0
    if number is None or x.device.type != "cpu" or x.requires_grad or not whole:
        return x.permute(*order, x.dim() - 1).contiguous()
    return x.view(number).squeeze(-1).permute(order).contiguous().unsqueeze(-1).view(x.dtype)


def to_patches(x: Tensor, size: int) -> Tensor:
    """[B, C, H, W] -> [B, h, w, C * S * S], contiguous; S = `size`."""
    cells = x.unflatten(3, (-1, size)).unflatten(2, (-1, size))
    return permute_runs(cells, 0, 2, 4, 1, 3).flatten(3)


def from_patches(patches: Tensor, size: int) -> Tensor:
    """[B, h, w, C * S * S] -> [B, C, H, W], contiguous; S = `size`."""
    cells = patches.unflatten(3, (-1, size, size))
    return permute_runs(cells, 0, 3, 1, 4, 2).flatten(4).flatten(2, 3)


def convolve_patches(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """conv2d of x [B, C, H, W] with weight [D, C, S, S] and a stride of S -> [B, D, h, w], channels last.

    A matrix product, as oneDNN's convolution cannot be trusted here: in bfloat16 on processors with AMX, torch 2.13's
    gives noise for 12 channels and S = 8.
    """
    return F.linear(to_patches(x, weight.shape[-1]), weight.flatten(1), bias).movedim(-1, 1)
