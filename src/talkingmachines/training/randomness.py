"""Randomness of a step, the same however the run was interrupted."""

from collections.abc import Sequence

import torch
from torch import Tensor


def step_generator(seed: int, step: int) -> torch.Generator:
    """Of one step, on the processor."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def normal(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of the dtype and on the device of `like`. generator: on the processor.

    Drawn there too, the noise of a large batch would take longer than all else that a GPU does in a step.
    """
    if like.device.type != "cpu":
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=like.device).to(like)
