"""The picture, moved: parts of the given latents carried to where they are now, a little further in each video frame.

A network that adds to the picture must erase what moved where it was and draw it anew where it is. Here it only says
from where each place of the picture is taken (spatial transformers, Jaderberg et al. 2015; first-order motion,
Siarohin et al. 2019). Latents cannot be moved by less than a cell, so they are opened to a finer grid and closed again.
B batch, F latent frames, H W latent rows and columns, S points of the grid in a cell, each way.
"""

from torch import Tensor, nn

from talkingmachines.audio.alignment import FRAMES_PER_LATENT
from talkingmachines.dit.layers import compute_dtype
from talkingmachines.moving import move
from talkingmachines.patches import convolve_patches, from_patches


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
        still = from_patches(self.open(latents).movedim(1, -1), self.fine)
        change = move(still, flow, self.fine).sub_(still.float()[:, :, None])
        return convolve_patches(change.flatten(1, 2).to(compute_dtype(latents)), self.close.weight)
