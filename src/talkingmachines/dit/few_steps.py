"""A causal DiT at its own few sigmas: what a call's chunks are denoised with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from talkingmachines.attention.kv_cache import KVCache
from talkingmachines.dit.causal import ChunkRopes, Past, Turn, turned
from talkingmachines.dit.conditioning import Conditioning, PreparedConditioning
from talkingmachines.dit.model import DiT


class FewStepDiT:
    """A DiT with all made once that no call, chunk or step changes: rotary tables, and the modulations of its sigmas.

    Implements flow.chunk.ChunkModel. Make a new one when the weights have changed.

    sigmas: [steps]; window: chunks that positions are counted in; frames: latent frames of a chunk; height, width:
    latent rows and columns. Sizes that differ from these, or tokens that do not fill the patch, fail an assertion.
    turn: see Past.
    """

    def __init__(
        self,
        model: DiT,
        sigmas: Tensor,
        window: int,
        frames: int,
        height: int,
        width: int,
        ropes: ChunkRopes | None = None,
    ) -> None:
        _, p, q = model.config.patch
        device = model.patch_embedding.weight.device
        self.model, self.sigmas, self.window = model, sigmas.to(device), window
        self.tokens = frames * (height // p) * (width // q)
        self.ropes = ropes or ChunkRopes.make(model.config.head_width, window, frames, height // p, width // q, device)
        self.turn: Turn = turned
        self.steps = [model.prepare_sigma(sigma.view(1)) for sigma in self.sigmas]

    def empty_cache(self, batch: int, dtype: torch.dtype) -> KVCache:
        """The cache of `batch` calls that go in step."""
        config, device = self.model.config, self.sigmas.device
        return KVCache.empty(
            batch,
            len(self.steps),
            config.layers,
            self.tokens,
            config.heads,
            config.head_width,
            self.window,
            dtype,
            device,
        )

    def __call__(
        self, x: Tensor, step: int, cond: Conditioning | PreparedConditioning, caches: Sequence[KVCache]
    ) -> Tensor:
        """Velocity of one chunk [B, C, F, H, W] of each call in `caches`."""
        return self.model(x, self.steps[step], cond, Past(caches, step, self.ropes, self.model.attention, self.turn))
