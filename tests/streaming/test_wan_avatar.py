"""Loading what has encoders, and what is said when something is missing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from stream_models import sound
from wan_models import encoders, tiny_wan, wan_models

from talkingmachines import avatar as avatar_module
from talkingmachines.avatar import load, memory_needed
from talkingmachines.errors import CheckpointError, ConfigError
from talkingmachines.presets import PRESETS, wan_14b
from talkingmachines.vae.wan import WanVAE
from talkingmachines.weights import save_weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(PRESETS, "tiny_wan", tiny_wan)
    for name, model in zip(("student", "vae"), wan_models(), strict=True):
        save_weights(tmp_path, name, model, {"preset": "tiny_wan"})
    return tmp_path


def test_loaded_with_its_encoders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(avatar_module, "load_encoders", lambda *given: (asked.append(given), encoders())[1])
    avatar = load(str(folder), device="cpu", dtype=torch.float32, shape=(32, 48), prompt="a man talks")
    assert asked == [
        (folder / "encoders", folder / "encoders" / "speech_encoder", torch.device("cpu"), 5, "a man talks")
    ]
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    with avatar.session(picture) as session:
        assert len(session.push_audio(sound(640 * 13))) == 13
    assert isinstance(avatar.vae, WanVAE) and avatar.chunk_frames == 8


def test_what_is_missing_is_said_before_anything_is_loaded(folder: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match=r"encoders does not exist: .* encoders="):
        load(str(folder), device="cpu")
    (folder / "encoders").mkdir()
    with pytest.raises(CheckpointError, match=r"speech_encoder does not exist: .* speech_encoder="):
        load(str(folder), device="cpu")
    with pytest.raises(ConfigError, match="fp8 needs a GPU"):
        load(str(folder), device="cpu", fp8=True)
    with pytest.raises(ConfigError, match="multiples of 16, got 500x512"):
        load(str(folder), device="cpu", shape=(500, 512))


def test_memory_of_the_full_size() -> None:
    """As docs/full-size.md has it: 37.8 GB of weights, 19.5 in eight bits, and 10.1 GB for a call."""
    spec = wan_14b()
    assert memory_needed(spec, (512, 512), fp8=False) == pytest.approx(47.8e9, rel=0.01)
    assert memory_needed(spec, (512, 512), fp8=True) == pytest.approx(37.8e9, rel=0.01)
    assert memory_needed(spec, (512, 256), fp8=False) == pytest.approx(42.8e9, rel=0.01)
