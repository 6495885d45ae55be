"""Batches come out of the workers as they went in, in order."""

from multiprocessing import active_children

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
    with load(Mixed(), steps, workers, torch.device("cpu")) as batches:
        made = list(batches)
    assert len(made) == len(steps)
    for step, batch in zip(steps, made, strict=True):
        wanted = Mixed()[step]
        assert list(batch) == list(wanted)
        for name, tensor in batch.items():
            assert tensor.dtype == wanted[name].dtype and torch.equal(tensor, wanted[name])


def test_an_error_of_a_worker_is_raised_and_ends_it() -> None:
    class Broken(Dataset[dict[str, Tensor]]):
        def __getitem__(self, step: int) -> dict[str, Tensor]:
            raise ValueError("no such clip")

    with (
        pytest.raises(ValueError, match="no such clip") as error,
        load(Broken(), [0], 1, torch.device("cpu")) as batches,
    ):
        next(batches)
    assert not active_children(), error  # whose traceback holds what they were made by


def test_no_worker_outlives_an_error_of_who_trains() -> None:
    """They ignore SIGTERM, by which a program ends what is left: it would wait for them for ever."""
    with (
        pytest.raises(ZeroDivisionError) as error,
        load(Mixed(), range(1000), 2, torch.device("cpu")) as batches,
    ):
        next(batches)
        assert len(active_children()) == 2
        raise ZeroDivisionError
    assert not active_children(), error
