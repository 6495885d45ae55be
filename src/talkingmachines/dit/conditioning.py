"""What the DiT is given beside the noisy latents."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from talkingmachines.attention.rope import RopeTable
from talkingmachines.audio.alignment import AudioWindows

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one layer, each [B, S, N, K]."""


@dataclass(frozen=True)
class Conditioning:
    """B batch, C latent channels, F latent frames, H W latent rows and columns, h w token rows and columns.

    latents: [B, C, F, H, W]; mask: [B, mask_channels, F, H, W], 1 where the latent frame is given in `latents`.
    previous: [B, C, F, H, W], for each frame the last one that is known already: the one before its window, or before
    its chunk; the picture at the beginning. For models that are configured for it.
    text: [B, length, dim], image: [B, tokens, dim]: needed if configured.
    audio: None skips the audio layers: the base model, unconditional for guidance on audio.
    mode: [B, F] long, 0 listening, 1 speaking; None adds nothing to the audio tokens.
    face_mask: [B, h, w] in [0, 1], how much audio each token may hear; None is the whole picture. A sample whose
    mask is all zero is as if it had no audio, which is how single samples of a batch are made unconditional.
    """

    latents: Tensor
    mask: Tensor
    text: Tensor | None = None
    image: Tensor | None = None
    audio: AudioWindows | None = None
    mode: Tensor | None = None
    face_mask: Tensor | None = None
    previous: Tensor | None = None


@dataclass(frozen=True)
class PreparedContext:
    """Keys and values of each layer for text and picture tokens, empty where there are none: once for a call."""

    text: tuple[KeyValue, ...] = ()
    image: tuple[KeyValue, ...] = ()


@dataclass(frozen=True)
class PreparedConditioning:
    """A Conditioning with all computed that does not depend on the noisy latents or sigma; see DiT.prepare.

    audio: the keys and values of each layer, [B * F, A, N, K], empty without audio. heard: what the refiner makes of
    the audio, see Refiner.listen. face_mask: [B, 1, h * w, 1] or None. visible: bool [L, L], which keys (columns)
    each query sees in self-attention; None is all.
    """

    latents: Tensor
    mask: Tensor
    rope: RopeTable
    context: PreparedContext
    audio: tuple[KeyValue, ...]
    face_mask: Tensor | None
    visible: Tensor | None = None
    heard: Tensor | None = None
    previous: Tensor | None = None

    def of_chunk(self) -> list[Tensor]:
        """All that differs from chunk to chunk of a call."""
        tensors = [tensor for key_value in self.audio for tensor in key_value]
        return tensors + [tensor for tensor in (self.heard, self.previous) if tensor is not None]

    def with_chunk(self, change: Callable[[Tensor], Tensor]) -> "PreparedConditioning":
        """With each tensor of `of_chunk` changed."""
        audio = tuple((change(keys), change(values)) for keys, values in self.audio)
        heard, previous = (tensor if tensor is None else change(tensor) for tensor in (self.heard, self.previous))
        return replace(self, audio=audio, heard=heard, previous=previous)


@dataclass(frozen=True)
class PreparedSigma:
    """sigma [B] or [1], and what the layers make of it: time_BD [B, D] and time_B6D [B, 6, D], float32."""

    sigma: Tensor
    time_BD: Tensor
    time_B6D: Tensor


def still_conditioning(
    reference: Tensor,
    num_latents: int,
    mask_channels: int,
    known: Tensor | None = None,
    audio: AudioWindows | None = None,
    mode: Tensor | None = None,
    face_mask: Tensor | None = None,
) -> Conditioning:
    """A Conditioning that holds a picture still.

    reference: [B, C, H, W], the latent of the picture, repeated over all num_latents frames with mask 0.
    known: [B, C, f, H, W], the first f latent frames if they are known already: put in with mask 1.
    """
    B, C, H, W = reference.shape
    count = 0 if known is None else known.shape[2]
    assert count <= num_latents, (count, num_latents)
    latents = reference[:, :, None].expand(B, C, num_latents, H, W)
    if known is not None:
        latents = torch.cat([known, latents[:, :, count:]], 2)
    previous = reference[:, :, None] if known is None else known[:, :, -1:]
    cond = given_conditioning(latents, count, mask_channels, audio, mode, face_mask)
    return replace(cond, previous=previous.expand(B, C, num_latents, H, W))


def given_conditioning(
    latents: Tensor,
    count: int,
    mask_channels: int,
    audio: AudioWindows | None = None,
    mode: Tensor | None = None,
    face_mask: Tensor | None = None,
) -> Conditioning:
    """A Conditioning of latents [B, C, F, H, W], of which the first `count` frames are given."""
    B, _, F, H, W = latents.shape
    mask = latents.new_zeros(B, mask_channels, F, H, W)
    mask[:, :, :count] = 1
    return Conditioning(latents, mask, audio=audio, mode=mode, face_mask=face_mask)


def box_mask(box: tuple[float, float, float, float], rows: int, columns: int) -> Tensor:
    """[rows, columns] of 0 and 1: the tokens that a box (x0, y0, x1, y1, in fractions) touches."""
    x0, y0, x1, y1 = box
    row, column = torch.arange(rows), torch.arange(columns)
    inside_y = (row + 1 > y0 * rows) & (row < y1 * rows)
    inside_x = (column + 1 > x0 * columns) & (column < x1 * columns)
    return (inside_y[:, None] & inside_x[None]).float()
