"""A small causal video autoencoder: a closed-form linear transform plus convolutions that learn what it misses.

Layout of the latents as in Wan2.1: 8x8 in space, 4 in time, the first frame alone. The first frame is coded as four
equal frames, so one path serves pictures and video.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from talkingmachines.moving import move
from talkingmachines.patches import convolve_patches, from_patches
from talkingmachines.vae.config import TEMPORAL_STRIDE, VAEConfig
from talkingmachines.vae.layers import ShiftedStack

PATCH = 8
HALF = PATCH // 2


@dataclass(frozen=True)
class DecoderState:
    """All that a streaming decode keeps: the last latent frame's features at each layer, [B, D/4, h, w]."""

    coarse: tuple[Tensor, ...]
    fine: tuple[Tensor, ...]


def stack_frames(video: Tensor) -> Tensor:
    """[B, 3, 4F, H, W] -> [B*F, 4*3, H, W]"""
    return rearrange(video, "B C (F t) H W -> (B F) (t C) H W", t=TEMPORAL_STRIDE)


def to_pictures(patches: Tensor, size: int) -> Tensor:
    """Patches [B*F, 4*3*size*size, H/size, W/size] of `stack_frames` -> its video frames [B*4F, 3, H, W]."""
    return from_patches(patches.movedim(1, -1), size).unflatten(1, (TEMPORAL_STRIDE, 3)).flatten(0, 1)


def _from_standing(video: Tensor) -> Tensor:
    """[B, 3, 1 + 4n, H, W] -> [B, 3, 4 + 4n, H, W]: the first frame is coded as four equal ones."""
    return torch.cat([video[:, :, :1].expand(-1, -1, TEMPORAL_STRIDE - 1, -1, -1), video], dim=2)


def per_channel(values: Tensor) -> Tensor:
    """[C] -> [C, 1, 1, 1], to broadcast over [B, C, F, h, w]."""
    return values[:, None, None, None]


class Encoder(nn.Module):
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        coarse, fine = config.encoder_widths
        values = TEMPORAL_STRIDE * 3
        self.linear = nn.Conv2d(values * PATCH**2, config.latent_channels, 1)
        self.fine_in = nn.Conv2d(values * HALF**2, fine, 3, padding=1)
        self.fine = ShiftedStack(fine, config.encoder_depths[1])
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.coarse = ShiftedStack(coarse, config.encoder_depths[0])
        self.out = nn.Conv2d(coarse, config.latent_channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, video: Tensor) -> Tensor:
        """[B, 3, 4F, H, W] -> [B, C, F, h, w]"""
        frames = video.shape[2] // TEMPORAL_STRIDE
        # The pixels are much the largest tensor here, so they are rounded before they are moved.
        dtype = (
            torch.get_autocast_dtype(video.device.type) if torch.is_autocast_enabled(video.device.type) else video.dtype
        )
        stacked = stack_frames(video.to(dtype))
        weight = self.linear.weight.unflatten(1, (-1, PATCH, PATCH)).flatten(3)
        linear = convolve_patches(stacked, weight, self.linear.bias)
        h = self.fine_in(F.pixel_unshuffle(stacked, HALF).contiguous(memory_format=torch.channels_last))
        h, _ = self.fine(h, frames, None)
        h, _ = self.coarse(self.down(h), frames, None)
        return (linear + self.out(F.silu(h))).unflatten(0, (-1, frames)).movedim(1, 2)


class Decoder(nn.Module):
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        coarse, fine = config.decoder_widths
        values = TEMPORAL_STRIDE * 3
        self.linear = nn.Conv2d(config.latent_channels, values * PATCH**2, 1)
        self.coarse_in = nn.Conv2d(config.latent_channels, coarse, 3, padding=1)
        self.coarse = ShiftedStack(coarse, config.decoder_depths[0])
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.fine = ShiftedStack(fine, config.decoder_depths[1])
        self.out = nn.Conv2d(fine, values * HALF**2, 3, padding=1)
        self.flow = nn.Sequential(
            nn.Conv2d(fine, fine, 3, padding=1), nn.SiLU(), nn.Conv2d(fine, 2 * TEMPORAL_STRIDE, 3, padding=1)
        )
        for silent in (self.out.parameters(), self.flow[2].parameters()):
            for parameter in silent:
                nn.init.zeros_(parameter)

    def forward(self, latents: Tensor, state: DecoderState | None) -> tuple[Tensor, DecoderState]:
        """[B, C, F, h, w] -> [B, 3, 4F, H, W] and the state for the next call."""
        frames = latents.shape[2]
        z = latents.movedim(2, 1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        h, coarse = self.coarse(self.coarse_in(z), frames, state.coarse if state else None)
        h, fine = self.fine(F.pixel_shuffle(self.up(h), 2), frames, state.fine if state else None)
        h = F.silu(h)
        drawn = to_pictures(self.linear(z), PATCH).add_(to_pictures(self.out(h), HALF))
        # Each place of each video frame is taken from as many pixels to the right and below as the flow says.
        flow = self.flow(h).unflatten(1, (TEMPORAL_STRIDE, 2)).flatten(0, 1)
        moved = move(drawn, flow, HALF).squeeze(2)
        return moved.unflatten(0, (len(latents), -1)).movedim(1, 2), DecoderState(coarse, fine)


class CausalVAE(nn.Module):
    """Video in [-1, 1] to normalised latents and back. Latent frame k >= 1 holds video frames 4k-3 .. 4k."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.correction = Encoder(config)
        for silent in self.correction.linear.parameters():
            nn.init.zeros_(silent)
        self.decoder = Decoder(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def coders(self) -> nn.ModuleList:
        """What makes latents. The decoder may go on without their becoming others (but for what it then misses)."""
        return nn.ModuleList([self.encoder, self.correction])

    def encode(self, video: Tensor, corrected: bool = True) -> Tensor:
        """video: [B, 3, 1 + 4n, H, W], H and W multiples of 8 -> latents [B, C, 1 + n, H/8, W/8].

        corrected: whether the decoder is asked what it would make of them, and what it misses is coded as well: a step
        of an iterative inference that is learned (Marino et al. 2018, arXiv 1807.09356).
        """
        latents = self.encoder(_from_standing(video))
        if corrected:
            # Not by its call: what may be compiled there is for the shapes of a call.
            missed = video - self.decoder.forward(latents, None)[0][:, :, TEMPORAL_STRIDE - 1 :]
            latents = latents + self.correction(_from_standing(missed))
        return (latents - per_channel(self.latent_mean)) / per_channel(self.latent_std)

    def encode_image(self, image: Tensor) -> Tensor:
        """image: [B, 3, H, W] -> [B, C, h, w], the latent frame of a clip's first frame."""
        return self.encode(image.unsqueeze(2)).squeeze(2)

    def decode(self, latents: Tensor) -> Tensor:
        """latents: [B, C, F, h, w] of a whole clip -> video [B, 3, 1 + 4(F - 1), H, W]."""
        return self.decode_next(latents, None)[0]

    def decode_next(self, latents: Tensor, state: DecoderState | None) -> tuple[Tensor, DecoderState]:
        """Streaming decode: any number of latent frames, after those that made `state` (None: the clip's start).

        The first latent frame of a clip gives one video frame, every other gives four.
        """
        video, after = self.decoder(latents * per_channel(self.latent_std) + per_channel(self.latent_mean), state)
        return (video if state else video[:, :, TEMPORAL_STRIDE - 1 :]), after

    def compile_decoder(self) -> None:
        """Fused by torch.compile, for static shapes: the first chunks take a minute, later ones are faster."""
        self.decoder.compile(dynamic=False)
