"""Moving pictures against torch's own way of making a flow finer."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from talkingmachines.moving import move, sampling_grid


def reference(pictures: Tensor, flow: Tensor, scale: int) -> Tensor:
    """One copy after the other, in double precision."""
    pictures, flow = pictures.double(), flow.double()
    N, _, H, W = pictures.shape
    still = torch.eye(2, 3, dtype=torch.float64).expand(N, -1, -1)
    places = F.affine_grid(still, [N, 1, H, W], align_corners=False)
    moved = []
    for part in flow.split(2, 1):
        fine = F.interpolate(part, scale_factor=scale, mode="bilinear", align_corners=False).movedim(1, -1)
        taken = places + fine * torch.tensor([2 / W, 2 / H])
        moved.append(F.grid_sample(pictures, taken, padding_mode="border", align_corners=False))
    return torch.stack(moved, 2)


def example(K: int, scale: int, H: int = 5, W: int = 7) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(scale)
    return torch.randn(2, 3, H * scale, W * scale, generator=g), 3 * torch.randn(2, 2 * K, H, W, generator=g)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("K", [1, 4])
def test_as_by_the_definition(K: int, scale: int) -> None:
    """Flows that point out of the picture are among them."""
    pictures, flow = example(K, scale)
    torch.testing.assert_close(move(pictures, flow, scale), reference(pictures, flow, scale).float(), atol=1e-4, rtol=0)


def test_gradients_of_the_definition() -> None:
    pictures, flow = (part.double().requires_grad_() for part in example(2, 4, 3, 2))
    weights = torch.randn(2, 3, 2, 12, 8)
    made = torch.autograd.grad((move(pictures, flow, 4) * weights).sum(), (pictures, flow))
    wanted = torch.autograd.grad((reference(pictures, flow, 4) * weights).sum(), (pictures, flow))
    for gradient, other in zip(made, wanted, strict=True):
        assert (gradient - other).norm() / other.norm() < 1e-3


def test_no_flow_takes_every_place_from_where_it_is() -> None:
    pictures, flow = example(1, 4)
    torch.testing.assert_close(move(pictures, 0 * flow, 4).squeeze(2), pictures, atol=1e-4, rtol=0)
    assert sampling_grid(flow, 4).shape == (2, 1, 20, 28, 2)


def test_under_autocast_in_float32() -> None:
    pictures, flow = example(1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        made = move(pictures, flow, 4)
    assert made.dtype == torch.float32 and torch.equal(made, move(pictures, flow, 4))
