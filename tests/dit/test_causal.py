"""A causal model chunk by chunk with its cache, against all chunks at once."""

from dataclasses import dataclass, replace

import pytest
import torch
from dit_models import SMALL, WAN, conditioning, random_model
from torch import Tensor

from talkingmachines.attention.attention import attention
from talkingmachines.attention.kv_cache import KVCache
from talkingmachines.attention.masks import seen_chunks, seen_positions
from talkingmachines.attention.rope import rope_table, rotate
from talkingmachines.audio.alignment import AudioWindows
from talkingmachines.dit.causal import ChunkRopes, Past
from talkingmachines.dit.conditioning import Conditioning
from talkingmachines.dit.config import DiTConfig
from talkingmachines.dit.few_steps import FewStepDiT
from talkingmachines.dit.model import DiT
from talkingmachines.flow.chunk import denoise_chunk

CHUNK, WINDOW, H, W = 2, 4, 4, 6
SIGMAS = torch.tensor([1.0, 0.6])


def part(cond: Conditioning, chunk: int) -> Conditioning:
    """The conditioning of one chunk."""
    frames = slice(CHUNK * chunk, CHUNK * (chunk + 1))
    audio = cond.audio
    assert audio is not None and cond.mode is not None
    first = audio.first if chunk == 0 else audio.first[:, :0]
    rest = audio.rest[:, max(frames.start - 1, 0) : frames.stop - 1]
    return replace(
        cond,
        latents=cond.latents[:, :, frames],
        mask=cond.mask[:, :, frames],
        audio=AudioWindows(first, rest),
        mode=cond.mode[:, frames],
        previous=None if cond.previous is None else cond.previous[:, :, frames],
    )


