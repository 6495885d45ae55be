"""One layer of the DiT, in Wan2.1's order and under its parameter names.

B batch, L tokens (latent frame, row, column), S text or image tokens, N heads, K head width, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from talkingmachines.attention.attention import Attention, attention
from talkingmachines.attention.rope import RopeTable, rotate
from talkingmachines.dit.audio import AudioCrossAttention
from talkingmachines.dit.conditioning import KeyValue
from talkingmachines.dit.config import DiTConfig
from talkingmachines.dit.layers import FeedForward, LayerNorm, RMSNorm, compute_dtype, modulate

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Unturned queries, keys and values, each [B, L, N, K], to what the queries see, [B, L, N, K]."""


def attend_all(
    attention: Attention, rope: RopeTable, visible: Tensor | None, q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor
) -> Tensor:
    """The tokens at hand see each other, or those that `visible` [L, L] allows."""
    q, k = (rotate(tensor, rope).to(v_BLNK.dtype) for tensor in (q_BLNK, k_BLNK))
    return attention(q, k, v_BLNK, visible)


class SelfAttention(nn.Module):
    """Queries and keys are normalised over the full width; who sees whom is said outside, between the two methods."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.width, config.width) for _ in range(4))
        self.norm_q, self.norm_k = (RMSNorm(config.width, config.eps) for _ in range(2))

    def project(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unturned queries, keys and values, each [B, L, N, K]."""
        q, k, v = self.norm_q(self.q(x_BLD)), self.norm_k(self.k(x_BLD)), self.v(x_BLD)
        return q.unflatten(-1, (self.heads, -1)), k.unflatten(-1, (self.heads, -1)), v.unflatten(-1, (self.heads, -1))

    def output(self, seen_BLNK: Tensor) -> Tensor:
        return self.o(seen_BLNK.flatten(2))


class CrossAttention(nn.Module):
    """Attention to the text and, with keys and values of their own, to the image tokens; the two are added."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention: Attention = attention
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = (RMSNorm(width, config.eps) for _ in range(2))
        if config.image:
            self.k_img, self.v_img = (nn.Linear(width, width) for _ in range(2))
            self.norm_k_img = RMSNorm(width, config.eps)

    def text_key_value(self, text_BSD: Tensor) -> KeyValue:
        return self._split(self.norm_k(self.k(text_BSD)), self.v(text_BSD))

    def image_key_value(self, image_BSD: Tensor) -> KeyValue:
        return self._split(self.norm_k_img(self.k_img(image_BSD)), self.v_img(image_BSD))

    def _split(self, k: Tensor, v: Tensor) -> KeyValue:
        return k.to(v.dtype).unflatten(-1, (self.heads, -1)), v.unflatten(-1, (self.heads, -1))

    def forward(self, x_BLD: Tensor, *contexts: KeyValue) -> Tensor:
        q = self.norm_q(self.q(x_BLD)).to(x_BLD.dtype).unflatten(-1, (self.heads, -1))
        return self.o(sum(self.attention(q, k, v) for k, v in contexts).flatten(2))  # type: ignore[union-attr]


class DiTBlock(nn.Module):
    """Self-attention, text and image if configured, audio if configured, feed-forward; all residual.

    The residual stream keeps its dtype; norms and modulation are computed in float32.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, eps = config.width, config.eps
        self.norm1 = LayerNorm(width, eps, elementwise_affine=False)
        self.self_attn = SelfAttention(config)
        if config.text:
            self.norm3 = LayerNorm(width, eps)
            self.cross_attn = CrossAttention(config)
        if config.audio:
            self.norm_x = LayerNorm(width, eps)
            self.audio_cross_attn = AudioCrossAttention(config, config.audio)
        self.norm2 = LayerNorm(width, eps, elementwise_affine=False)
        self.ffn = FeedForward(width, config.ffn_width)
        self.modulation = nn.Parameter(torch.randn(1, 6, width) / width**0.5)

    def forward(
        self,
        x_BLD: Tensor,
        time_B6D: Tensor,
        attend: Attend,
        contexts: tuple[KeyValue, ...] = (),
        *,
        audio: KeyValue | None = None,
        face_mask: Tensor | None = None,
    ) -> Tensor:
        """contexts: text, then image; audio None skips the audio layer; face_mask [B, 1, h * w, 1]."""
        return self.after(x_BLD, attend(*self.before(x_BLD, time_B6D)), time_B6D, contexts, audio, face_mask)

    def before(self, x_BLD: Tensor, time_B6D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All up to self-attention: its queries, keys and values, not turned yet."""
        shift, scale = (self.modulation + time_B6D)[:, :2].chunk(2, 1)
        return self.self_attn.project(modulate(self.norm1(x_BLD), shift, scale).to(compute_dtype(x_BLD)))

    def after(
        self,
        x_BLD: Tensor,
        seen_BLNK: Tensor,
        time_B6D: Tensor,
        contexts: tuple[KeyValue, ...],
        audio: KeyValue | None,
        face_mask: Tensor | None,
    ) -> Tensor:
        """All that follows what the queries saw."""
        dtype = compute_dtype(x_BLD)
        gate1, shift2, scale2, gate2 = (self.modulation + time_B6D)[:, 2:].chunk(4, 1)
        x = torch.addcmul(x_BLD, self.self_attn.output(seen_BLNK), gate1).to(x_BLD.dtype)
        if contexts:
            x = x + self.cross_attn(self.norm3(x).to(dtype), *contexts)
        if audio is not None:
            x = x + self.audio_cross_attn(self.norm_x(x).to(dtype), audio, face_mask)
        fed = self.ffn(modulate(self.norm2(x), shift2, scale2).to(dtype))
        return torch.addcmul(x, fed, gate2).to(x_BLD.dtype)
