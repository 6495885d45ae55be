"""The last stage: the decoder learns what to make of the student's own latents.

They are a little blurred where the student is not sure, and say less than they should of what moves inside a latent
frame. Told the gestures of a real clip, it makes one close enough that the real frames can be the aim.

Latents are of whole pictures, and cut. At a cut the decoder misses what is beside, so what it makes there does not
count: it would learn to guess that, and guess at the edges of whole pictures too.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from talkingmachines.dit.model import DiT
from talkingmachines.flow.chunk import ChunkConfig
from talkingmachines.training.autoencoder import AutoencoderRecipe, reconstruction_losses
from talkingmachines.training.randomness import normal
from talkingmachines.training.rollout import Batch, Scene, heard_ahead, rollout
from talkingmachines.vae.model import PATCH, CausalVAE
from talkingmachines.vae.pixels import to_pixels, to_unit

OWN = 0.5
"""Share of the batches with the encoder's latents, so that pictures that were not made stay as sharp as they were."""


class DecoderStage:
    """Batches: see DrawnCalls, video of the first window. The encoder stays as it is."""

    name = "decoder"

    def __init__(
        self, model: CausalVAE, student: DiT, chunk: ChunkConfig, recipe: AutoencoderRecipe, batches: Dataset[Batch]
    ) -> None:
        model.coders.requires_grad_(False)
        self.model: nn.Module = model
        self.student, self.chunk, self.recipe, self.batches = student, chunk, recipe, batches

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(self.model, CausalVAE)
        own = float(torch.rand((), generator=generator)) < OWN
        latents = self._latents(batch, own, generator)
        video = to_unit(batch["video"])
        whole = batch["whole"][:, None, None].repeat_interleave(PATCH, 3).repeat_interleave(PATCH, 4)
        made = self.model.decode(latents).float().where(whole, video)
        losses = reconstruction_losses(made, video, self.recipe)
        return {"loss": losses["loss"], "psnr_own" if own else "psnr_made": losses["psnr"]}

    @torch.no_grad()
    def _latents(self, batch: Batch, own: bool, generator: torch.Generator) -> Tensor:
        """Of the first window: the encoder's, a little noisy, or those of the student's own call."""
        frames = self.chunk.frames * self.chunk.window
        latents = batch["latents"][:, :, :frames]
        if own:
            sigma = self.recipe.noise * torch.rand(len(latents), 1, 1, 1, 1, generator=generator).to(latents)
            return latents + sigma * normal(latents.shape, latents, generator)
        assert self.student.config.audio is not None
        scene = Scene.of(batch, self.student.config.audio.window, self.chunk.frames, heard_ahead(generator))
        last = self.chunk.steps - 1
        made, _ = rollout(self.student, self.chunk, scene, self.chunk.window, last, 1, generator)
        return made.to(latents)

    def sample_grid(self, model: nn.Module) -> np.ndarray:
        """Every fourth frame of two clips: true above, decoded from the student's latents below."""
        assert isinstance(model, CausalVAE)
        device = next(model.parameters()).device
        batch = {name: tensor[:2].to(device) for name, tensor in self.batches[0].items()}
        made = model.decode(self._latents(batch, False, torch.Generator().manual_seed(0)))
        rows = [to_pixels(v)[:, ::4].transpose(1, 2).flatten(2, 3) for v in (to_unit(batch["video"]), made)]
        return torch.cat([row.flatten(0, 1) for row in rows]).cpu().numpy()
