"""Stage 2: what the transformer hears with, taught to hear before there are pictures.

The pocket has no pretrained speech encoder such as wav2vec2; reading the shapes of the mouth from speech is its school.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from talkingmachines.audio.alignment import FRAMES_PER_LATENT, audio_windows, num_latents
from talkingmachines.dit.audio import AudioProjection
from talkingmachines.dit.config import AudioConfig
from talkingmachines.encoders.hearing import Hearing, HearingConfig
from talkingmachines.training.figures import correlation

_OPENING = 3.0
"""How much more the opening of the mouth counts than each other thing that is read."""

_SHUT = 4.0
"""How much more a frame counts in which lips shut on p, b or m: there are few, and one sees them first."""


class MouthReader(nn.Module):
    """Hearing, the transformer's audio projection, and a linear layer from its tokens to what 4 video frames show."""

    def __init__(self, hearing: HearingConfig, audio: AudioConfig, fields: int) -> None:
        """fields: of the mouth, the opening first. Gestures fill the rest of the projection's features."""
        super().__init__()
        self.window, self.fields = audio.window, fields
        self.gestures = audio.feature_dim - hearing.dim
        self.hearing = Hearing(hearing)
        self.projection = AudioProjection(audio)
        self.out = nn.Linear(audio.context_tokens * audio.width, FRAMES_PER_LATENT * (fields + self.gestures))

    def forward(self, mel: Tensor, gestures: Tensor, chunk_ends: range | None = None) -> Tensor:
        """mel [B, 1 + 4n, C], gestures [B, 1 + 4n, G] -> [B, 1 + n, 4, fields + G]; chunk_ends: see audio_windows.

        Of the first latent frame, which is one video frame, 4 times it.
        """
        read = self.out(self.tokens(mel, gestures, chunk_ends).flatten(2))
        return read.unflatten(-1, (FRAMES_PER_LATENT, self.fields + self.gestures))

    def tokens(self, mel: Tensor, gestures: Tensor, chunk_ends: range | None = None) -> Tensor:
        """What the transformer is told, [B, 1 + n, context_tokens, width]; arguments as in forward."""
        features = torch.cat([self.hearing.of_mel(mel), gestures], 2)
        return self.projection(audio_windows(features, self.window, chunk_ends))


class AudioStage:
    """Batches: mel [B, 1 + 4n, C]; mouth [B, 1 + 4n, fields], the opening first; bilabial bool [B, 1 + 4n]; gestures
    [B, 1 + 4n, G], of which the changes since the first frame come in.

    chunk: latent frames of the student's chunks. In half of the steps nothing is heard that comes after a chunk.
    """

    name = "audio"

    def __init__(self, model: MouthReader, batches: Dataset[dict[str, Tensor]], chunk: int) -> None:
        self.model: nn.Module = model
        self.batches, self.chunk = batches, chunk

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        ends = None
        if torch.rand((), generator=generator) < 0.5:
            first = int(torch.randint(self.chunk, (), generator=generator))
            ends = range(first, num_latents(batch["mel"].shape[1]) + self.chunk, self.chunk)
        gestures = changes(batch["gestures"])
        made = self.model(batch["mel"], gestures, ends).float()
        true = by_latent_frame(torch.cat([batch["mouth"], gestures], 2))
        counts = by_latent_frame(1 + (_SHUT - 1) * batch["bilabial"][..., None])
        error = (counts * (made - true).square()).mean(dim=(0, 1, 2)) / counts.mean()
        fields = batch["mouth"].shape[2]
        weight = torch.ones_like(error[:fields])
        weight[0] = _OPENING
        r = correlation(made[..., 0], true[..., 0])
        loss = (weight * error[:fields]).sum() / weight.sum()
        passed = error[fields:].mean()
        return {"loss": loss + 0.1 * passed, "mouth": loss.detach(), "gestures": passed.detach(), "r": r}

    def sample_grid(self, model: nn.Module) -> np.ndarray:
        """The opening of the mouth of four clips as grey bars: true above, heard below."""
        device = next(model.parameters()).device
        batch = {name: tensor[:4].to(device) for name, tensor in self.batches[0].items()}
        heard = model(batch["mel"], changes(batch["gestures"]))[:, 1:, :, 0].flatten(1).float()
        rows = torch.stack([batch["mouth"][:, 1:, 0], heard], 1).flatten(0, 1).clamp(0, 1)
        grey = (255 * rows).byte().repeat_interleave(8, 0).repeat_interleave(4, 1)
        return grey[..., None].expand(-1, -1, 3).cpu().numpy()


def by_latent_frame(values: Tensor) -> Tensor:
    """[B, 1 + 4n, X] -> [B, 1 + n, 4, X]: of each latent frame's video frames; the first is 4 times the same."""
    first = values[:, :1, None].expand(-1, -1, FRAMES_PER_LATENT, -1)
    return torch.cat([first, values[:, 1:].unflatten(1, (-1, FRAMES_PER_LATENT))], 1)


def changes(gestures: Tensor) -> Tensor:
    """Since the first frame, the given picture."""
    return gestures - gestures[:, :1]
