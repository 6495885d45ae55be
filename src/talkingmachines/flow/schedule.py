"""Which sigmas are visited: when sampling and when training."""

import torch
from torch import Tensor

from talkingmachines.errors import ConfigError


def shift_sigmas(sigmas: Tensor, shift: float) -> Tensor:
    """Spend more of [0, 1] near noise: shift * sigma / (1 + (shift - 1) * sigma). 1 leaves all as it is."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def sampling_sigmas(num_steps: int, shift: float) -> Tensor:
    """[num_steps + 1] float32, falling from exactly 1 to exactly 0."""
    if num_steps < 1 or shift <= 0:
        raise ConfigError(f"sampling needs num_steps >= 1 and shift > 0, got {num_steps} and {shift}")
    return shift_sigmas(torch.linspace(1, 0, num_steps + 1, dtype=torch.float64), shift).float()


def training_sigmas(batch: int, shift: float, generator: torch.Generator) -> Tensor:
    """[batch] float32 in (0, 1), on the generator's device: the logistic of a standard normal, then shifted."""
    normal = torch.randn(batch, generator=generator, device=generator.device)
    return shift_sigmas(normal.sigmoid(), shift)
