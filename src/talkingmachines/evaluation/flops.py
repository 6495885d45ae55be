"""How much arithmetic a pass is, how much this machine does in a second, and so how fast it could be at best.

A product of [M, K] and [K, N] is 2 M K N operations. L query tokens, S key tokens, D width.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from talkingmachines.audio.alignment import FRAMES_PER_LATENT
from talkingmachines.dit.config import DiTConfig
from talkingmachines.dit.fp8 import to_float8
from talkingmachines.dit.model import DiT

TERA = 1e12


@dataclass(frozen=True)
class Flops:
    """Operations: of products with weights, and of queries with keys and values."""

    linear: int
    attention: int

    @property
    def total(self) -> int:
        return self.linear + self.attention


def pass_flops(config: DiTConfig, tokens: int, keys: int) -> Flops:
    """Of one pass over L = `tokens` of a chunk that see S = `keys`, with all prepared that is made once for a chunk."""
    L, D, cell = tokens, config.width, config.patch[1] * config.patch[2]
    told, text, image, audio = 0, config.text, config.image, config.audio
    squares = 4 + 2 * (text is not None) + 2 * (audio is not None)
    for seen in (text and text.length, image and image.tokens, audio and audio.context_tokens):
        told += seen or 0
    layer = 2 * L * D * (squares * D + 2 * config.ffn_width)
    ends = 2 * L * D * cell * (config.in_channels + config.out_channels)
    return Flops(
        config.layers * layer + ends + _refiner_flops(config, L * cell), 4 * config.layers * L * D * (keys + told)
    )


def _refiner_flops(config: DiTConfig, cells: int) -> int:
    if config.refiner is None:
        return 0
    width, C, warp = config.refiner.width, config.latent_channels, config.refiner.warp
    seen = config.in_channels - config.mask_channels
    nine = (config.out_channels + seen) * width + 2 * config.refiner.layers * width**2 + width * C
    nine += 2 * width * (seen + C)
    one = 2 * width**2 + 2 * width * C
    if warp:
        nine += width**2 + C * width + 2 * width * C
        one += 2 * FRAMES_PER_LATENT * width + width * C + (1 + FRAMES_PER_LATENT) * warp.channels * warp.fine**2 * C
    return 2 * cells * (9 * nine + one)


def parameters_of(config: DiTConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in DiT(config).parameters())


def floor_seconds(config: DiTConfig, tokens: int, keys: int, steps: int, peak: float, attention_peak: float) -> float:
    """The least that a chunk can take, as the paper's arithmetic has it: 2 x parameters x tokens, and attention.

    peak: operations a second of products with weights; attention_peak: of attention. The autoencoder comes to it.
    """
    attention = 4 * config.layers * tokens * config.width * keys
    return steps * (2 * parameters_of(config) * tokens / peak + attention / attention_peak)


def measured_peak(device: torch.device, dtype: torch.dtype, fp8: bool = False, seconds: float = 0.5) -> float:
    """Operations a second of large products, which nothing that the machine does will exceed by much."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    multiply: Callable[[], Tensor] = lambda: a @ b  # noqa: E731
    if fp8:
        (a8, a_scale), (b8, b_scale) = to_float8(a), to_float8(b)
        multiply = lambda: torch._scaled_mm(  # noqa: E731
            a8, b8.t(), scale_a=a_scale, scale_b=b_scale.t(), out_dtype=torch.bfloat16, use_fast_accum=True
        )
    took = _timed(multiply, 3, device) / 3
    repeats = max(3, round(seconds / took))
    return 2 * size**3 * repeats / _timed(multiply, repeats, device)


def _timed(work: Callable[[], Tensor], repeats: int, device: torch.device) -> float:
    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    work()
    began = now()
    for _ in range(repeats):
        work()
    return now() - began
