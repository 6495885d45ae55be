"""A speech encoder small enough to be trained here: log-mel columns -> features of each video frame, strictly causal.

What wav2vec2 is to the large models. It learns what speech does to a mouth before there are pictures, see
training.audio.

B batch, T video frames, C log-mel channels of a frame, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from talkingmachines.audio.features import COLUMNS_PER_FRAME, HISTORY, N_MELS, log_mel
from talkingmachines.errors import ConfigError
from talkingmachines.types import SAMPLES_PER_FRAME

_MEL = COLUMNS_PER_FRAME * N_MELS


@dataclass(frozen=True)
class HearingConfig:
    """width: of the recurrent layers; layers: how many; dim: channels of the features."""

    width: int = 256
    layers: int = 2
    dim: int = 192

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.dim) < 1:
            raise ConfigError(f"HearingConfig must have positive numbers, got {self}")


@dataclass(frozen=True)
class HearingState:
    """What one stream of sound leaves: samples [B, 240], the last frame's log-mel [B, 1, C], memory [layers, B, D]."""

    samples: Tensor
    frame: Tensor
    memory: Tensor


class Hearing(nn.Module):
    """Each frame sees its own columns and those of the frame before; recurrent layers remember voice and room."""

    def __init__(self, config: HearingConfig) -> None:
        super().__init__()
        self.config = config
        self.frames = nn.Sequential(
            nn.Linear(2 * _MEL, 2 * config.width), nn.GELU(), nn.Linear(2 * config.width, config.width)
        )
        self.memory = nn.GRU(config.width, config.width, config.layers, batch_first=True)
        self.out = nn.Linear(2 * config.width, config.dim)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, mel: Tensor, before: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """mel [B, T, C]; before [B, 1, C], of the frame before -> features [B, T, dim] and the memory, float32."""
        with torch.autocast(mel.device.type, enabled=False):
            mel = mel.float()
            pairs = torch.cat([torch.cat([before, mel[:, :-1]], 1), mel], 2)
            seen = self.frames(pairs)
            remembered, memory = self.memory(seen, memory)
            return self.norm(self.out(torch.cat([seen, remembered], 2))), memory

    def of_mel(self, mel: Tensor) -> Tensor:
        """Features [B, T, dim] of sound that begins out of silence; mel [B, T, C]."""
        state = self.start(len(mel))
        return self(mel, state.frame, state.memory)[0]

    def start(self, batch: int = 1) -> HearingState:
        """The state before any sound."""
        device = self.norm.weight.device
        samples = torch.zeros(batch, HISTORY, device=device)
        silence = log_mel(torch.zeros(batch, SAMPLES_PER_FRAME, device=device))
        memory = torch.zeros(self.config.layers, batch, self.config.width, device=device)
        return HearingState(samples, silence, memory)

    def push(self, samples: Tensor, state: HearingState) -> tuple[Tensor, HearingState]:
        """Features [B, T, dim] of the next samples [B, 640 * T], and the state after them."""
        mel = log_mel(samples, state.samples)
        features, memory = self(mel, state.frame, state.memory)
        return features, HearingState(samples[:, -HISTORY:].clone(), mel[:, -1:].clone(), memory)
