"""`convert`: from the files of others to a folder that loads, and one line for what cannot be."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from talkingmachines import presets
from talkingmachines.cli.main import main
from talkingmachines.dit.config import AudioConfig, DiTConfig, ImageConfig, TextConfig
from talkingmachines.dit.model import DiT
from talkingmachines.dit.weights import AUDIO_LAYERS, is_part_of
from talkingmachines.presets import Preset
from talkingmachines.vae.wan_config import WanVAEConfig
from talkingmachines.weights import load_weights, read_preset

AUDIO = AudioConfig(feature_dim=6, hidden=16, context_tokens=2, width=12)
SMALL = Preset(
    "small_wan",
    32,
    DiTConfig(24, 32, 2, 1, freq_dim=16, text=TextConfig(8, 4), image=ImageConfig(8, 4), audio=AUDIO),
    WanVAEConfig(),
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `wan`, a file audio.safetensors and a file lora.safetensors."""
    monkeypatch.setitem(presets.PRESETS, SMALL.name, lambda: SMALL)
    torch.manual_seed(0)
    weights = {name: torch.randn(tensor.shape) for name, tensor in DiT(SMALL.dit).state_dict().items()}
    heard = {name: tensor for name, tensor in weights.items() if is_part_of(name, AUDIO_LAYERS)}
    (tmp_path / "wan").mkdir()
    save_file({name: weights[name] for name in weights if name not in heard}, tmp_path / "wan" / "a.safetensors")
    save_file({name: heard[name] for name in heard if "mode" not in name}, tmp_path / "audio.safetensors")
    low = {"blocks.0.ffn.2.lora_A.weight": torch.ones(1, 32), "blocks.0.ffn.2.lora_B.weight": torch.ones(24, 1)}
    save_file(low, tmp_path / "lora.safetensors")
    return tmp_path


def convert(files: Path, *more: str) -> int:
    return main(["convert", "--wan", str(files / "wan"), "--out", str(files / "out"), *more])


def test_convert(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--audio", str(files / "audio.safetensors"), "--lora", str(files / "lora.safetensors")]
    assert convert(files, *more, "--as", "student") == 0
    said = capsys.readouterr().out
    assert "student of preset small_wan" in said and "no autoencoder" in said and "no audio" not in said
    assert read_preset(files / "out", "student") == SMALL
    model = DiT(SMALL.dit)
    load_weights(files / "out", "student", model)
    assert model.blocks[0].audio_cross_attn.proj.weight.any()


def test_without_audio_layers(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(files) == 0
    assert "no audio layers were given" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--audio", "AUDIO.pth"], "runs code"),
        (["--lora", "wan/a.safetensors"], "not part of a LoRA"),
        (["--from-text"], "leave out --from-text"),
        (["--as", "critic"], "'critic'"),
    ],
)
def test_one_line_and_nothing_written(
    files: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    (files / "AUDIO.pth").write_bytes(b"pickle")
    assert convert(files, *(str(files / part) if "." in part else part for part in more)) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not (files / "out").exists() and not (files / "out.partial").exists()
