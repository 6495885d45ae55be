"""Layers of Wan2.1's autoencoder that take a clip in pieces, with its parameter names.

B batch, C channels, T frames at the layer's own rate, h w rows and columns. A layer that looks back in time takes a
`State`, what it keeps of the frames before, and returns the next one; None is the clip's start. Tensors are
[B, C, T, h, w] throughout.
"""

from collections.abc import Iterable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

State = tuple[Tensor, ...]
"""What one layer keeps: one tensor for each of its convolutions over time, so none for a layer without."""

KEPT = 2
"""Frames that a convolution over three frames looks back."""


class RMSNorm(nn.Module):
    """Over the channels, at each place of a clip (`axes` = 3) or of a picture (2)."""

    def __init__(self, width: int, axes: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, *[1] * axes))
        self.scale = width**0.5

    def forward(self, x: Tensor) -> Tensor:
        # Squares of half-precision values leave its range.
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return F.normalize(wide, dim=1).to(x.dtype) * (self.gamma * self.scale).to(x.dtype)


def _following(x: Tensor, before: Tensor | None) -> Tensor:
    """x with the two frames before it, which are zero at the clip's start."""
    return F.pad(x, (0, 0, 0, 0, KEPT, 0)) if before is None else torch.cat([before.to(x.dtype), x], 2)


class CausalConv3d(nn.Conv3d):
    """3 x 3 x 3, over a frame and the two before it."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """before: [B, C, 2, h, w]; also returns what the next call takes as `before`."""
        heard = _following(x, before)
        # A copy: a view would keep all of `heard` alive.
        return super().forward(heard), heard[:, :, -KEPT:].clone()


class ResidualBlock(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        # Wan counts the activations and a dropout among the layers.
        self.residual = nn.Sequential(
            RMSNorm(width_in),
            nn.SiLU(),
            CausalConv3d(width_in, width_out),
            RMSNorm(width_out),
            nn.SiLU(),
            nn.Identity(),
            CausalConv3d(width_out, width_out),
        )
        self.shortcut = nn.Conv3d(width_in, width_out, 1) if width_in != width_out else nn.Identity()

    def forward(self, x: Tensor, before: State | None) -> tuple[Tensor, State]:
        norm1, _, conv1, norm2, _, _, conv2 = self.residual
        h, first = conv1(F.silu(norm1(x)), before[0] if before else None)
        h, second = conv2(F.silu(norm2(h)), before[1] if before else None)
        return self.shortcut(x) + h, (first, second)


class AttentionBlock(nn.Module):
    """Self-attention with one head, within each frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width, axes=2)
        self.to_qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, before: State | None) -> tuple[Tensor, State]:
        frames = rearrange(x, "B C T h w -> (B T) C h w")
        q, k, v = rearrange(self.to_qkv(self.norm(frames)), "BT (three C) h w -> three BT 1 (h w) C", three=3)
        out = rearrange(F.scaled_dot_product_attention(q, k, v), "BT 1 (h w) C -> BT C h w", h=x.shape[3])
        return x + rearrange(self.proj(out), "(B T) C h w -> B C T h w", B=len(x)), ()


def _each_frame(layers: nn.Module, x: Tensor) -> Tensor:
    """Layers for pictures [N, C, h, w] on every frame."""
    return rearrange(layers(rearrange(x, "B C T h w -> (B T) C h w")), "(B T) C h w -> B C T h w", B=len(x))


class Downsample(nn.Module):
    """Half the rows and columns; with `time`, also one frame for each two, but the clip's first stands alone."""

    def __init__(self, width: int, time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, stride=2))
        self.time_conv = nn.Conv3d(width, width, (3, 1, 1), stride=(2, 1, 1)) if time else None

    def forward(self, x: Tensor, before: State | None) -> tuple[Tensor, State]:
        """x: an odd number of frames at the clip's start, an even one later. Keeps the last frame."""
        x = _each_frame(self.resample, x)
        if self.time_conv is None:
            return x, ()
        heard = torch.cat([before[0].to(x.dtype), x], 2) if before else x
        parts = [] if before else [x[:, :, :1]]
        if heard.shape[2] > 1:
            parts.append(self.time_conv(heard))
        return torch.cat(parts, 2), (x[:, :, -1:].clone(),)


class Upsample(nn.Module):
    """Twice the rows and columns, half the width; with `time`, also two frames for each, but one for the clip's first.

    The first frame goes past the convolution over time, which does not see it later either.
    """

    def __init__(self, width: int, time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"), nn.Conv2d(width, width // 2, 3, padding=1)
        )
        self.time_conv = nn.Conv3d(width, 2 * width, (3, 1, 1)) if time else None

    def forward(self, x: Tensor, before: State | None) -> tuple[Tensor, State]:
        if self.time_conv is None:
            return _each_frame(self.resample, x), ()
        opening, rest = (x[:, :, :0], x) if before else (x[:, :, :1], x[:, :, 1:])
        heard = _following(rest, before[0] if before else None)
        if rest.shape[2]:
            rest = rearrange(self.time_conv(heard), "B (two C) T h w -> B C (T two) h w", two=2)
        return _each_frame(self.resample, torch.cat([opening, rest], 2)), (heard[:, :, -KEPT:].clone(),)


def run(layers: Iterable[nn.Module], x: Tensor, before: tuple[State, ...] | None) -> tuple[Tensor, tuple[State, ...]]:
    """Layers in a row, with their states in the same order."""
    states: list[State] = []
    for index, layer in enumerate(layers):
        x, state = layer(x, before[index] if before else None)
        states.append(state)
    return x, tuple(states)
