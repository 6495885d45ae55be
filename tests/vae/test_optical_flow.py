"""Optical flow against motion that is known."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from talkingmachines.moving import move
from talkingmachines.vae.optical_flow import OpticalFlow, halved

SIZE = 128
"""Pixels of the picture of half the size."""


def picture() -> Tensor:
    """[1, 3, SIZE, SIZE], blobs of some pixels."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 3, SIZE // 8, SIZE // 8, generator=g)
    return F.interpolate(coarse, (SIZE, SIZE), mode="bicubic", antialias=True) / 2


def found_and_true(flow: Tensor) -> tuple[Tensor, Tensor]:
    """flow: [1, 2T, SIZE / 4, SIZE / 4]. Both without the margin, which may have come from outside."""
    still = picture()
    video = move(still, flow, 4)[0].transpose(0, 1)
    found = OpticalFlow.of(still).find(video)
    assert found.shape == flow.shape
    return found[..., 4:-4, 4:-4], flow[..., 4:-4, 4:-4]


@pytest.mark.parametrize("pixels", [0.25, 1.0, 4.0])
def test_what_is_shifted_is_found_where_it_has_come_from(pixels: float) -> None:
    """To a tenth of a pixel, to either side and up and down, in one frame each."""
    shifts = torch.tensor([[pixels, 0], [-pixels, 0], [0, pixels], [0, -pixels]])
    found, true = found_and_true(shifts.view(1, 8, 1, 1).expand(1, 8, SIZE // 4, SIZE // 4))
    assert (found - true).abs().median() < 0.1 and (found - true).abs().mean() < 0.2


def test_what_is_turned_and_made_larger_is_found_too() -> None:
    places = torch.arange(SIZE // 4) * 4 + 1.5 - SIZE / 2
    down, across = torch.meshgrid(places, places, indexing="ij")
    found, true = found_and_true(torch.stack([0.05 * across - 0.08 * down, 0.08 * across + 0.05 * down])[None])
    assert (found - true).abs().mean() < 0.15


def test_nothing_has_moved_where_nothing_tells() -> None:
    """A plain picture that gets lighter, and one that stays as it is."""
    plain = torch.zeros(1, 3, SIZE, SIZE)
    assert OpticalFlow.of(plain).find(plain + 0.1).abs().max() == 0
    assert OpticalFlow.of(picture()).find(picture()).abs().max() < 1e-3


def test_each_frame_by_itself() -> None:
    """So that a video is the same in chunks of any length."""
    g = torch.Generator().manual_seed(1)
    frames, flow = picture() + 0.1 * torch.randn(5, 3, SIZE, SIZE, generator=g), OpticalFlow.of(picture())
    alone = torch.cat([flow.find(frame[None]) for frame in frames], 1)
    torch.testing.assert_close(flow.find(frames), alone, atol=1e-4, rtol=0)


def test_halved_as_by_pooling() -> None:
    pictures = torch.randn(3, 2, 8, 12, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(halved(pictures), F.avg_pool2d(pictures, 2))