def empty_cache(model: DiT, batch: int, steps: int = 2) -> KVCache:
    config = model.config
    tokens = CHUNK * (H // config.patch[1]) * (W // config.patch[2])
    return KVCache.empty(
        batch, steps, config.layers, tokens, config.heads, config.head_width, WINDOW, model.head.head.weight.dtype
    )


def ropes(model: DiT) -> ChunkRopes:
    _, p, q = model.config.patch
    return ChunkRopes.make(model.config.head_width, WINDOW, CHUNK, H // p, W // q, torch.device("cpu"))


def few_steps(model: DiT) -> FewStepDiT:
    return FewStepDiT(model, SIGMAS, WINDOW, CHUNK, H, W)


@dataclass
class AllAtOnce:
    """Every chunk's queries in a product of their own, with the keys of the chunks they see, turned anew for each."""

    model: DiT
    chunks: int

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        config, out = self.model.config, []
        turn = [rope_table(config.head_width, range(CHUNK * at, CHUNK * at + CHUNK), H // 2, W // 2) for at in range(9)]
        q, k, v = (tensor.unflatten(1, (self.chunks, -1)) for tensor in (q, k, v))
        for chunk in range(self.chunks):
            pairs = list(zip(seen_chunks(chunk), seen_positions(chunk, WINDOW), strict=True))
            keys = torch.cat([rotate(k[:, seen], turn[at]) for seen, at in pairs], 1)
            values = torch.cat([v[:, seen] for seen, _ in pairs], 1)
            out.append(attention(rotate(q[:, chunk], turn[pairs[-1][1]]), keys, values))
        return torch.cat(out, 1)


@pytest.mark.parametrize("config", [SMALL, WAN], ids=["small", "wan"])
@torch.no_grad()
def test_cached_chunks_equal_all_at_once(config: DiTConfig) -> None:
    """Nine chunks: before and after the window slides; two steps, each seeing the past at its own step."""
    model, chunks = random_model(config), 9
    cond = conditioning(config, F=CHUNK * chunks, H=H, W=W)
    noise = torch.randn(2, *cond.latents.shape, generator=torch.Generator().manual_seed(5))
    student = few_steps(model)
    cache = student.empty_cache(2, torch.float32)
    made: list[list[Tensor]] = []
    for chunk in range(chunks):
        frames = slice(CHUNK * chunk, CHUNK * (chunk + 1))
        made.append(denoise_chunk(student, noise[:, :, :, frames], SIGMAS, model.prepare(part(cond, chunk)), [cache]))
    at_once = AllAtOnce(model, chunks)
    first = noise[0] - model(noise[0], torch.ones(2), cond, at_once)
    x = (1 - SIGMAS[1]) * first + SIGMAS[1] * noise[1]
    second = x - SIGMAS[1] * model(x, SIGMAS[1].expand(2), cond, at_once)
    for step, whole in enumerate((first, second)):
        for chunk in range(chunks):
            frames = slice(CHUNK * chunk, CHUNK * (chunk + 1))
            torch.testing.assert_close(
                made[chunk][step], whole[:, :, frames], atol=1e-4, rtol=1e-4, msg=f"chunk {chunk}, step {step}"
            )


@pytest.mark.parametrize("config", [SMALL, WAN], ids=["small", "wan"])
@torch.no_grad()
def test_training_mask_equals_cached_chunks_while_the_window_fills(config: DiTConfig) -> None:
    model = random_model(config)
    cond = conditioning(config, F=CHUNK * WINDOW, H=H, W=W)
    x = torch.randn(cond.latents.shape, generator=torch.Generator().manual_seed(5))
    whole = model(x, SIGMAS[1].expand(2), model.prepare(cond, chunk=CHUNK))
    cache, tables = empty_cache(model, 2, 1), ropes(model)
    for chunk in range(WINDOW):
        frames = slice(CHUNK * chunk, CHUNK * (chunk + 1))
        out = model(x[:, :, frames], SIGMAS[1].expand(2), part(cond, chunk), Past([cache], 0, tables))
        cache.advance()
        torch.testing.assert_close(out, whole[:, :, frames], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_calls_in_one_batch_equal_calls_alone() -> None:
    """Calls that are at different chunks, and one of two samples, in one pass."""
    model, tables = random_model(SMALL), ropes(random_model(SMALL))
    cond = conditioning(SMALL, F=CHUNK * 6, H=H, W=W, B=4)
    x = torch.randn(cond.latents.shape, generator=torch.Generator().manual_seed(5))
    sizes, ages = (1, 2, 1), (0, 2, 5)

    def run(cache: KVCache, rows: slice, chunk: int) -> Tensor:
        frames = slice(CHUNK * chunk, CHUNK * (chunk + 1))
        one = part(cond, chunk)
        assert one.audio and one.mode is not None and one.previous is not None
        # Chunk 0 has other audio windows than later ones, so all are given those of chunk 1.
        audio = part(cond, 1).audio
        assert audio
        heard = replace(
            one,
            latents=one.latents[rows],
            mask=one.mask[rows],
            mode=one.mode[rows],
            previous=one.previous[rows],
            audio=AudioWindows(audio.first[rows], audio.rest[rows]),
        )
        out = model(x[rows, :, frames], torch.full((rows.stop - rows.start,), 0.7), heard, Past([cache], 0, tables))
        cache.advance()
        return out

    rows = [slice(0, 1), slice(1, 3), slice(3, 4)]
    alone, together = ([empty_cache(model, size, 1) for size in sizes] for _ in range(2))
    for caches in (alone, together):
        for cache, row, age in zip(caches, rows, ages, strict=True):
            for chunk in range(age):
                run(cache, row, chunk)
    expected = [run(cache, row, age) for cache, row, age in zip(alone, rows, ages, strict=True)]
    frames = [slice(CHUNK * age, CHUNK * (age + 1)) for age in ages]

    def gather(tensor: Tensor) -> Tensor:
        return torch.cat([tensor[row, :, at] for row, at in zip(rows, frames, strict=True)])

    audio, mode, previous = part(cond, 1).audio, cond.mode, cond.previous
    assert audio and mode is not None and previous is not None
    batch = replace(
        cond,
        latents=gather(cond.latents),
        mask=gather(cond.mask),
        audio=audio,
        mode=torch.cat([mode[row, at] for row, at in zip(rows, frames, strict=True)]),
        previous=gather(previous),
    )
    out = model(gather(x), torch.full((4,), 0.7), batch, Past(together, 0, tables))
    torch.testing.assert_close(out, torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_no_gradient_from_chunk_to_chunk_nor_step_to_step() -> None:
    student = few_steps(random_model(SMALL))
    cond = conditioning(SMALL, F=CHUNK * 2, H=H, W=W)
    noise = torch.randn(2, *cond.latents.shape, generator=torch.Generator().manual_seed(5)).requires_grad_()
    cache = student.empty_cache(2, torch.float32)
    for chunk in range(2):
        part_of_noise = noise[:, :, :, CHUNK * chunk : CHUNK * (chunk + 1)]
        made = denoise_chunk(student, part_of_noise, SIGMAS, part(cond, chunk), [cache])
    made[1].sum().backward()
    assert noise.grad is not None
    assert noise.grad[1, :, :, CHUNK:].abs().sum() > 0
    assert noise.grad[0].abs().sum() == 0 and noise.grad[1, :, :, :CHUNK].abs().sum() == 0
