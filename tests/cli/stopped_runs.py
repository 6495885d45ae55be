"""Training that is stopped by itself, and whether it made the same weights as training that was not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from talkingmachines.cli import training_run
from talkingmachines.weights import shard_paths


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Every stage that has more steps left than these is stopped after them, as by Ctrl-C."""

    @contextmanager
    def signal() -> Iterator[Callable[[], bool]]:
        taken = count(1)
        yield lambda: next(taken) == steps

    monkeypatch.setattr(training_run, "_stop_signal", signal)


def same_weights(one: Path, other: Path, name: str) -> None:
    """To the bit; what is said of them may differ in the minutes that they took."""
    paths = shard_paths(one, name)
    assert paths
    for path in paths:
        first, second = load_file(path), load_file(other / path.name)
        for key, tensor in first.items():
            assert torch.equal(tensor, second[key]), (name, key)
