import pytest
from checkpoint_models import SMALL

from talkingmachines import presets


@pytest.fixture(autouse=True)
def small_wan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small Wan is a preset like any other."""
    monkeypatch.setitem(presets.PRESETS, SMALL.name, lambda: SMALL)
