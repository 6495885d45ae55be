"""From where in a picture each place of a video of it has come: optical flow, Lucas and Kanade (1981), coarse to fine.

T video frames, H W pixels of the picture, both multiples of 32.
"""

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from talkingmachines.moving import move

CELL = 4
"""Pixels of each level between two places of its flow, each way."""

_LEVELS = 3
"""The finest of half the picture's size, for heads go some pixels to the side. The whole picture would take four times
as long and be little more exact."""

_WINDOW = 6
"""Pixels of each level that move together."""

_DAMPING = 4e-4
"""Squared slope, where black to white is 2: where the picture has less of it, nothing says that it has moved."""

_FARTHEST = 2.0
"""Pixels of each level that a place may go there."""


class OpticalFlow:
    """Of one picture. levels, the coarsest first: grey values and their slopes to the right and down, [1, 3, ...]."""

    def __init__(self, levels: list[Tensor]) -> None:
        self._levels = levels

    @classmethod
    def of(cls, half: Tensor) -> Self:
        """half: the picture, half as large, [1, 3, H / 2, W / 2]."""
        return cls([torch.cat([grey, *_slopes(grey)], 1) for grey in _smaller(half.mean(1, keepdim=True))])

    def find(self, halves: Tensor) -> Tensor:
        """halves: the video, half as large, [T, 3, H / 2, W / 2] -> [1, 2T, H / 8, W / 8], as `move` takes it, in
        pixels of a picture of half the size."""
        greys = _smaller(halves.mean(1, keepdim=True))
        flow = halves.new_zeros(2, len(halves), *(size // CELL for size in greys[0].shape[-2:]))
        for finer, (level, grey) in enumerate(zip(self._levels, greys, strict=True)):
            if finer:
                flow = F.interpolate(flow, scale_factor=2, mode="bilinear").mul_(2)
            still, across, down = move(level, _as_moved(flow), CELL)[0]
            apart = grey[:, 0] - still
            products = torch.stack([across * across, across * down, down * down, across * apart, down * apart])
            margin = (_WINDOW - CELL) // 2
            aa, ad, dd, ap, dp = F.avg_pool2d(products, _WINDOW, CELL, margin, count_include_pad=False)
            aa, dd = aa + _DAMPING, dd + _DAMPING
            step = torch.stack([dd * ap - ad * dp, aa * dp - ad * ap]).div_(aa * dd - ad * ad)
            flow = flow + step.clamp_(-_FARTHEST, _FARTHEST)
        return _as_moved(flow)


def halved(pictures: Tensor) -> Tensor:
    """[..., H, W] -> [..., H / 2, W / 2], means of squares. An eighth of the time that avg_pool2d takes."""
    rows = pictures[..., ::2, :] + pictures[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]).mul_(0.25)


def _smaller(half: Tensor) -> list[Tensor]:
    """half, grey, at each level, the coarsest first."""
    levels = [half]
    for _ in range(_LEVELS - 1):
        levels.insert(0, halved(levels[0]))
    return levels


def _slopes(grey: Tensor) -> tuple[Tensor, Tensor]:
    """To the right and down, by pixel."""
    around = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across, down = around[..., 1:-1, :], around[..., :, 1:-1]
    return (across[..., 2:] - across[..., :-2]) / 2, (down[..., 2:, :] - down[..., :-2, :]) / 2


def _as_moved(flow: Tensor) -> Tensor:
    """[2, T, h, w] -> [1, 2T, h, w], frame after frame."""
    return flow.transpose(0, 1).flatten(0, 1)[None]
