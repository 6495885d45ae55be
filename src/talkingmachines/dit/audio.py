"""How the DiT hears: features -> tokens per latent frame -> cross-attention, laid out as in the MultiTalk family.

B batch, F latent frames, L tokens, A audio tokens of a latent frame, N heads, K head width, D width.
"""

import torch
from torch import Tensor, nn

from talkingmachines.attention.attention import Attention, attention
from talkingmachines.audio.alignment import AudioWindows
from talkingmachines.dit.conditioning import KeyValue
from talkingmachines.dit.config import AudioConfig, DiTConfig


class AudioProjection(nn.Module):
    """AudioWindows -> tokens [B, F, A, config.width].

    Latent frame 0 hears fewer video frames than the others, so it has a first layer of its own.
    """

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        frame = config.feature_layers * config.feature_dim
        self.shape = config.context_tokens, config.width
        self.proj1 = nn.Linear(config.window * frame, config.hidden)
        self.proj1_vf = nn.Linear((config.window + 3) * frame, config.hidden)
        self.proj2 = nn.Linear(config.hidden, config.hidden)
        self.proj3 = nn.Linear(config.hidden, config.context_tokens * config.width)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, windows: AudioWindows) -> Tensor:
        first, rest = self.proj1(windows.first.flatten(2)), self.proj1_vf(windows.rest.flatten(2))
        hidden = torch.cat([first, rest], 1).relu()
        return self.norm(self.proj3(self.proj2(hidden).relu()).unflatten(-1, self.shape))


class AudioCrossAttention(nn.Module):
    """The queries of a latent frame see the audio tokens of that latent frame, and no others."""

    def __init__(self, config: DiTConfig, audio: AudioConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention: Attention = attention
        self.q_linear = nn.Linear(config.width, config.width)
        self.kv_linear = nn.Linear(audio.width, 2 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def key_value(self, tokens_BFAD: Tensor) -> KeyValue:
        """Keys and values, each [B * F, A, N, K]."""
        kv = self.kv_linear(tokens_BFAD.flatten(0, 1)).unflatten(-1, (2, self.heads, -1))
        return kv[:, :, 0], kv[:, :, 1]

    def forward(self, x_BLD: Tensor, key_value: KeyValue, face_mask: Tensor | None) -> Tensor:
        """L = F * h * w; face_mask [B, 1, h * w, 1] multiplies what is heard."""
        frames = len(key_value[0]) // len(x_BLD)
        q = self.q_linear(x_BLD).unflatten(1, (frames, -1)).flatten(0, 1).unflatten(-1, (self.heads, -1))
        out = self.proj(self.attention(q, *key_value).flatten(2)).view(len(x_BLD), frames, -1, x_BLD.shape[-1])
        if face_mask is not None:
            out = out * face_mask.to(out.dtype)
        return out.flatten(1, 2)
