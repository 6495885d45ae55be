"""Stage 1: the causal autoencoder."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from talkingmachines.training.randomness import normal
from talkingmachines.vae.config import TEMPORAL_STRIDE
from talkingmachines.vae.model import PATCH, CausalVAE, Encoder
from talkingmachines.vae.pca import start_from_pca
from talkingmachines.vae.pixels import to_pixels, to_unit

_LEAST_MOVED = 1e-5
"""Mean square, less than half a grey level: where nothing moves the root has no slope."""


_FIRST_STEP = 0.3
"""Share of what the decoder misses that the linear encoder puts right, before the rest has learned anything."""


@dataclass(frozen=True)
class AutoencoderRecipe:
    """noise: the most that is added to the latents, so that the decoder forgives a denoiser's errors.

    motion: weight of the error of frame-to-frame differences; border: how much more it counts where one latent
    frame ends and the next begins, against flicker there. moving: how much more an error counts where the picture
    changes from black to white: mouth and eyes are small, and what one looks at.
    """

    noise: float = 0.1
    edges: float = 0.02
    motion: float = 0.5
    border: float = 3.0
    moving: float = 10.0
    spread: float = 0.0
    latent_penalty: float = 1e-4


def reconstruction_losses(made: Tensor, true: Tensor, recipe: AutoencoderRecipe) -> dict[str, Tensor]:
    """made, true: [B, 3, 1 + 4n, H, W] -> loss, and of what: mse, weighted (mse with `moving`), edges (mean
    absolute), motion, spread; and psnr."""
    error = made - true
    weighted = (1 + recipe.moving * movement(true)) * error.square()
    change = error.diff(dim=2).square().mean(dim=(0, 1, 3, 4))
    weight = torch.ones_like(change)
    weight[::TEMPORAL_STRIDE] = recipe.border
    mse, weighted, edges, motion = error.square().mean(), weighted.mean(), error.abs().mean(), (weight * change).mean()
    spread = (moved_inside(made) - moved_inside(true)).square().mean()
    loss = weighted + recipe.edges * edges + recipe.motion * motion + recipe.spread * spread
    parts = {"mse": mse, "weighted": weighted, "edges": edges, "motion": motion, "spread": spread}
    parts["psnr"] = -10 * (mse / 4).log10()
    return {"loss": loss} | {name: part.detach() for name, part in parts.items()}


def moved_inside(video: Tensor) -> Tensor:
    """[B, 3, 1 + 4n, H, W] -> [B, n, H / 8, W / 8]: root mean square of what changes from frame to frame inside each
    latent frame, in each patch."""
    inside = video.diff(dim=2).unflatten(2, (-1, TEMPORAL_STRIDE))[:, :, :, 1:]
    return (F.avg_pool2d(inside.square().mean(dim=(1, 3)), PATCH) + _LEAST_MOVED).sqrt()


def movement(video: Tensor) -> Tensor:
    """[B, 3, T, H, W] -> [B, 1, T, H, W] in [0, 1]: change of a pixel, or one near it, to a neighbouring frame."""
    change = F.pad(video.diff(dim=2).abs().amax(dim=1, keepdim=True) / 2, (0, 0, 0, 0, 1, 1))
    return F.max_pool3d(change, (2, 5, 5), stride=1, padding=(0, 2, 2))


class AutoencoderStage:
    """Learns to rebuild clips. Batches: {"video": uint8 [B, 1 + 4n, H, W, 3]}."""

    name = "vae"
    corrected = False
    """A correction that is still to learn changes nothing, and takes as long as all the rest."""

    def __init__(self, model: CausalVAE, recipe: AutoencoderRecipe, batches: Dataset[dict[str, Tensor]]) -> None:
        self.model: nn.Module = model
        self.recipe = recipe
        self.batches = batches

    def start(self, videos: Iterable[Tensor]) -> None:
        """Set the model to the linear autoencoder of batches of videos."""
        assert isinstance(self.model, CausalVAE)
        start_from_pca(self.model, torch.cat([to_unit(video)[:, :, 1:] for video in videos]))

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(self.model, CausalVAE)
        video = to_unit(batch["video"])
        latents = self.model.encode(video, self.corrected)
        sigma = self.recipe.noise * torch.rand(len(video), 1, 1, 1, 1, generator=generator)
        noise = normal(latents.shape, latents, generator)
        made = self.model.decode(latents + sigma.to(latents) * noise).float()
        losses = reconstruction_losses(made, video, self.recipe)
        penalty = latents.float().square().mean()
        loss = losses["loss"] + self.recipe.latent_penalty * penalty
        return losses | {"loss": loss, "power": penalty.detach()}

    def sample_grid(self, model: nn.Module) -> np.ndarray:
        """First, middle and last frame of four clips: true above, rebuilt below."""
        assert isinstance(model, CausalVAE)
        device = next(model.parameters()).device
        video = to_unit(self.batches[0]["video"][:4].to(device))
        made = model.decode(model.encode(video, self.corrected))
        picks = [0, video.shape[2] // 2, video.shape[2] - 1]
        rows = [to_pixels(v[:, :, picks]).flatten(0, 1).transpose(0, 1).flatten(1, 2) for v in (video, made)]
        return torch.cat(rows).cpu().numpy()


class EncoderStage(AutoencoderStage):
    """The encoder's correction alone learns what the decoder misses, and goes on with what it has learned before.
    Batches: as of AutoencoderStage."""

    name = "encoder"
    corrected = True

    def __init__(self, model: CausalVAE, recipe: AutoencoderRecipe, batches: Dataset[dict[str, Tensor]]) -> None:
        super().__init__(model.requires_grad_(False), recipe, batches)
        if not model.correction.linear.weight.any():  # it has learned nothing yet
            model.correction = Encoder(model.config)
            with torch.no_grad():
                model.correction.linear.weight.copy_(_FIRST_STEP * model.encoder.linear.weight)
                model.correction.linear.bias.zero_()  # type: ignore[union-attr]
        model.correction.requires_grad_(True)


@torch.no_grad()
def calibrate(model: CausalVAE, latents: Tensor) -> None:
    """Set the latent normalisation from raw `latents` [B, C, F, h, w], made before any normalisation was set.

    Afterwards the mean is 0, the mean square over all channels is 1, and equal steps in any channel change the
    picture equally (by the decoder's linear path). White latents would ask a denoiser for every fine detail as loudly
    as for the shape of the mouth.
    """
    model.latent_mean.copy_(latents.mean(dim=(0, 2, 3, 4)))
    effect = model.decoder.linear.weight.flatten(2).norm(dim=(0, 2))
    spread = latents.std(dim=(0, 2, 3, 4)) * effect
    model.latent_std.copy_(spread.square().mean().sqrt() / effect)
