"""What a call remembers of earlier chunks: their keys and values, for each denoising step and layer.

B batch, S tokens of a chunk, N heads, K head width.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from talkingmachines.attention.masks import seen_chunks, seen_positions

ANCHOR, PREVIOUS = 0, 1


@dataclass
class KVCache:
    """Two slots, the anchor and the previous chunk, for each denoising step and layer, made once.

    A chunk at step s sees the earlier chunks as they were at step s, so no third pass is needed to clean them.
    Keys are kept unturned, because their positions change as the call goes on; `positions` says where they sit now.

    keys, values: [B, steps, layers, 2, S, N, K]. chunks: how many were made.
    """

    keys: Tensor
    values: Tensor
    window: int
    chunks: int = 0

    @classmethod
    def empty(
        cls,
        batch: int,
        steps: int,
        layers: int,
        tokens: int,
        heads: int,
        head_width: int,
        window: int,
        dtype: torch.dtype,
        device: torch.device | str | None = None,
    ) -> Self:
        """window: chunks in the window that positions are counted in."""
        shape = batch, steps, layers, 2, tokens, heads, head_width
        keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return cls(keys, values, window)

    @property
    def batch(self) -> int:
        return len(self.keys)

    @property
    def phase(self) -> int:
        """Chunks of the same phase see as many others, at the same positions."""
        return min(self.chunks, self.window - 1)

    def positions(self) -> tuple[int, ...]:
        """Positions, in chunks, of what `seen` gives, and last that of the chunk being made."""
        return seen_positions(self.chunks, self.window)

    def seen(self, step: int, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [B, slots * S, N, K] of the earlier chunks that the present one sees: 0, 1 or 2 slots."""
        slots = len(seen_chunks(self.chunks)) - 1
        keys, values = (kept[:, step, layer, :slots].flatten(1, 2) for kept in (self.keys, self.values))
        return keys, values

    def write(self, step: int, layer: int, k_BSNK: Tensor, v_BSNK: Tensor) -> None:
        """Keep the present chunk, over the previous one. No gradient flows back through what is kept."""
        slot = PREVIOUS if self.chunks else ANCHOR
        self.keys[:, step, layer, slot] = k_BSNK.detach()
        self.values[:, step, layer, slot] = v_BSNK.detach()

    def advance(self) -> None:
        """The present chunk is done, at all its steps."""
        self.chunks += 1
