"""What an autoencoder loses of a picture, put back wherever the video shows what the picture does.

A background that stands still, and a face that turns, are of the picture's own pixels, moved to where they are. Where
something has come up that the picture does not have, an open mouth, the video is as it was made.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from talkingmachines.moving import move
from talkingmachines.vae.optical_flow import CELL, OpticalFlow, halved

_CHANGED = 8 / 127.5
"""Mean absolute change, where black to white is 2, at which a third of the picture is left. Asked for squares of 4 x 4
pixels: for larger ones, lips that open a little would be shut again."""

_EXPLAINED = 0.2
"""Share of a cell's change that its flow must explain, or nothing moves there: a flow that is found in grain would blur
what stands still."""

_GRAIN = 1 / 127.5
"""Change that is always there."""


@dataclass(frozen=True)
class Detail:
    """picture: [1, 3, nH, nW], n times as large as the video was made; half: half of what the autoencoder makes of it,
    [1, 3, H / 2, W / 2]; flow: of the latter.
    """

    picture: Tensor
    half: Tensor
    flow: OpticalFlow

    @classmethod
    def of(cls, picture: Tensor, rebuilt: Tensor) -> Self:
        """picture: [1, 3, nH, nW]; rebuilt: [1, 3, 1, H, W], the first frame of a video. H, W: multiples of 32."""
        half = halved(rebuilt[:, :, 0].float())
        return cls(picture.to(half), half, OpticalFlow.of(half))

    def put_back(self, video: Tensor) -> Tensor:
        """Video [1, 3, T, H, W] with the detail, [1, 3, T, nH, nW] float32."""
        larger = self.picture.shape[-1] // video.shape[-1]
        halves = halved(video[0].transpose(0, 1).float())
        flow, apart = self._motion(halves.transpose(0, 1), self.flow.find(halves))
        changed = halved(apart).div_(3 * _CHANGED)
        kept = F.interpolate(changed.square_().neg_().exp_()[None], scale_factor=4 * larger, mode="bilinear")
        moved = move(self.picture, 2 * larger * flow, 2 * larger * CELL)
        return torch.lerp(_enlarged(video.float(), larger), moved, kept[:, None], out=moved)

    def _motion(self, halves: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """flow [1, 2T, H / 8, W / 8] where it explains how the video [3, T, H / 2, W / 2] differs from the picture, and
        the sum [T, H / 2, W / 2] of what is left of that in the three colours."""
        still, moved = (
            (halves - expected).abs_().sum(0) for expected in (self.half[0, :, None], move(self.half, flow, CELL)[0])
        )
        before, after = (_of_cells(apart) for apart in (still, moved))
        taken = (before - after).div_(_EXPLAINED * (before + 3 * _GRAIN)).clamp_(0, 1)
        flow = flow * taken.repeat_interleave(2, 0)
        return flow, still.lerp_(moved, F.interpolate(taken[None], scale_factor=CELL, mode="bilinear")[0])


def _enlarged(video: Tensor, by: int) -> Tensor:
    if by == 1:
        return video
    # All pictures as channels of one: three channels alone would be laid out pixel by pixel, and back again.
    frames = video[0].transpose(0, 1)
    larger = F.interpolate(frames.flatten(0, 1)[None], scale_factor=by, mode="bilinear")
    return larger.unflatten(1, frames.shape[:2]).transpose(1, 2)


def _of_cells(apart: Tensor) -> Tensor:
    """Means over cells, each with half of its neighbours."""
    return F.avg_pool2d(apart, 2 * CELL, CELL, CELL // 2, count_include_pad=False)
