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
    """Cells [B, inputs, F, H, W] -> [B, outputs, F, H, W]; a fresh one gives zeros."""

    def __init__(self, config: RefinerConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, config.width, 3, padding=1)
        self.layers = nn.ModuleList(ResidualConv(config.width) for _ in range(config.layers))
        self.conv_out = nn.Conv2d(config.width, outputs, 3, padding=1)

    def forward(self, x_BCFHW: Tensor) -> Tensor:
        frames = x_BCFHW.shape[2]
        x = x_BCFHW.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = self.conv_in(x.to(compute_dtype(x)))
        for layer in self.layers:
            x = layer(x)
        return self.conv_out(F.silu(x)).unflatten(0, (-1, frames)).transpose(1, 2)
