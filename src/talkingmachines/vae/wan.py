"""Wan2.1's causal video autoencoder, with the parameter names of its checkpoint and explicit state.

Video frames 4k - 3 .. 4k make latent frame k >= 1, the first frame makes latent frame 0. Every convolution over time
looks only back, so a clip may be decoded in pieces: a `WanState` holds the two frames that each of them still sees.

B batch, C latent channels, F latent frames, T video frames, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkingmachines.vae.config import TEMPORAL_STRIDE
from talkingmachines.vae.model import per_channel
from talkingmachines.vae.wan_config import WanVAEConfig
from talkingmachines.vae.wan_layers import (
    AttentionBlock,
    CausalConv3d,
    Downsample,
    ResidualBlock,
    RMSNorm,
    State,
    Upsample,
    run,
)

_LATENTS_AT_ONCE = 3
"""A whole clip at full size would take tens of gigabytes."""


@dataclass(frozen=True)
class WanState:
    """What an encoder or a decoder keeps between pieces of a clip: of its first and last convolution the two frames
    before [B, C, 2, h, w], and the states of the layers between them, in order. Its size does not grow with time.
    """

    opening: Tensor
    layers: tuple[State, ...]
    closing: Tensor


class _Streamed(nn.Module):
    """A convolution, layers, norm and a convolution: both halves of the autoencoder."""

    def __init__(self, width_in: int, widths: tuple[int, int], width_out: int) -> None:
        super().__init__()
        first, last = widths
        self.conv1 = CausalConv3d(width_in, first)
        self.head = nn.Sequential(RMSNorm(last), nn.SiLU(), CausalConv3d(last, width_out))

    def layers(self) -> Sequence[nn.Module]:
        """In the order in which they run."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: WanState | None) -> tuple[Tensor, WanState]:
        x, opening = self.conv1(x, state.opening if state else None)
        x, layers = run(self.layers(), x, state.layers if state else None)
        norm, _, conv2 = self.head
        x, closing = conv2(F.silu(norm(x)), state.closing if state else None)
        return x, WanState(opening, layers, closing)


def _middle(width: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(width, width), AttentionBlock(width), ResidualBlock(width, width))


class Encoder(_Streamed):
    """[B, 3, 1 + 4n or 4n, H, W] -> [B, 2C, 1 + n or n, H/8, W/8]: means and log variances."""

    def __init__(self, config: WanVAEConfig) -> None:
        widths = [config.dim * multiple for multiple in config.dim_mult]
        super().__init__(3, (config.dim, widths[-1]), 2 * config.latent_channels)
        layers: list[nn.Module] = []
        width = config.dim
        for level, level_width in enumerate(widths):
            for _ in range(config.num_res_blocks):
                layers.append(ResidualBlock(width, level_width))
                width = level_width
            if level < len(config.temporal_downsample):
                layers.append(Downsample(width, config.temporal_downsample[level]))
        self.downsamples = nn.Sequential(*layers)
        self.middle = _middle(width)

    def layers(self) -> Sequence[nn.Module]:
        return (*self.downsamples, *self.middle)


class Decoder(_Streamed):
    """[B, C, F, h, w] -> [B, 3, 1 + 4(F - 1) at the clip's start or else 4F, 8h, 8w]"""

    def __init__(self, config: WanVAEConfig) -> None:
        widths = [config.dim * multiple for multiple in reversed(config.dim_mult)]
        super().__init__(config.latent_channels, (widths[0], widths[-1]), 3)
        self.middle = _middle(widths[0])
        layers: list[nn.Module] = []
        width = widths[0]
        times = config.temporal_downsample[::-1]
        for level, level_width in enumerate(widths):
            for _ in range(config.num_res_blocks + 1):
                layers.append(ResidualBlock(width, level_width))
                width = level_width
            if level < len(times):
                layers.append(Upsample(width, times[level]))
                width //= 2
        self.upsamples = nn.Sequential(*layers)

    def layers(self) -> Sequence[nn.Module]:
        return (*self.middle, *self.upsamples)


class WanVAE(nn.Module):
    """Video in [-1, 1] to normalised latents and back: the same contract as CausalVAE.

    The latents' mean and deviation come from the configuration; checkpoints do not hold them.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.conv1 = nn.Conv3d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.conv2 = nn.Conv3d(config.latent_channels, config.latent_channels, 1)
        self.decoder = Decoder(config)
        self.register_buffer("latent_mean", torch.tensor(config.latent_mean), persistent=False)
        self.register_buffer("latent_std", torch.tensor(config.latent_std), persistent=False)

    def encode(self, video: Tensor) -> Tensor:
        """video: [B, 3, 1 + 4n, H, W], H and W multiples of 8 -> latents [B, C, 1 + n, H/8, W/8], the means."""
        frames = video.shape[2]
        assert frames % TEMPORAL_STRIDE == 1, f"a clip has 1 + 4n frames, this one {frames}"
        step = TEMPORAL_STRIDE * _LATENTS_AT_ONCE
        starts = [0, *range(1 + step, frames, step)]
        state: WanState | None = None
        parts = []
        for start, stop in zip(starts, [*starts[1:], frames], strict=True):
            coded, state = self.encoder(video[:, :, start:stop].to(self.conv1.weight.dtype), state)
            parts.append(self.conv1(coded).chunk(2, 1)[0])
        return (torch.cat(parts, 2) - per_channel(self.latent_mean)) / per_channel(self.latent_std)

    def encode_image(self, image: Tensor) -> Tensor:
        """image: [B, 3, H, W] -> [B, C, h, w], the latent frame of a clip's first frame."""
        return self.encode(image.unsqueeze(2)).squeeze(2)

    def decode(self, latents: Tensor) -> Tensor:
        """latents: [B, C, F, h, w] of a whole clip -> video [B, 3, 1 + 4(F - 1), H, W]. Not cut to [-1, 1]."""
        state: WanState | None = None
        parts = []
        for piece in latents.split(_LATENTS_AT_ONCE, 2):
            video, state = self.decode_next(piece, state)
            parts.append(video)
        return torch.cat(parts, 2)

    def decode_next(self, latents: Tensor, state: WanState | None) -> tuple[Tensor, WanState]:
        """Streaming decode: any number of latent frames, after those that made `state` (None: the clip's start).

        The first latent frame of a clip gives one video frame, every other gives four.
        """
        z = latents * per_channel(self.latent_std) + per_channel(self.latent_mean)
        return self.decoder(self.conv2(z.to(self.conv2.weight.dtype)), state)

    def compile_decoder(self) -> None:
        """Fused by torch.compile, for static shapes: the first chunks take a minute, later ones are faster."""
        self.decoder.compile(dynamic=False)
