import torch
from torch.utils.data import Dataset

from talkingmachines.training.autoencoder import (
    AutoencoderRecipe,
    EncoderStage,
    calibrate,
    movement,
    reconstruction_losses,
)
from talkingmachines.vae.config import VAEConfig
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.pca import start_from_pca
from talkingmachines.vae.pixels import to_pixels, to_unit


def test_calibrated_latents_have_mean_0_power_1_and_equal_steps() -> None:
    torch.manual_seed(0)
    vae = CausalVAE(VAEConfig(4, 8, (8, 8), (1, 1), (8, 8), (1, 1))).eval()
    video = torch.rand(2, 3, 9, 32, 32) * 2 - 1
    with torch.no_grad():
        calibrate(vae, vae.encode(video))
        latents = vae.encode(video)
        torch.testing.assert_close(latents.mean(dim=(0, 2, 3, 4)), torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(latents.square().mean(), torch.tensor(1.0), atol=2e-2, rtol=0)
        steps = []
        for channel in range(4):
            stepped = torch.zeros(1, 4, 1, 1, 1)
            stepped[:, channel] = 1
            raw = stepped * vae.latent_std[None, :, None, None, None]
            steps.append(vae.decoder.linear(raw[:, :, 0]) - vae.decoder.linear(torch.zeros(1, 4, 1, 1)))
        norms = torch.stack([step.norm() for step in steps])
        torch.testing.assert_close(norms, norms.mean().expand(4))


class Noise(Dataset[dict[str, torch.Tensor]]):
    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(step)
        return {"video": torch.randint(0, 256, (2, 5, 32, 32, 3), dtype=torch.uint8, generator=random)}


def test_the_correction_alone_learns_and_begins_with_a_step_that_helps() -> None:
    torch.manual_seed(0)
    vae, batches = CausalVAE(VAEConfig(4, 8, (8, 8), (1, 1), (8, 8), (1, 1))), Noise()
    start_from_pca(vae, to_unit(batches[0]["video"]).repeat(1, 1, 2, 1, 1)[:, :, :8])
    with torch.no_grad():
        vae.encoder.linear.weight.mul_(0.8)
    video = to_unit(batches[1]["video"])

    def error() -> float:
        return float((vae.decode(vae.encode(video)) - video).square().mean().detach())

    before = error()
    stage = EncoderStage(vae, AutoencoderRecipe(), batches)
    assert error() < before
    stage.losses(batches[2], torch.Generator().manual_seed(0))["loss"].backward()
    learning = {name for name, parameter in vae.named_parameters() if parameter.grad is not None}
    assert learning == {f"correction.{name}" for name, _ in vae.correction.named_parameters()}
    assert stage.sample_grid(vae).ndim == 3
    vae.correction.linear.weight.data += 0.1
    learned = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    EncoderStage(vae, AutoencoderRecipe(), batches)
    assert all(torch.equal(tensor, learned[name]) for name, tensor in vae.state_dict().items()), "it goes on from there"
    assert {name for name, parameter in vae.named_parameters() if parameter.requires_grad} == learning


def test_losses_by_hand() -> None:
    """One frame is off by 0.5: its own error, and the two changes beside it, one of them at a latent border."""
    true = torch.zeros(1, 3, 9, 8, 8)
    made = true.clone()
    made[:, :, 4] = 0.5
    losses = reconstruction_losses(made, true, AutoencoderRecipe(border=3.0))
    torch.testing.assert_close(losses["mse"].item(), 0.25 / 9)
    torch.testing.assert_close(losses["edges"].item(), 0.5 / 9)
    torch.testing.assert_close(losses["motion"].item(), (0.25 * 1 + 0.25 * 3) / 8)


def test_spread_counts_motion_inside_latent_frames_that_is_missing_not_which_way_it_goes() -> None:
    true = torch.zeros(1, 3, 9, 16, 16)
    true[:, :, 1::2] = 0.2
    border = torch.zeros_like(true)
    border[:, :, 1:5] = 0.2
    losses = [reconstruction_losses(made, true, AutoencoderRecipe()) for made in (true, -true, border)]
    assert losses[0]["spread"] == losses[1]["spread"] == 0
    torch.testing.assert_close(losses[2]["spread"].item(), 0.2**2, rtol=0.1, atol=0)
    weighed = reconstruction_losses(border, true, AutoencoderRecipe(spread=3.0))
    torch.testing.assert_close(weighed["loss"] - losses[2]["loss"], 3 * losses[2]["spread"])


def test_errors_count_more_where_and_when_the_picture_moves() -> None:
    true = torch.zeros(1, 3, 5, 16, 16)
    true[:, :, 3:, 8, 8] = 2.0
    weight = movement(true)
    assert weight.shape == (1, 1, 5, 16, 16)
    assert weight[0, 0, 2, 8, 8] == weight[0, 0, 3, 10, 6] == 1
    assert not weight[0, 0, 0].any() and not weight[0, 0, 4].any() and weight[0, 0, 3, 8, 11] == 0


def test_pixels_round_trip() -> None:
    video = torch.randint(0, 256, (2, 5, 8, 8, 3), dtype=torch.uint8)
    assert torch.equal(to_pixels(to_unit(video)), video)
