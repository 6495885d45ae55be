"""How the self-attention of a causal model reaches beyond the tokens at hand."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from talkingmachines.attention.attention import attention
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


@dataclass(frozen=True)
class Past:
    """The caches that one pass reads and writes: one per call in the batch, at one denoising step."""

    caches: Sequence[KVCache]
    step: int
    ropes: ChunkRopes

    def attend(self, layer: int, q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor) -> Tensor:
        """Each chunk with its own past; q and k are not turned yet. Returns [B, L, N, K]."""
        sizes = [cache.batch for cache in self.caches]
        parts = zip(self.caches, q_BLNK.split(sizes), k_BLNK.split(sizes), v_BLNK.split(sizes), strict=True)
        return torch.cat([self._attend_one(layer, cache, q, k, v) for cache, q, k, v in parts])

    def _attend_one(self, layer: int, cache: KVCache, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rope, tokens = self.ropes.tables[cache.phase], q.shape[1]
        own = RopeTable(rope.cos_LK[-tokens:], rope.sin_LK[-tokens:])
        k_seen, v_seen = cache.seen(self.step, layer)
        keys = rotate(torch.cat([k_seen.to(k.dtype), k], 1), rope).to(v.dtype)
        out = attention(rotate(q, own).to(v.dtype), keys, torch.cat([v_seen.to(v.dtype), v], 1))
        cache.write(self.step, layer, k, v)
        return out
