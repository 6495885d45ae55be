"""What a character does beside speaking, learned from motion tracks and what is heard with them."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from talkingmachines.encoders.gestures import NOISE, Gestures
from talkingmachines.encoders.hearing import Hearing
from talkingmachines.training.randomness import normal


class GesturesStage:
    """Batches: mel [B, T, C], gestures [B, T, G]. hearing stays as it is."""

    name = "gestures"

    def __init__(self, model: Gestures, hearing: Hearing, batches: Dataset[dict[str, Tensor]]) -> None:
        self.model: nn.Module = model
        self.hearing, self.batches = hearing.requires_grad_(False), batches

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(self.model, Gestures)
        heard, gestures = self.hearing.of_mel(batch["mel"]), batch["gestures"]
        noise = NOISE * torch.rand(len(gestures), generator=generator).to(gestures).square()
        wrong = normal(gestures.shape, gestures, generator)
        known = gestures + noise[:, None, None] * wrong
        last, before = known[:, 1:-1], known[:, :-2]
        mixture, _ = self.model(heard[:, 2:], last, before, None, noise)
        return {"loss": mixture.nll(gestures[:, 2:]).mean()}

    @torch.no_grad()
    def sample_grid(self, model: nn.Module) -> np.ndarray:
        """Of four clips as grey bars, a row each gesture: true above, drawn below."""
        assert isinstance(model, Gestures)
        device = next(model.parameters()).device
        batch = {name: tensor[:4].to(device) for name, tensor in self.batches[0].items()}
        generator = torch.Generator(device).manual_seed(0)
        drawn, _ = model.draw(self.hearing.of_mel(batch["mel"]), model.start(generator, 4), generator)
        rows = torch.cat([batch["gestures"] - batch["gestures"][:, :1], drawn], 2).transpose(1, 2).flatten(0, 1)
        grey = (127 + 40 * rows).clamp(0, 255).byte().repeat_interleave(8, 0).repeat_interleave(2, 1)
        return grey[..., None].expand(-1, -1, 3).cpu().numpy()
