"""Training of what finds faces, on drawn pictures."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from talkingmachines.framing.finder import CELL, FaceFinder

_SPREAD = 0.25
"""Radius of the middle of a face, over its size."""


class FinderStage:
    """Batches: pixels uint8 [B, H, W, 3]; places [B, 3, 2] in pixels; seen bool [B]: whether there is a face at all.

    Scores learn from a soft spot around the middle of each face by CenterNet's focal loss (arXiv 1904.07850, equation
    1), places from the cells within it, over the size of the face.
    """

    name = "finder"

    def __init__(self, model: FaceFinder, batches: Dataset[dict[str, Tensor]]) -> None:
        self.model: nn.Module = model
        self.batches = batches

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        logits, places = self.model(batch["pixels"].movedim(-1, 1).float() / 127.5 - 1)
        true, seen = batch["places"], batch["seen"]
        eyes, mouth = true[:, :2].mean(1), true[:, 2]
        size = ((mouth - eyes).norm(dim=-1) * (true[:, 1] - true[:, 0]).norm(dim=-1)).sqrt().clamp(min=1)
        heat = _spots(logits.shape[1:], (eyes + mouth) / 2, size) * seen[:, None, None]
        score = focal(logits, heat)
        inside = (heat > 0.4)[..., None, None] * heat[..., None, None]
        error = F.smooth_l1_loss(places, true[:, None, None].expand_as(places), beta=1.0, reduction="none")
        error = error / size[:, None, None, None, None]
        placed = (inside * error).sum() / (6 * inside.sum()).clamp(min=1)
        off = ((places - true[:, None, None]).norm(dim=-1).mean(-1) / size[:, None, None] * inside[..., 0, 0]).sum()
        return {
            "loss": score + 10 * placed,
            "score": score.detach(),
            "off": (off / inside.sum().clamp(min=1)).detach(),
        }

    def sample_grid(self, model: nn.Module) -> np.ndarray:
        """What it learns from: 16 pictures with their places as white squares."""
        batch = self.batches[0]
        pixels = batch["pixels"][:16].numpy().copy()
        for picture, places in zip(pixels, batch["places"].round().long().tolist(), strict=False):
            for x, y in places:
                if 1 <= x < picture.shape[1] - 1 and 1 <= y < picture.shape[0] - 1:
                    picture[y - 1 : y + 2, x - 1 : x + 2] = 255
        rows = pixels.reshape(4, -1, *pixels.shape[1:])
        return rows.swapaxes(1, 2).reshape(4 * pixels.shape[1], -1, 3)


def _spots(shape: torch.Size, middles: Tensor, size: Tensor) -> Tensor:
    """A Gaussian around each middle [B, 2], in pixels; 1 in the cell that it lies in. [B, h, w]."""
    y, x = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    cells = (torch.stack([x, y], -1).to(middles) + 0.5) * CELL
    away = (cells - middles[:, None, None]).abs()
    radius = (_SPREAD * size).clamp(min=0.5 * CELL)[:, None, None]
    heat = torch.exp(-away.square().sum(-1) / (2 * radius.square()))
    return torch.where(away.amax(-1) <= CELL / 2, torch.ones_like(heat), heat)


def focal(logits: Tensor, heat: Tensor) -> Tensor:
    """CenterNet's: what is nearly right counts little, and so does a high score near the middle of a face."""
    middle = heat == 1
    chance = logits.sigmoid()
    found = -((1 - chance) ** 2) * F.logsigmoid(logits) * middle
    wrong = -((1 - heat) ** 4) * chance**2 * F.logsigmoid(-logits) * ~middle
    return (found + wrong).sum() / middle.sum().clamp(min=1)
