"""Layers that have a faster way where no gradient is wanted."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from talkingmachines.dit import layers
from talkingmachines.dit.layers import FeedForward, RMSNorm, TanhGELU


@pytest.mark.parametrize("slow_tanh", sorted({layers._SLOW_TANH, True}))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_feed_forward_is_the_same_without_gradients(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, slow_tanh: bool
) -> None:
    monkeypatch.setattr(layers, "_SLOW_TANH", slow_tanh)
    torch.manual_seed(0)
    layer, x = FeedForward(24, 48).to(dtype), torch.randn(2, 5, 24).to(dtype)
    wanted = nn.Sequential.forward(layer, x)
    with torch.no_grad():
        made = layer(x)
    assert layer(x).requires_grad and torch.equal(layer(x), wanted)
    assert made.dtype == dtype
    assert (made - wanted).norm() / wanted.norm() < {torch.float32: 1e-6, torch.bfloat16: 1e-2}.get(dtype, 1e-12)


@torch.no_grad()
def test_gelu_by_the_sigmoid_is_that_by_tanh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_SLOW_TANH", True)
    x = torch.linspace(-20, 20, 4001)
    made = TanhGELU()(x)
    assert torch.equal(x, torch.linspace(-20, 20, 4001))
    torch.testing.assert_close(made, F.gelu(x.double(), approximate="tanh").float(), atol=2e-6, rtol=0)


@torch.no_grad()
def test_feed_forward_under_autocast_with_weights_that_are_not_rounded() -> None:
    torch.manual_seed(0)
    layer, x = FeedForward(24, 48), torch.randn(2, 5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        for given in (x, x.bfloat16()):
            assert torch.equal(layer(given), nn.Sequential.forward(layer, given))


def test_rms_norm_is_its_definition() -> None:
    layer, x = RMSNorm(24, 1e-3), torch.randn(2, 5, 24)
    nn.init.normal_(layer.weight)
    wanted = F.normalize(x.double(), dim=-1) * 24**0.5 * layer.weight
    close = x.square().mean(-1, keepdim=True)
    torch.testing.assert_close(layer(x), (wanted * (close / (close + 1e-3)).sqrt()).float(), atol=1e-5, rtol=1e-5)
    assert layer(x.bfloat16()).dtype == torch.float32
