"""Layers that compute in float32 whatever they are given, and the cast back."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FUSED = (torch.float32, torch.bfloat16) if torch.backends.mkldnn.is_available() else ()
"""What oneDNN's kernels take."""

_SLOW_TANH = torch.backends.cpu.get_cpu_capability() != "AVX512"
"""Whether a tanh takes several times as long as a sigmoid, in torch's kernels and in oneDNN's."""

_SLOPE = math.sqrt(8 / math.pi)
"""tanh(a / 2) = 2 sigmoid(a) - 1, with which GELU by tanh is x sigmoid(_SLOPE (x + 0.044715 x^3))."""


def compute_dtype(x: Tensor) -> torch.dtype:
    """What linear layers will work in: autocast's dtype where it is on, else that of x.

    Casting once to it, before several layers read the same tensor, saves a cast in each of them.
    """
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in float32, returned in float32."""

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = (None if p is None else p.float() for p in (self.weight, self.bias))
        return F.layer_norm(input.float(), self.normalized_shape, weight, bias, self.eps)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, in float32, returned in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps)


class TanhGELU(nn.Module):
    """GELU by tanh (Hendrycks and Gimpel 2016, section 2), or by the sigmoid that is the same."""

    def forward(self, x: Tensor) -> Tensor:
        if _SLOW_TANH and x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled():
            # Of one and the same tensor, but for the first step: a third of the time.
            return torch.addcmul(x.new_tensor(_SLOPE), x, x, value=0.044715 * _SLOPE).mul_(x).sigmoid_().mul_(x)
        return F.gelu(x, approximate="tanh")


class FeedForward(nn.Sequential):
    """Linear, GELU by tanh, linear."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__(nn.Linear(width, inner), TanhGELU(), nn.Linear(inner, width))

    def forward(self, input: Tensor) -> Tensor:
        first, gelu, second = self
        if type(first) is nn.Linear and _fuses(first, input):
            # One kernel of oneDNN, in 40% of the time of two.
            return second(torch.ops.mkldnn._linear_pointwise(input, first.weight, first.bias, "gelu", [], "tanh"))
        return second(gelu(first(input)))


def _fuses(linear: nn.Linear, x: Tensor) -> bool:
    """Whether oneDNN may compute it, and is quick: on a processor, without a gradient, nothing to be cast before."""
    plain = x.device.type == "cpu" and not torch.is_grad_enabled() and not _SLOW_TANH
    return plain and x.dtype in _FUSED and x.dtype == linear.weight.dtype == compute_dtype(x)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift."""
    return torch.addcmul(shift, x, 1 + scale)
