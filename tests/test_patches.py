"""Patches against torch's convolution."""

import pytest
import torch
from torch.nn import functional as F

from talkingmachines.patches import convolve_patches


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "size"), [(12, 8), (16, 8), (3, 8), (12, 4)])
def test_as_a_convolution(channels: int, size: int, dtype: torch.dtype) -> None:
    """In float32 torch's is right; its bfloat16 for 12 channels of 8 x 8 is not, on some processors."""
    g = torch.Generator().manual_seed(0)
    x, bias = torch.randn(2, channels, 32, 64, generator=g), torch.randn(5, generator=g)
    weight = torch.randn(5, channels, size, size, generator=g) / size
    wanted = F.conv2d(x, weight, bias, stride=size)
    made = convolve_patches(x.to(dtype), weight.to(dtype), bias.to(dtype))
    assert made.dtype == dtype and made.is_contiguous(memory_format=torch.channels_last)
    assert (made.float() - wanted).norm() / wanted.norm() < (1e-5 if dtype == torch.float32 else 0.01)
