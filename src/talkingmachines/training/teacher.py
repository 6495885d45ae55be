"""Stage 4: the bidirectional teacher, by flow matching (Lipman et al. 2023) on coded clips."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.utils.data import Dataset

from talkingmachines.audio.alignment import audio_windows
from talkingmachines.dit.conditioning import Conditioning
from talkingmachines.dit.model import DiT
from talkingmachines.flow.path import add_noise
from talkingmachines.flow.sampler import sample
from talkingmachines.flow.schedule import sampling_sigmas, training_sigmas
from talkingmachines.precision import sent
from talkingmachines.training.passes import Passes, plain_passes
from talkingmachines.training.randomness import normal
from talkingmachines.vae.config import TEMPORAL_STRIDE
from talkingmachines.vae.model import PATCH, CausalVAE
from talkingmachines.vae.pixels import to_pixels

WARP = 0.25
"""What the error of the warp alone counts. It learns little from the whole, where all else mends what it leaves."""


@dataclass(frozen=True)
class TeacherRecipe:
    """audio_dropout: share of samples that hear nothing, for guidance; shift: of the training sigmas, of which a fifth
    lie above 0.95: there a clip's motion is decided, and there students work.

    motion_std: how far latents move from the reference, about; the unit in which errors of x0 are counted. They
    count the same at every sigma: a velocity's own weight, 1 / sigma^2, would spend a small model on the last,
    invisible noise instead of on the shape of the mouth.
    """

    audio_dropout: float = 0.1
    shift: float = 8.0
    motion_std: float = 0.3


class TeacherStage:
    """Learns the velocity of clips' latents.

    Batches: latents [B, C, F, h, w]; reference [B, C, h, w]; known [B], how many of the first latent frames are
    given; features [B, 1 + 4(F - 1), A]; modes [B, F]; weight [B, F, h, w], how much an error counts where.
    """

    name = "teacher"

    def __init__(
        self,
        model: DiT,
        recipe: TeacherRecipe,
        batches: Dataset[dict[str, Tensor]],
        vae: CausalVAE,
        passes: Passes = plain_passes,
    ) -> None:
        self.model: nn.Module = model
        self.recipe = recipe
        self.batches = batches
        self.vae = vae
        self.passes = passes

    def conditioning(self, batch: dict[str, Tensor], heard: Tensor | None) -> Conditioning:
        """heard: bool [B], which samples hear their audio; None is all, over the whole picture."""
        assert isinstance(self.model, DiT)
        config = self.model.config
        assert config.audio is not None
        latents, reference = batch["latents"], batch["reference"]
        B, _, F, H, W = latents.shape
        given = (torch.arange(F, device=latents.device) < batch["known"][:, None]).to(latents)
        given = given[:, None, :, None, None]
        last = latents[torch.arange(B, device=latents.device), :, batch["known"] - 1]
        face_mask = None
        if heard is not None:
            face_mask = heard.to(latents)[:, None, None].expand(B, H // config.patch[1], W // config.patch[2])
        return Conditioning(
            latents=given * latents + (1 - given) * reference[:, :, None],
            mask=given.expand(B, config.mask_channels, F, H, W),
            audio=audio_windows(batch["features"], config.audio.window),
            mode=batch["modes"],
            face_mask=face_mask,
            previous=last[:, :, None].expand_as(latents),
        )

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        latents = batch["latents"]
        sigma = sent(training_sigmas(len(latents), self.recipe.shift, generator).to(latents.dtype), latents.device)
        noise = normal(latents.shape, latents, generator)
        heard = sent(torch.rand(len(latents), generator=generator), latents.device) >= self.recipe.audio_dropout
        cond = self.conditioning(batch, heard)
        assert isinstance(self.model, DiT)
        velocity, moved = self.passes(self.model, cond)(add_noise(latents, noise, sigma), sigma)
        weight = (1 - cond.mask[:, :1]) * batch["weight"][:, None]
        error = sigma.square() * (weight * (velocity.float() - (noise - latents)).square()).mean(dim=(1, 2, 3, 4))
        if moved is not None:
            error = error + WARP * (weight * (moved.float() - latents).square()).mean(dim=(1, 2, 3, 4))
        error = error / self.recipe.motion_std**2
        return {"loss": error.sum() / weight.mean(dim=(1, 2, 3, 4)).sum().clamp(min=1e-6)}

    def sample_grid(self, model: nn.Module) -> np.ndarray:
        """Every fourth frame of two clips: true above, made in 12 steps below."""
        assert isinstance(model, DiT)
        device = next(model.parameters()).device
        batch = {name: tensor[:2].to(device) for name, tensor in self.batches[0].items()}
        noise = normal(batch["latents"].shape, batch["latents"], torch.Generator().manual_seed(0))
        cond = model.prepare(self.conditioning(batch, None))
        made = sample(model, noise, sampling_sigmas(12, self.recipe.shift), cond)
        videos = [to_pixels(self.vae.decode(latents))[:, ::4] for latents in (batch["latents"], made)]
        rows = [video[clip].transpose(0, 1).flatten(1, 2) for clip in range(len(noise)) for video in videos]
        return torch.cat(rows).cpu().numpy()


@torch.no_grad()
def start_warp(model: DiT, vae: CausalVAE) -> None:
    """Let the grid that a model's warp moves be the picture itself, by the autoencoder's linear path; none: nothing."""
    warp = model.refiner.warp if model.config.refiner else None
    if warp is None:
        return
    points, std = PATCH // warp.fine, vae.latent_std[:, None, None, None]
    colours = vae.decoder.linear.weight.view(TEMPORAL_STRIDE, 3, PATCH, PATCH, -1).mean(0).permute(3, 0, 1, 2)
    opened = (std * avg_pool2d(colours, points)).permute(1, 2, 3, 0)
    patches = vae.encoder.linear.weight.view(-1, TEMPORAL_STRIDE, 3, PATCH, PATCH).transpose(1, 2).flatten(1, 2)
    warp.open.weight.copy_(opened.flatten(0, 2)[:, :, None, None])
    warp.close.weight.copy_(points**2 * avg_pool2d(patches, points) / std)
