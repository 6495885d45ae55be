"""Patches against torch's convolution and shuffles."""

import pytest
import torch
from torch.nn import functional as F

from talkingmachines.patches import convolve_patches, from_patches, permute_runs, to_patches


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
@pytest.mark.parametrize("run", [1, 2, 4, 8, 16])
def test_runs_keep_every_bit(run: int, dtype: torch.dtype) -> None:
    """Moved as numbers of another kind, whatever these mean; of float32 some bits are no number."""
    bits = torch.randint(256, (2, 3, 4, run * dtype.itemsize), dtype=torch.uint8, generator=torch.Generator())
    x = bits.view(dtype)
    made = permute_runs(x, 2, 0, 1)
    assert made.dtype == dtype and made.is_contiguous()
    assert torch.equal(made.view(torch.uint8), bits.permute(2, 0, 1, 3))


def test_runs_of_tensors_that_are_not_contiguous() -> None:
    x = torch.randn(2, 8, 3, 5)[..., 1:].transpose(1, 3)[..., :4]
    assert torch.equal(permute_runs(x, 1, 2, 0), x.permute(1, 2, 0, 3))
    late = torch.randn(33)[1:].view(2, 4, 4)
    assert torch.equal(permute_runs(late, 1, 0), late.transpose(0, 1))


@pytest.mark.parametrize("size", [2, 4, 8])
def test_patches_are_those_of_torch(size: int) -> None:
    x = torch.randn(2, 3, 4 * size, 5 * size)
    patches = to_patches(x, size)
    assert torch.equal(patches.movedim(-1, 1), F.pixel_unshuffle(x, size))
    assert torch.equal(from_patches(patches, size), x)


def test_gradients_flow_through_patches() -> None:
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    (weights := torch.randn(1, 2, 2, 32)).mul(to_patches(x, 4)).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, from_patches(weights, 4))
