"""Batches come out of the workers as they went in, in order."""

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from talkingmachines.training.loading import load


class Mixed(Dataset[dict[str, Tensor]]):
    """Tensors of many kinds: not contiguous, without a dimension, empty, of odd sizes."""

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(step)
        return {
            "odd": torch.randint(256, (3, 5, 7), dtype=torch.uint8, generator=g),
            "turned": torch.randn(4, 6, generator=g).T,
            "expanded": torch.randn(2, 1, generator=g).expand(2, 9),
            "step": torch.tensor(step),
            "flags": torch.rand(13, generator=g) < 0.5,
            "half": torch.randn(3, generator=g).half(),
            "none": torch.zeros(0, 4),
            "double": torch.randn(2, 2, dtype=torch.float64, generator=g),
        }


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_in_order(workers: int) -> None:
    steps = [3, 4, 8, 1]
    made = list(load(Mixed(), steps, workers, torch.device("cpu")))
    assert len(made) == len(steps)
    for step, batch in zip(steps, made, strict=True):
        wanted = Mixed()[step]
        assert list(batch) == list(wanted)
        for name, tensor in batch.items():
            assert tensor.dtype == wanted[name].dtype and torch.equal(tensor, wanted[name])


def test_an_error_of_a_worker_is_raised() -> None:
    class Broken(Dataset[dict[str, Tensor]]):
        def __getitem__(self, step: int) -> dict[str, Tensor]:
            raise ValueError("no such clip")

    with pytest.raises(ValueError, match="no such clip"):
        list(load(Broken(), [0], 1, torch.device("cpu")))
