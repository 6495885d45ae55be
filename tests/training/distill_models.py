"""A small student, its teacher, and calls to learn from."""

import torch
from random_weights import randomise
from torch import Tensor
from torch.utils.data import Dataset

from talkingmachines.audio.alignment import frames_in
from talkingmachines.dit.model import DiT
from talkingmachines.presets import tiny
from talkingmachines.vae.model import CausalVAE

PRESET = tiny()
CHUNK = PRESET.chunk
CELLS = 8
LATENTS = 4 * CHUNK.frames


def model(seed: int = 0) -> DiT:
    made = DiT(PRESET.dit)
    randomise(made, seed)
    return made


def vae() -> CausalVAE:
    return CausalVAE(PRESET.vae).requires_grad_(False)


class Calls(Dataset[dict[str, Tensor]]):
    """Random calls, as CallBatches gives them."""

    def __init__(self, heard: int = 12, batch: int = 2) -> None:
        self.heard, self.batch = heard, batch

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(step)
        B = self.batch
        latents = torch.randn(B, PRESET.dit.latent_channels, LATENTS, CELLS, CELLS, generator=g)
        weight = torch.ones(B, self.heard, CELLS, CELLS)
        weight[:, :, 4:6, 2:6] = 12
        return {
            "latents": latents,
            "reference": latents[:, :, 0],
            "features": torch.randn(B, frames_in(self.heard), PRESET.dit.audio.feature_dim, generator=g),
            "modes": torch.randint(2, (B, self.heard), generator=g),
            "weight": weight,
        }
