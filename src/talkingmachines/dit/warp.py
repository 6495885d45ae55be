"""The picture, moved: parts of the given latents carried to where they are now, a little further in each video frame.

A network that adds to the picture must erase what moved where it was and draw it anew where it is. Here it only says
from where each place of the picture is taken (spatial transformers, Jaderberg et al. 2015; first-order motion,
Siarohin et al. 2019). Latents cannot be moved by less than a cell, so they are opened to a finer grid and closed again.
B batch, F latent frames, H W latent rows and columns, S points of the grid in a cell, each way.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkingmachines.audio.alignment import FRAMES_PER_LATENT
from talkingmachines.dit.layers import compute_dtype


class Warp(nn.Module):
    """latents: channels of the latents; fine: S; channels: of each point of the grid."""

    def __init__(self, latents: int, fine: int, channels: int) -> None:
        super().__init__()
        self.fine = fine
        self.open = nn.Conv2d(latents, channels * fine**2, 1, bias=False)
        self.close = nn.Conv2d(FRAMES_PER_LATENT * channels, latents, fine, stride=fine, bias=False)

    def forward(self, latents: Tensor, flow: Tensor) -> Tensor:
        """What changes in latents [B * F, C, H, W] when each of their places is taken from elsewhere.

        flow: [B * F, 2 * FRAMES_PER_LATENT, H, W], for each video frame of a latent frame how far to the right and how
        far below, in points of the grid. Where it is 0, nothing changes.
        """
        still = F.pixel_shuffle(self.open(latents), self.fine)
        # A small part of a pixel matters: places are float32 under autocast too.
        with torch.autocast(latents.device.type, enabled=False):
            still, flow = still.float(), flow.float()
            rows, columns = still.shape[-2:]
            across, down = (
                F.interpolate(part, scale_factor=self.fine, mode="bilinear", align_corners=False)
                for part in (flow[:, ::2] * (2 / columns), flow[:, 1::2] * (2 / rows))
            )
            y, x = (_places(size, still.device) for size in (rows, columns))
            # The video frames one below the other, so that the picture need not be there four times.
            taken = torch.stack([x + across, y[:, None] + down], -1).flatten(1, 2)
            moved = F.grid_sample(still, taken, padding_mode="border", align_corners=False)
            change = moved.unflatten(2, (FRAMES_PER_LATENT, -1)) - still[:, :, None]
        return self.close(change.flatten(1, 2).to(compute_dtype(latents)))


def _places(points: int, device: torch.device) -> Tensor:
    """[points]: where they are along one axis, as grid_sample counts it: -1 and 1 are the picture's edges."""
    return (torch.arange(points, device=device) * 2 + 1) / points - 1
