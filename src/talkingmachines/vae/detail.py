"""What an autoencoder loses of a picture, put back where the video has not changed.

A background that stands still, and a face that is at rest, are in the video as they were given. Where something moves
it would be in the wrong place, and is left out.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

_CHANGED = 6 / 127.5
"""Mean absolute change, where black to white is 2, at which a third of the detail is left."""

_CELL = 4
"""Pixels, the side of the squares for which that is asked, each with half of its neighbours. For each pixel it would
take three times as long, and look the same."""


@dataclass(frozen=True)
class Detail:
    """Both [1, 3, 1, H, W], about in [-1, 1]. rebuilt: the picture as the autoencoder makes it; lost: what is missing
    there."""

    rebuilt: Tensor
    lost: Tensor

    @classmethod
    def of(cls, picture: Tensor, rebuilt: Tensor) -> Self:
        """picture: [1, 3, H, W]; rebuilt: [1, 3, 1, H, W], the first frame of a video."""
        return cls(rebuilt, picture.to(rebuilt)[:, :, None] - rebuilt)

    def put_back(self, video: Tensor) -> Tensor:
        """Video [1, 3, T, H, W] with the detail."""
        apart = (video - self.rebuilt).abs_()
        summed = apart[:, 0].add_(apart[:, 1]).add_(apart[:, 2])
        changed = F.avg_pool2d(summed, 2 * _CELL, _CELL, _CELL // 2, count_include_pad=False).div_(3 * _CHANGED)
        kept = F.interpolate(changed.square_().neg_().exp_(), scale_factor=_CELL, mode="bilinear")
        return torch.addcmul(video, kept[:, None], self.lost)
