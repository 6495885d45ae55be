"""The numbers of a DiT: checked, and those of the 14B give the 14B."""

import pytest
import torch
from dit_models import AUDIO, SMALL, WAN

from talkingmachines.dit.config import AudioConfig, DiTConfig, ImageConfig, TextConfig
from talkingmachines.dit.model import DiT
from talkingmachines.errors import ConfigError


def test_native_names() -> None:
    names = {name for name, _ in DiT(WAN).named_parameters()}
    pairs = [f"text_embedding.{i}" for i in (0, 2)] + [f"time_embedding.{i}" for i in (0, 2)]
    pairs += ["patch_embedding", "time_projection.1", "head.head", *(f"img_emb.proj.{i}" for i in (0, 1, 3, 4))]
    pairs += [f"audio_proj.{name}" for name in ("proj1", "proj1_vf", "proj2", "proj3", "norm")]
    expected = {f"{pair}.{part}" for pair in pairs for part in ("weight", "bias")}
    expected |= {"head.modulation", "audio_mode.weight"}
    for layer in range(WAN.layers):
        layers = [f"self_attn.{name}" for name in "qkvo"]
        layers += [f"cross_attn.{name}" for name in ("q", "k", "v", "o", "k_img", "v_img")]
        layers += [f"audio_cross_attn.{name}" for name in ("q_linear", "kv_linear", "proj")]
        layers += ["norm3", "norm_x", "ffn.0", "ffn.2"]
        expected |= {f"blocks.{layer}.{name}.{part}" for name in layers for part in ("weight", "bias")}
        norms = ["self_attn.norm_q", "self_attn.norm_k"]
        norms += [f"cross_attn.{name}" for name in ("norm_q", "norm_k", "norm_k_img")]
        expected |= {f"blocks.{layer}.{name}.weight" for name in norms}
        expected.add(f"blocks.{layer}.modulation")
    assert names == expected


def test_layers_that_are_not_configured_are_not_there() -> None:
    names = {name for name, _ in DiT(SMALL).named_parameters()}
    absent = (".cross_attn.", "norm3", "img", "text")
    assert not [name for name in names if any(part in name for part in absent)]


def count(config: DiTConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in DiT(config).parameters())


def test_size_of_the_14b() -> None:
    audio = AudioConfig(feature_dim=768, feature_layers=12, window=5, hidden=512, context_tokens=32, width=768)
    numbers = {"width": 5120, "ffn_width": 13824, "heads": 40, "layers": 40}
    context = {"text": TextConfig(), "image": ImageConfig()}
    assert DiTConfig(**numbers).in_channels == 36
    base, heard = count(DiTConfig(**numbers, **context)), count(DiTConfig(**numbers, **context, audio=audio))
    assert 16.3e9 < base < 16.5e9
    assert 18e9 < heard < 19e9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 50, "heads": 4}, "width 50 must be a multiple of heads 4"),
        ({"width": 16, "heads": 4}, "got 4"),
        ({"layers": 0}, "layers must be positive, got 0"),
        ({"patch": (2, 2, 2)}, r"\(2, 2, 2\)"),
        ({"prediction": "noise"}, "'noise'"),
        ({"image": ImageConfig()}, "needs DiTConfig.text"),
        ({"freq_dim": 255}, "255"),
        ({"reference": "never"}, "'never'"),
        ({"reference": "once", "prediction": "x0"}, "'repeated'"),
    ],
)
def test_unusable_numbers(change: dict[str, object], message: str) -> None:
    numbers = {"width": 48, "ffn_width": 64, "heads": 2, "layers": 2, "audio": AUDIO}
    with pytest.raises(ConfigError, match=message):
        DiTConfig(**{**numbers, **change})


def test_audio_window_is_odd() -> None:
    with pytest.raises(ConfigError, match="got 4"):
        AudioConfig(feature_dim=80, window=4)
