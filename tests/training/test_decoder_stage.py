import torch
from distill_models import PRESET, Calls, model
from torch import Tensor

from talkingmachines.training.autoencoder import AutoencoderRecipe
from talkingmachines.training.decoder import DecoderStage
from talkingmachines.vae.model import CausalVAE


class DrawnCalls(Calls):
    def __getitem__(self, step: int) -> dict[str, Tensor]:
        batch = super().__getitem__(step)
        frames = PRESET.chunk.frames * PRESET.chunk.window
        side = 8 * batch["latents"].shape[-1]
        shape = (len(batch["latents"]), 1 + 4 * (frames - 1), side, side, 3)
        whole = torch.ones(len(batch["latents"]), *batch["latents"].shape[-2:], dtype=torch.bool)
        return batch | {"video": torch.randint(0, 256, shape, dtype=torch.uint8), "whole": whole}


def test_the_decoder_alone_learns_from_both_kinds_of_latents() -> None:
    torch.manual_seed(0)
    vae, student = CausalVAE(PRESET.vae), model(0).requires_grad_(False)
    stage = DecoderStage(vae, student, PRESET.chunk, AutoencoderRecipe(), DrawnCalls())
    said: set[str] = set()
    for seed in range(6):
        losses = stage.losses(stage.batches[seed], torch.Generator().manual_seed(seed))
        losses["loss"].backward()
        said |= set(losses)
    assert said == {"loss", "psnr_own", "psnr_made"}
    assert all(parameter.grad is None for parameter in [*vae.coders.parameters(), *student.parameters()])
    assert vae.decoder.linear.weight.grad is not None
    assert stage.sample_grid(vae).ndim == 3


def test_what_is_made_beside_a_cut_does_not_count() -> None:
    """Neither does what should be there."""
    torch.manual_seed(0)
    stage = DecoderStage(CausalVAE(PRESET.vae), model(0), PRESET.chunk, AutoencoderRecipe(spread=1), DrawnCalls())
    batch = stage.batches[0]
    batch["whole"][:, :, :2] = False

    def loss(column: int) -> float:
        other = batch | {"video": batch["video"].clone()}
        other["video"][:, :, :, column] = 255 - other["video"][:, :, :, column]
        return float(stage.losses(other, torch.Generator().manual_seed(0))["loss"].detach())

    assert loss(0) == loss(1) != loss(40)


def test_the_given_picture_is_never_the_students() -> None:
    torch.manual_seed(0)
    stage = DecoderStage(CausalVAE(PRESET.vae), model(0), PRESET.chunk, AutoencoderRecipe(), DrawnCalls())
    batch = stage.batches[0]
    made = stage._latents(batch, False, torch.Generator().manual_seed(0))
    torch.testing.assert_close(made[:, :, 0], batch["latents"][:, :, 0])
    assert (made[:, :, 1] - batch["latents"][:, :, 1]).abs().max() > 0.1
