"""Rotary positions over time, height and width, as in Wan2.1.

The head width K is split into a part for time, K - 4 * (K // 6), and two of 2 * (K // 6) for height and width.
Neighbouring channels (0, 1), (2, 3), ... are the real and imaginary part of one number, which is turned by
position * 10000 ** (-2i / part).
L tokens in the order (frame, row, column), N heads, K head width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from talkingmachines.errors import ConfigError

THETA = 10_000.0


class RopeTable(NamedTuple):
    """cos_LK, sin_LK: float32; the sine of the even channels carries the minus sign of the rotation. turn: the same as
    complex numbers [L, K / 2]."""

    cos_LK: Tensor
    sin_LK: Tensor
    turn: Tensor

    def last(self, tokens: int) -> "RopeTable":
        """Of the last so many tokens."""
        return RopeTable(*(part[-tokens:] for part in self))


def axis_widths(head_width: int) -> tuple[int, int, int]:
    """Channels of a head that carry time, height and width."""
    if head_width < 6 or head_width % 2:
        raise ConfigError(f"head width must be even and at least 6, got {head_width}: change width or heads")
    space = 2 * (head_width // 6)
    return head_width - 2 * space, space, space


def rope_table(
    head_width: int, frames: Sequence[int], height: int, width: int, device: torch.device | str | None = None
) -> RopeTable:
    """The table for the tokens of the given latent frames, each height x width tokens.

    frames: the position in time of each latent frame, in the order of the tokens; any integers, repeats allowed.
    Make it once per shape and keep it.
    """
    parts = axis_widths(head_width)
    positions = (torch.as_tensor(frames, dtype=torch.long), torch.arange(height), torch.arange(width))
    sizes = tuple(len(axis) for axis in positions)
    angles = []
    for axis, (part, position) in enumerate(zip(parts, positions, strict=True)):
        rate = THETA ** (-torch.arange(0, part, 2, dtype=torch.float64) / part)
        shape = [size if other == axis else 1 for other, size in enumerate(sizes)]
        angle = torch.outer(position.double(), rate).view(*shape, part // 2)
        angles.append(angle.expand(*sizes, part // 2))
    angle = torch.cat(angles, -1).flatten(0, 2)
    cos_LK, sin_LK = (part.float().repeat_interleave(2, -1) for part in (angle.cos(), angle.sin()))
    sin_LK[:, 0::2].neg_()
    turn = torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
    return RopeTable(cos_LK.to(device), sin_LK.to(device), turn.to(device))


def rotate(x_BLNK: Tensor, table: RopeTable) -> Tensor:
    """Turn queries or keys by their positions; computed in float32, returned so (the caller casts)."""
    # On a processor complex numbers take a seventh of the time. Compilers do not fuse them, and work for other devices.
    return (rotate_complex if x_BLNK.device.type == "cpu" else rotate_real)(x_BLNK, table)


def rotate_complex(x_BLNK: Tensor, table: RopeTable) -> Tensor:
    pairs = torch.view_as_complex(x_BLNK.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table.turn[:, None]).flatten(-2)


def rotate_real(x_BLNK: Tensor, table: RopeTable) -> Tensor:
    swapped_BLNK = x_BLNK.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return torch.addcmul(x_BLNK * table.cos_LK[:, None], swapped_BLNK, table.sin_LK[:, None])
