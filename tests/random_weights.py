"""Models whose every parameter is random, also those that begin at zero or one."""

from pathlib import Path

import torch
from torch import nn

from talkingmachines.encoders.gestures import Gestures
from talkingmachines.encoders.hearing import Hearing
from talkingmachines.presets import tiny
from talkingmachines.weights import save_weights


def save_features(folder: Path) -> None:
    """What the tiny preset hears with, beside its other weights."""
    spec = tiny()
    assert spec.hearing and spec.gestures
    save_weights(folder, "hearing", Hearing(spec.hearing), {"preset": "tiny"})
    save_weights(folder, "gestures", Gestures(spec.gestures), {"preset": "tiny"})


def randomise(model: nn.Module, seed: int, gain: float = 1.0, vectors: float = 0.1) -> None:
    """gain: of matrices, where 1 keeps the spread of what goes through; vectors: spread of biases and the like."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = vectors if parameter.ndim == 1 else gain * parameter[0].numel() ** -0.5
            if name.startswith("refiner."):  # it multiplies: what is large grows from chunk to chunk
                scale *= 0.4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + ("norm" in name))
