"""Pictures moved by a flow (spatial transformers, Jaderberg et al. 2015)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def move(pictures: Tensor, flow: Tensor, scale: int) -> Tensor:
    """Each of pictures [N, C, H, W] K times, moved: [N, C, K, H, W] float32, under autocast too.

    flow: [N, 2K, H / scale, W / scale], how far to the right and how far below each place is taken from, in places of
    `pictures`; smooth between those it is given for.
    """
    # A small part of a pixel matters, and bfloat16 cannot tell one place of a wide picture from the next.
    with torch.autocast(pictures.device.type, enabled=False):
        pictures, flow = pictures.float(), flow.float()
        rows, columns = pictures.shape[-2:]
        across, down = (
            F.interpolate(part, scale_factor=scale, mode="bilinear", align_corners=False)
            for part in (flow[:, ::2] * (2 / columns), flow[:, 1::2] * (2 / rows))
        )
        y, x = (_places(size, pictures.device) for size in (rows, columns))
        # The copies one below the other, so that a picture need not be there K times.
        taken = torch.stack([across.add_(x), down.add_(y[:, None])], -1).flatten(1, 2)
        moved = F.grid_sample(pictures, taken, padding_mode="border", align_corners=False)
        return moved.unflatten(2, (-1, rows))


def _places(points: int, device: torch.device) -> Tensor:
    """[points]: where they are along one axis, as grid_sample counts it: -1 and 1 are the picture's edges."""
    return (torch.arange(points, device=device) * 2 + 1) / points - 1
