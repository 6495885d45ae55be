"""Exponential moving average of a model's weights."""

import copy

import torch
from torch import nn


class EMA:
    """Keeps `model`, a float32 copy whose weights trail the trained ones.

    The decay grows from 2 / 11 to its full value, so that a short run is not held back by its random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged: list[torch.Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(averaged, [p.detach() for p in model.parameters()], 1 - decay)
