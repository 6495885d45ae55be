"""What large patches need: convolutions over the cells of each latent frame, after the last layer.

A token that stands for many cells must write all of them through one linear layer, blind to its neighbours: details
are coarse and seams run along its border. Here every cell sees the picture, the noise and what the tokens say around
it.
B batch, F latent frames, H W latent rows and columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkingmachines.dit.config import RefinerConfig
from talkingmachines.dit.layers import compute_dtype


class ResidualConv(nn.Module):
    """x + conv(silu(conv(silu(norm(x))))), normalised over the channels of each cell alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.ones(width, 1, 1))
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-6)
        normed = x * (scale * self.norm).to(x.dtype)
        return x + self.conv2(F.silu(self.conv1(F.silu(normed))))


class Refiner(nn.Module):
    """What the tokens said, the noisy and the conditioning latents -> what is added to the output.

    Its second path multiplies: values read from the latents by gates read from all. Moving a part of the picture a
    little, and letting more of the noisy latents through the less noise they have, are products, not sums.
    A fresh one adds nothing.
    """

    def __init__(self, config: RefinerConfig, told: int, latents: int) -> None:
        super().__init__()
        width, values = config.width, 2 * config.width
        self.conv_in = nn.Conv2d(told + 2 * latents, width, 3, padding=1)
        self.layers = nn.ModuleList(ResidualConv(width) for _ in range(config.layers))
        self.conv_out = nn.Conv2d(width, latents, 3, padding=1)
        self.values = nn.Conv2d(2 * latents, values, 3, padding=1)
        self.gates = nn.Conv2d(width, values, 1)
        self.gated_out = nn.Conv2d(values, latents, 3, padding=1)

    def forward(self, told: Tensor, x: Tensor, given: Tensor) -> Tensor:
        """told [B, told, F, H, W]; x and given, noisy and conditioning latents, and the result [B, C, F, H, W]."""
        frames, dtype = x.shape[2], compute_dtype(x)
        cells = torch.cat([x.to(dtype), given.to(dtype), told.to(dtype)], 1)
        cells = cells.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        h = self.conv_in(cells)
        for layer in self.layers:
            h = layer(h)
        h = F.silu(h)
        gated = self.values(cells[:, : 2 * x.shape[1]]) * self.gates(h)
        return (self.conv_out(h) + self.gated_out(gated)).unflatten(0, (-1, frames)).transpose(1, 2)
