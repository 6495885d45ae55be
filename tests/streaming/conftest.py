import pytest
import torch
from stream_models import random_engine

from talkingmachines.streaming import engine as engine_module
from talkingmachines.streaming.engine import Engine


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways of computing the same agree to 1e-4 only so."""
    monkeypatch.setattr(engine_module, "fast_autocast", lambda device: torch.autocast(device.type, enabled=False))


@pytest.fixture(scope="session")
def engine() -> Engine:
    return random_engine()
