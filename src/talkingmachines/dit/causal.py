"""How the self-attention of a causal model reaches beyond the tokens at hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from talkingmachines.attention.attention import Attention, attention
from talkingmachines.attention.kv_cache import KVCache
from talkingmachines.attention.masks import frame_positions, seen_positions
from talkingmachines.attention.rope import RopeTable, rope_table, rotate


@dataclass(frozen=True)
class ChunkRopes:
    """The rotary tables of the keys that a chunk sees, one per phase, made once for all calls of one shape."""

    tables: tuple[RopeTable, ...]

    @classmethod
    def make(
        cls, head_width: int, window: int, frames: int, height: int, width: int, device: torch.device
    ) -> "ChunkRopes":
        """window: in chunks; frames: latent frames of a chunk; height, width: tokens of a latent frame."""
        return cls(
            tuple(
                rope_table(head_width, frame_positions(seen_positions(chunk, window), frames), height, width, device)
                for chunk in range(window)
            )
        )


Turn = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, RopeTable], tuple[Tensor, Tensor, Tensor]]


def turned(
    q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor, k_seen: Tensor, v_seen: Tensor, rope: RopeTable
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [B, L, N, K], and keys and values [B, S, N, K] of what was before and of the chunk itself, turned.

    k_seen, v_seen: of the earlier chunks [B, S - L, N, K]; rope: of all S positions, whose last are the chunk's.
    """
    tokens, dtype = q_BLNK.shape[1], v_BLNK.dtype
    keys = rotate(torch.cat([k_seen.to(k_BLNK.dtype), k_BLNK], 1), rope).to(dtype)
    return rotate(q_BLNK, rope.last(tokens)).to(dtype), keys, torch.cat([v_seen.to(dtype), v_BLNK], 1)


@dataclass(frozen=True)
class Past:
    """The caches that one pass reads and writes: one per call in the batch, at one denoising step.

    attention, turn: what computes them; a compiled model has a `turn` of its own.
    """

    caches: Sequence[KVCache]
    step: int
    ropes: ChunkRopes
    attention: Attention = attention
    turn: Turn = turned

    def attend(self, layer: int, q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor) -> Tensor:
        """Each chunk with its own past; q and k are not turned yet. Returns [B, L, N, K]."""
        sizes = [cache.batch for cache in self.caches]
        parts = zip(self.caches, q_BLNK.split(sizes), k_BLNK.split(sizes), v_BLNK.split(sizes), strict=True)
        return torch.cat([self._attend_one(layer, cache, q, k, v) for cache, q, k, v in parts])

    def _attend_one(self, layer: int, cache: KVCache, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k_seen, v_seen = cache.seen(self.step, layer)
        out = self.attention(*self.turn(q, k, v, k_seen, v_seen, self.ropes.tables[cache.phase]))
        cache.write(self.step, layer, k, v)
        return out
