"""Linear layers in eight bits, rounded as on a GPU and multiplied in float32."""

import pytest
import torch
from dit_models import conditioning, noisy, random_model
from torch import nn

from talkingmachines.attention.attention import products
from talkingmachines.dit.config import AudioConfig, DiTConfig, ImageConfig, TextConfig
from talkingmachines.dit.fp8 import (
    FLOAT8,
    LAYER_LIMIT,
    Float8Linear,
    check_fp8,
    layer_error,
    quantise_fp8,
    relative_error,
    to_float8,
)
from talkingmachines.errors import ConfigError

CONFIG = DiTConfig(
    width=48,
    ffn_width=64,
    heads=2,
    layers=2,
    freq_dim=32,
    text=TextConfig(dim=10, length=5),
    image=ImageConfig(dim=14, tokens=4),
    audio=AudioConfig(feature_dim=6, feature_layers=2, hidden=16, context_tokens=3, width=16),
)


def linear(rows: int = 64, columns: int = 96) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(columns, rows).requires_grad_(False)


def test_a_row_keeps_its_own_scale() -> None:
    rows = torch.randn(5, 96, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-6, 1, 30, 1e4, 0])[:, None]
    rounded, scale = to_float8(rows)
    assert rounded.dtype == FLOAT8 and scale.shape == (5, 1)
    back = rounded.float() * scale
    assert ((back - rows).norm(dim=1) <= 0.03 * rows.norm(dim=1)).all()
    torch.testing.assert_close(back.abs().amax(1), rows.abs().amax(1))


def test_the_error_of_a_layer_is_that_of_two_roundings() -> None:
    """0.026 for each factor, so 0.037 for the product."""
    assert 0.03 < layer_error(linear(), Float8Linear(linear())) < 0.045 < LAYER_LIMIT


def test_emulation_equals_the_scaled_product() -> None:
    """The same rounded numbers through the operation that a GPU runs; torch has it for processors too."""
    layer = Float8Linear(linear())
    x = torch.randn(2, 7, 96, generator=torch.Generator().manual_seed(1)).bfloat16()
    rows, scale = to_float8(x.flatten(0, 1))
    try:
        theirs = layer._scaled(rows, scale, torch.bfloat16)
    except (RuntimeError, NotImplementedError):
        pytest.skip("this torch has no scaled product for processors")
    made = layer(x)
    assert made.shape == (2, 7, 64) and made.dtype == torch.bfloat16
    torch.testing.assert_close(made.flatten(0, 1), theirs, atol=2e-2, rtol=2e-2)


@torch.no_grad()
def test_a_model_in_eight_bits() -> None:
    plain, model = random_model(CONFIG), random_model(CONFIG)
    kept = model.head.head.weight.clone()
    errors = quantise_fp8(model)
    assert 0.02 < errors.layer < LAYER_LIMIT and 0.005 < errors.velocity < 0.15
    replaced = {name for name, module in model.named_modules() if isinstance(module, Float8Linear)}
    linears = {name for name, module in plain.blocks.named_modules(prefix="blocks") if isinstance(module, nn.Linear)}
    assert replaced == linears and len(replaced) == 2 * (4 + 6 + 3 + 2)
    assert torch.equal(model.head.head.weight, kept)
    cond = conditioning(CONFIG)
    x, sigma = noisy(cond)
    error = relative_error(model(x, sigma, cond), plain(x, sigma, cond))
    assert 0.005 < error < 0.15
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x, sigma, cond)
    assert relative_error(half, model(x, sigma, cond)) < 0.1


def test_above_the_limit_it_is_refused_and_nothing_has_changed() -> None:
    model = random_model(CONFIG)
    with pytest.raises(ConfigError, match=r"blocks\.\d.+ would be off by \d\.\d%, more than 1\.0%; run .* without fp8"):
        quantise_fp8(model, limit=0.01)
    assert not any(isinstance(module, Float8Linear) for module in model.modules())


def test_not_finite_weights_are_refused() -> None:
    model = random_model(CONFIG)
    with torch.no_grad():
        model.blocks[0].self_attn.q.weight[3, 3] = torch.nan
    with pytest.raises(ConfigError, match=r"blocks\.0\.self_attn\.q would be off by inf"):
        quantise_fp8(model)


def test_it_is_refused_without_a_gpu() -> None:
    with pytest.raises(ConfigError, match="fp8 needs a GPU"):
        check_fp8(torch.device("cpu"))


def test_attention_is_still_to_be_chosen() -> None:
    model = random_model(CONFIG)
    quantise_fp8(model)
    model.use_attention(products)
    assert model.blocks[1].audio_cross_attn.attention is products
