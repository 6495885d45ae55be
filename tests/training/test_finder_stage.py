import numpy as np
import pytest
import torch
from torch import Tensor

from talkingmachines.framing.finder import CELL, FaceFinder
from talkingmachines.training.finder import FinderStage, focal

pytest.importorskip("skia")


class OneFace:
    """A dark blot on grey, whose places are known."""

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng(step)
        pixels = np.full((8, 64, 64, 3), 128, np.uint8)
        places = np.zeros((8, 3, 2), np.float32)
        for index in range(7):
            x, y = rng.integers(16, 48, 2)
            pixels[index, y - 8 : y + 8, x - 8 : x + 8] = 10
            places[index] = [(x - 6, y - 6), (x + 6, y - 6), (x, y + 6)]
        return {
            "pixels": torch.from_numpy(pixels),
            "places": torch.from_numpy(places),
            "seen": torch.arange(8) < 7,
        }


def test_it_learns_to_find() -> None:
    torch.manual_seed(0)
    model = FaceFinder()
    stage = FinderStage(model, OneFace())  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    first = None
    for step in range(60):
        losses = stage.losses(stage.batches[step], torch.Generator())
        first = first or float(losses["off"])
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    assert float(losses["off"]) < 0.35 < first
    batch = stage.batches[1000]
    with torch.no_grad():
        logits, _ = model(batch["pixels"].movedim(-1, 1).float() / 127.5 - 1)
    best = logits.flatten(1).argmax(1)[:7]
    cells = torch.stack([best % 8, best // 8], 1)
    middles = (batch["places"][:7, :2].mean(1) + batch["places"][:7, 2]) / 2 / CELL - 0.5
    assert (cells - middles).abs().max() < 1.5
    assert logits[7].max() < logits[:7].flatten(1).amax(1).min()


def test_focal_is_the_papers() -> None:
    chance = torch.tensor([[0.7, 0.2, 0.9]], dtype=torch.float64)
    heat = torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64)
    # Zhou et al. 2019, equation 1, alpha 2 and beta 4.
    by_hand = -(0.3**2 * np.log(0.7) + 0.5**4 * 0.2**2 * np.log(0.8) + 0.9**2 * np.log(0.1))
    assert float(focal(chance.logit(), heat)) == pytest.approx(by_hand)


def test_a_batch_without_faces_has_a_loss() -> None:
    batch = OneFace()[0]
    batch["seen"] = torch.zeros(8, dtype=torch.bool)
    losses = FinderStage(FaceFinder(), OneFace()).losses(batch, torch.Generator())  # type: ignore[arg-type]
    assert float(losses["loss"].detach()) > 0 and float(losses["off"]) == 0


def test_the_shown_grid_has_sixteen_pictures() -> None:
    class Sixteen(OneFace):
        def __getitem__(self, step: int) -> dict[str, Tensor]:
            return {name: torch.cat([tensor, tensor]) for name, tensor in super().__getitem__(step).items()}

    grid = FinderStage(FaceFinder(), Sixteen()).sample_grid(FaceFinder())  # type: ignore[arg-type]
    assert grid.shape == (256, 256, 3) and (grid == 255).any()
