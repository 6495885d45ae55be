"""Layers that look at one latent frame and, for a quarter of their channels, at the one before it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHIFTED_FRACTION = 4


class ShiftedResidual(nn.Module):
    """Residual pair of 3x3 convolutions with a causal temporal shift (Lin et al. 2019, TSM).

    The first quarter of the input channels comes from the previous latent frame, so time costs nothing extra.
    The second convolution starts at zero: a new layer is the identity.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shifted = width // SHIFTED_FRACTION
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, frames: int, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        """x: [B*F, D, h, w] with `frames` = F; previous: [B, D/4, h, w], or None before the first latent frame.

        Returns the output and what the next call takes as `previous`. Before the first latent frame time stands
        still: the previous frame is the first one itself.
        """
        own = x[:, : self.shifted].unflatten(0, (-1, frames))
        before = own[:, :1] if previous is None else previous.unsqueeze(1).to(own.dtype)
        # In the layout of the rest, for a convolution would have all of it moved.
        shifted = torch.cat([before, own[:, :-1]], dim=1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        h = torch.cat([shifted, x[:, self.shifted :]], dim=1)
        h = self.conv2(F.silu(self.conv1(F.silu(h))))
        return x + h, own[:, -1]


class ShiftedStack(nn.ModuleList):
    """Several shifted residuals in a row, with one state tensor each."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__(ShiftedResidual(width) for _ in range(depth))

    def forward(self, x: Tensor, frames: int, previous: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        states = []
        for index, layer in enumerate(self):
            x, state = layer(x, frames, None if previous is None else previous[index])
            states.append(state)
        return x, tuple(states)
