"""Parts of the picture carried elsewhere."""

import pytest
import torch
from dit_models import SMALL, conditioning, noisy, random_model

from talkingmachines.dit.config import DiTConfig, RefinerConfig, WarpConfig
from talkingmachines.dit.warp import Warp
from talkingmachines.training.teacher import start_warp
from talkingmachines.vae.config import VAEConfig
from talkingmachines.vae.model import CausalVAE

FRAMES = 4


@pytest.fixture(name="warp")
def _warp() -> Warp:
    torch.manual_seed(0)
    return Warp(5, 2, 3).requires_grad_(False)


def flow_of(across: float, down: float, H: int = 6, W: int = 8) -> torch.Tensor:
    return torch.tensor([across, down]).repeat(FRAMES)[None, :, None, None].expand(2, -1, H, W)


def test_nothing_moves_nothing_changes(warp: Warp) -> None:
    assert warp(torch.randn(2, 5, 6, 8), flow_of(0, 0)).abs().max() < 1e-5


@pytest.mark.parametrize("across, down", [(1, 0), (0, 1), (-2, 3)])
def test_whole_points_are_taken_from_where_the_flow_says(warp: Warp, across: int, down: int) -> None:
    """Against a roll of the grid; away from the edges, where a roll brings in the other side."""
    latents = torch.randn(2, 5, 6, 8)
    grid = torch.nn.functional.pixel_shuffle(warp.open(latents), 2)
    change = torch.roll(grid, (-down, -across), (2, 3)) - grid
    expected = warp.close(change.repeat_interleave(FRAMES, 1))
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(warp(latents, flow_of(across, down))[inside], expected[inside], atol=1e-5, rtol=1e-5)


def test_each_video_frame_has_a_flow_of_its_own(warp: Warp) -> None:
    latents, flow = torch.randn(2, 5, 6, 8), torch.zeros(2, 2 * FRAMES, 6, 8)
    flow[:, 4] = 1
    grid = torch.nn.functional.pixel_shuffle(warp.open(latents), 2)
    change = torch.zeros(2, 3, FRAMES, 12, 16)
    change[:, :, 2] = torch.roll(grid, -1, 3) - grid
    inside = (..., slice(1, -1), slice(1, -1))
    expected = warp.close(change.flatten(1, 2))
    torch.testing.assert_close(warp(latents, flow)[inside], expected[inside], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_warp_begins_as_the_autoencoder_s_own_picture() -> None:
    """An autoencoder that is linear and keeps all that is still: moving in latents is moving the picture."""
    vae = CausalVAE(VAEConfig(192, 8, (8, 8), (1, 1), (8, 8), (1, 1)))
    basis = torch.linalg.qr(torch.randn(192, 192)).Q
    vae.decoder.linear.weight.copy_(basis.repeat(FRAMES, 1)[:, :, None, None])
    vae.encoder.linear.weight.copy_((basis / FRAMES).T.repeat(1, FRAMES)[:, :, None, None])
    vae.encoder.linear.bias.zero_()
    vae.decoder.linear.bias.zero_()
    vae.latent_std.copy_(torch.rand(192) + 0.5)
    config = DiTConfig(48, 64, 2, 1, 192, refiner=RefinerConfig(8, 1, 4, WarpConfig()))
    model = random_model(config)
    start_warp(model, vae)
    picture = torch.rand(1, 3, 40, 48) * 2 - 1
    before, after = (vae.encode_image(p) for p in (picture, torch.roll(picture, (3, -5), (2, 3))))
    made = before + model.refiner.warp(before, flow_of(5, -3, 5, 6)[:1])
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(made[inside], after[inside], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_what_is_given_is_not_moved() -> None:
    model, cond = random_model(SMALL), conditioning(SMALL)
    _, moved = model.with_warp(*noisy(cond), cond)
    assert torch.equal(moved[:, :, 0], cond.latents[:, :, 0])
    assert (moved - cond.latents)[:, :, 1:].abs().mean() > 1e-2
