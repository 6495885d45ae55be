"""Stage 2: what the transformer hears with, taught to hear before there are pictures.

The pocket has no pretrained speech encoder such as wav2vec2; reading the shapes of the mouth from speech is its school.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from talkingmachines.audio.alignment import FRAMES_PER_LATENT, audio_windows
from talkingmachines.dit.audio import AudioProjection
from talkingmachines.dit.config import AudioConfig


class MouthReader(nn.Module):
    """The transformer's audio projection, and a linear layer from its tokens to the mouth of 4 video frames."""

    def __init__(self, config: AudioConfig, fields: int) -> None:
        super().__init__()
        self.window, self.fields = config.window, fields
        self.projection = AudioProjection(config)
        self.out = nn.Linear(config.context_tokens * config.width, FRAMES_PER_LATENT * fields)

    def forward(self, features: Tensor) -> Tensor:
        """[B, 1 + 4n, C] -> [B, 1 + n, 4, fields]; of the first latent frame, which is one video frame, 4 times it."""
        tokens = self.projection(audio_windows(features, self.window))
        return self.out(tokens.flatten(2)).unflatten(-1, (FRAMES_PER_LATENT, self.fields))


class AudioStage:
    """Batches: features [B, 1 + 4n, C]; mouth [B, 1 + 4n, fields], the opening first."""

    name = "audio"

    def __init__(self, model: MouthReader, batches: Dataset[dict[str, Tensor]]) -> None:
        self.model: nn.Module = model
        self.batches = batches

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        made = self.model(batch["features"]).float()
        mouth = batch["mouth"]
        first = mouth[:, :1, None].expand(-1, -1, FRAMES_PER_LATENT, -1)
        true = torch.cat([first, mouth[:, 1:].unflatten(1, (-1, FRAMES_PER_LATENT))], 1)
        r = torch.corrcoef(torch.stack([made[..., 0].flatten(), true[..., 0].flatten()]).detach())[0, 1]
        return {"loss": (made - true).square().mean(), "r": r}

    def sample_grid(self, model: nn.Module) -> np.ndarray:
        """The opening of the mouth of four clips as grey bars: true above, heard below."""
        device = next(model.parameters()).device
        batch = {name: tensor[:4].to(device) for name, tensor in self.batches[0].items()}
        heard = model(batch["features"])[:, 1:, :, 0].flatten(1).float()
        rows = torch.stack([batch["mouth"][:, 1:, 0], heard], 1).flatten(0, 1).clamp(0, 1)
        grey = (255 * rows).byte().repeat_interleave(8, 0).repeat_interleave(4, 1)
        return grey[..., None].expand(-1, -1, 3).cpu().numpy()
