"""Pictures moved by a flow (spatial transformers, Jaderberg et al. 2015).

N pictures, C channels, K copies of each, H W rows and columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def move(pictures: Tensor, flow: Tensor, scale: int) -> Tensor:
    """Each of pictures [N, C, H, W] K times, moved: [N, C, K, H, W] float32, under autocast too.

    flow: [N, 2K, H / scale, W / scale], how far to the right and how far below each place is taken from, in places of
    `pictures`; linear between those it is given for. scale: even.
    """
    # A small part of a pixel matters, and bfloat16 cannot tell one place of a wide picture from the next.
    with torch.autocast(pictures.device.type, enabled=False):
        # The copies one below the other, so that a picture need not be there K times.
        taken = sampling_grid(flow.float(), scale).flatten(1, 2)
        moved = F.grid_sample(pictures.float(), taken, padding_mode="border", align_corners=False)
        return moved.unflatten(2, (-1, pictures.shape[-2]))


def sampling_grid(flow: Tensor, scale: int) -> Tensor:
    """From where each place is taken, [N, K, H, W, 2], as grid_sample counts: -1 and 1 are the picture's edges.

    flow: as in `move`. The places themselves are linear too, so they are added before it is made fine.
    """
    assert scale % 2 == 0, f"a place would lie on a coarse one, and between no two of them, with a scale of {scale}"
    rows, columns = flow.shape[-2:]
    # Filled where it is: a pass that is recorded on a GPU may not wait for numbers of the processor.
    size = torch.stack([torch.full((), count, device=flow.device) for count in (columns, rows)])
    coarse = F.pad(flow, (1, 1, 1, 1), mode="replicate").unflatten(1, (-1, 2)).movedim(2, -1) * (2 / (scale * size))
    across, down = (torch.arange(-1, count + 1, device=flow.device) * 2 + 1 for count in (columns, rows))
    places = torch.stack(torch.meshgrid(across / columns - 1, down / rows - 1, indexing="xy"), -1)
    return _stretched(_stretched(coarse + places, 3, scale), 2, scale)


def _stretched(x: Tensor, dim: int, scale: int) -> Tensor:
    """n + 2 places along `dim` -> n * scale, linear between them. The first and the last lie outside."""
    count = x.shape[dim] - 2
    # Half of the fine places of a coarse one lie before its middle, half behind.
    before, behind = (x.narrow(dim, start, count + 1).unfold(dim, 2, 1).movedim(-1, dim + 1) for start in (0, 1))
    weights = ((torch.arange(scale, device=x.device) + 0.5) / scale + 0.5) % 1
    weights = weights.view(2, scale // 2, *[1] * (x.dim() - dim - 1))
    return torch.lerp(before.unsqueeze(dim + 2), behind.unsqueeze(dim + 2), weights).flatten(dim, dim + 2)
