"""A student's calls with either kind of history, made in a way of the study's own and held to the library's.

Timestep-matched, as the library has it: at each step a chunk sees the earlier ones as they were at that step. Clean
(CausVid, arXiv 2412.07772; Self-Forcing, arXiv 2506.08009): at every step it sees them as one more pass, at sigma 0
over what was made of them, left them.

B batch, C latent channels, F latent frames, h w latent rows and columns, L tokens, N heads, K head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, Never

import torch
from torch import Tensor

from talkingmachines.attention.attention import attention
from talkingmachines.attention.kv_cache import KVCache
from talkingmachines.attention.masks import frame_positions, seen_chunks, seen_positions
from talkingmachines.attention.rope import RopeTable, rope_table, rotate
from talkingmachines.dit.conditioning import PreparedConditioning
from talkingmachines.dit.few_steps import FewStepDiT
from talkingmachines.dit.model import DiT
from talkingmachines.flow.chunk import ChunkConfig, denoise_chunk
from talkingmachines.training.rollout import Scene, rollout

CLEAN = -1
"""The step, after all others, at sigma 0."""


@dataclass
class History:
    """What a call remembers of its chunks. turns: rotary tables of a chunk at each place of the window."""

    clean: bool
    turns: list[RopeTable]
    chunk: int = 0
    kept: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def attend(self, step: int, layer: int, q_BLNK: Tensor, k_BLNK: Tensor, v_BLNK: Tensor) -> Tensor:
        *earlier, own = zip(seen_chunks(self.chunk), seen_positions(self.chunk, len(self.turns)), strict=True)
        dtype, turn = v_BLNK.dtype, self.turns[own[1]]
        keys, values = [rotate(k_BLNK, turn)], [v_BLNK]
        for chunk, place in earlier:
            k, v = self.kept[chunk, CLEAN if self.clean else step, layer]
            keys.append(rotate(k, self.turns[place]))
            values.append(v)
        self.kept[self.chunk, step, layer] = k_BLNK.detach().to(dtype), v_BLNK.detach()
        return attention(rotate(q_BLNK, turn).to(dtype), torch.cat(keys, 1).to(dtype), torch.cat(values, 1))

    def advance(self) -> None:
        self.chunk += 1
        self.kept = {place: kept for place, kept in self.kept.items() if place[0] in seen_chunks(self.chunk)}


class Student:
    """A DiT at its few sigmas and at sigma 0: a flow.chunk.ChunkModel that holds its only call's history itself.

    learn: the one step with gradients. moved: what the warp alone made at it.
    """

    def __init__(self, model: DiT, chunk: ChunkConfig, rows: int, columns: int, clean: bool, learn: int) -> None:
        (_, p, q), width = model.config.patch, model.config.head_width
        self.model, self.learn = model, learn
        self.history = History(
            clean,
            [
                rope_table(width, frame_positions((place,), chunk.frames), rows // p, columns // q)
                for place in range(chunk.window)
            ],
        )
        self.sigmas = [model.prepare_sigma(sigma) for sigma in torch.cat([chunk.sigmas, torch.zeros(1)]).split(1)]
        self.moved: list[Tensor] = []

    def __call__(self, x: Tensor, step: int, cond: PreparedConditioning, caches: Sequence[Never]) -> Tensor:
        past: Any = SimpleNamespace(attend=partial(self.history.attend, step))
        with torch.set_grad_enabled(torch.is_grad_enabled() and step == self.learn):
            velocity, moved = self.model.with_warp(x, self.sigmas[step], cond, past)
        if step == self.learn:
            assert moved is not None, "this model has no warp"
            self.moved.append(moved)
        return velocity


def call(
    model: DiT,
    chunk: ChunkConfig,
    scene: Scene,
    chunks: int,
    generator: torch.Generator,
    *,
    clean: bool = False,
    learn: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """A call of `chunks` chunks, each after its own past: latents [B, C, F, h, w], without gradients; and with them, x0
    at the step `learn` and what the warp alone makes there.
    """
    B, C, h, w = scene.reference.shape
    student = Student(model, chunk, h, w, clean, learn)
    latents = scene.reference[:, :, None].repeat(1, 1, chunks * chunk.frames, 1, 1)
    learnt: list[Tensor] = []
    for index in range(chunks):
        frames = range(index * chunk.frames, (index + 1) * chunk.frames)
        noise = torch.randn(chunk.steps, B, C, chunk.frames, h, w, generator=generator).to(latents)
        cond = model.prepare(scene.conditioning(model.config.mask_channels, frames, chunk.frames, latents))
        estimates = denoise_chunk(student, noise, chunk.sigmas, cond, ())
        made = estimates[-1].detach()
        if clean:
            with torch.no_grad():
                student(made, CLEAN, cond, ())
        student.history.advance()
        latents[:, :, list(frames)] = made
        learnt.append(estimates[learn])
    return latents, torch.cat(learnt, 2), torch.cat(student.moved, 2)


@torch.no_grad()
def check(model: DiT, chunk: ChunkConfig, scene: Scene) -> None:
    """Both kinds of history against the library's cache, past the point where the window slides; in float32."""
    chunks = chunk.window + 1
    matched, _, _ = call(model, chunk, scene, chunks, torch.Generator().manual_seed(0))
    library, _ = rollout(model, chunk, scene, chunks, 0, 1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(matched, library, atol=1e-3, rtol=1e-3)
    clean, _, _ = call(model, chunk, scene, chunks, torch.Generator().manual_seed(0), clean=True)
    library = _clean_by_the_librarys_cache(model, chunk, scene, chunks, torch.Generator().manual_seed(0))
    torch.testing.assert_close(clean, library, atol=1e-3, rtol=1e-3)
    assert (clean - matched)[:, :, chunk.frames :].abs().mean() > 1e-3, "the two kinds of history are one"


def _clean_by_the_librarys_cache(
    model: DiT, chunk: ChunkConfig, scene: Scene, chunks: int, generator: torch.Generator
) -> Tensor:
    """Matched history with one more step, at sigma 0, whose keys stand in for those of all others in each chunk."""
    B, C, h, w = scene.reference.shape
    sigmas = torch.cat([chunk.sigmas, torch.zeros(1)])
    student = FewStepDiT(model, sigmas, chunk.window, chunk.frames, h, w)
    cache = student.empty_cache(B, torch.float32)
    made = [scene.reference[:, :, None]]
    for index in range(chunks):
        frames = range(index * chunk.frames, (index + 1) * chunk.frames)
        noise = torch.randn(chunk.steps, B, C, chunk.frames, h, w, generator=generator)
        before = torch.cat(made[1:], 2) if index else made[0]
        cond = model.prepare(scene.conditioning(model.config.mask_channels, frames, chunk.frames, before))
        keys, values = (kept[:, -1:].expand_as(kept).clone() for kept in (cache.keys, cache.values))
        made.append(denoise_chunk(student, noise, chunk.sigmas, cond, [KVCache(keys, values, chunk.window, index)])[-1])
        student(made[-1], chunk.steps, cond, [cache])
        cache.advance()
    return torch.cat(made[1:], 2)
