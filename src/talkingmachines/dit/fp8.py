"""Linear layers in eight-bit floating point, e4m3: half the memory of bfloat16 and up to twice its speed.

Each row of the weights has a scale, found once, and each row of the input one, found anew: a value that stands out
costs its own row precision and no other.

M rows of the input, N outputs.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from talkingmachines.audio.alignment import audio_windows
from talkingmachines.dit.conditioning import still_conditioning
from talkingmachines.dit.layers import compute_dtype
from talkingmachines.dit.model import DiT
from talkingmachines.errors import ConfigError

FLOAT8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(FLOAT8).max
_MULTIPLE = 16
"""Of inputs and outputs: what the tensor cores ask for."""

LAYER_LIMIT = 0.06
"""The most that a layer may be off, see `layer_error`. Rounding both factors to three bits gives 0.037."""


def to_float8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """[M, K] -> the same in e4m3, and the scale of each row [M, 1], float32: rows is about their product."""
    scale = rows.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / _LARGEST
    return (rows.float() / scale).clamp(-_LARGEST, _LARGEST).to(FLOAT8), scale


class Float8Linear(nn.Module):
    """Does what `linear` did, about. Away from CUDA it rounds the same way and multiplies in float32."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = to_float8(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.t().contiguous())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N], in the dtype that linear layers work in."""
        dtype = compute_dtype(x)
        rows, scale = to_float8(x.flatten(0, -2))
        made = self._scaled(rows, scale, dtype) if x.is_cuda else self._emulated(rows, scale, dtype)
        return made.unflatten(0, x.shape[:-1])

    def _scaled(self, rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        bias = None if self.bias is None else self.bias.to(torch.bfloat16)
        return torch._scaled_mm(
            rows,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale,
            bias=bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        ).to(dtype)

    def _emulated(self, rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            made = (rows.float() @ self.weight.float().t()) * scale * self.scale
            return (made if self.bias is None else made + self.bias.float()).to(dtype)


@torch.no_grad()
def layer_error(linear: nn.Linear, quantised: Float8Linear, rows: int = 64) -> float:
    """The norm of what quantisation changes over that of the layer's output without bias, for random normal input."""
    device, dtype = linear.weight.device, linear.weight.dtype
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, linear.in_features, generator=generator).to(device, dtype)
    zero = quantised.forward(torch.zeros_like(x[:1])).float()
    wanted = x.float() @ linear.weight.float().t()
    return relative_error(quantised.forward(x).float() - zero, wanted)


def relative_error(made: Tensor, wanted: Tensor) -> float:
    """The norm of the difference over that of what was wanted; infinite if that is no number."""
    error = float((made.float() - wanted.float()).norm() / wanted.float().norm().clamp(min=1e-12))
    return error if math.isfinite(error) else math.inf


@dataclass(frozen=True)
class Float8Errors:
    """layer: the largest of a single layer, see layer_error; velocity: of a whole pass over a small random input."""

    layer: float
    velocity: float


@torch.no_grad()
def quantise_fp8(model: DiT, limit: float = LAYER_LIMIT) -> Float8Errors:
    """Replace the linear layers of the blocks, one by one, in place, and measure what that changes.

    Those whose sizes are no multiples of 16 stay. Raises ConfigError if a layer would be off by more than `limit`;
    then the model is as it was.
    """
    errors = {name: layer_error(linear, Float8Linear(linear)) for name, _, _, linear in _linears(model)}
    if not errors:
        raise ConfigError(f"fp8: no layer of this model has sizes that are multiples of {_MULTIPLE}; leave it out")
    worst = max(errors, key=lambda name: errors[name])
    if errors[worst] > limit:
        raise ConfigError(
            f"fp8: {worst} would be off by {errors[worst]:.1%}, more than {limit:.1%}; run these weights without fp8"
        )
    before = _small_pass(model)
    for _, parent, child, linear in list(_linears(model)):
        setattr(parent, child, Float8Linear(linear))
    return Float8Errors(errors[worst], relative_error(_small_pass(model), before))


def _small_pass(model: DiT) -> Tensor:
    """A velocity for random input, the same each time: one latent frame of 8 x 8 tokens."""
    config, weight = model.config, model.head.head.weight
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(weight.device)

    rows, columns = (8 * size for size in config.patch[1:])
    text, image, audio = config.text, config.image, config.audio
    cond = replace(
        still_conditioning(randn(1, config.latent_channels, rows, columns), 1, config.mask_channels),
        text=randn(1, text.length, text.dim) if text else None,
        image=randn(1, image.tokens, image.dim) if image else None,
        audio=audio_windows(randn(1, 1, audio.feature_layers, audio.feature_dim), audio.window) if audio else None,
    )
    x = randn(1, config.latent_channels, 1, rows, columns)
    with torch.autocast(weight.device.type, torch.bfloat16, enabled=weight.dtype != torch.float32):
        return model(x, torch.full((1,), 0.7, device=weight.device), cond)


def _linears(model: DiT) -> Iterator[tuple[str, nn.Module, str, nn.Linear]]:
    """Of those that can be replaced: name, the module that holds it, its name there, and the layer itself."""
    for name, module in model.blocks.named_modules(prefix="blocks"):
        for child, linear in module.named_children():
            fits = isinstance(linear, nn.Linear) and not any(size % _MULTIPLE for size in linear.weight.shape)
            if fits and isinstance(linear, nn.Linear):
                yield f"{name}.{child}", module, child, linear


def check_fp8(device: torch.device) -> None:
    """Raises ConfigError where the GPU has no products in e4m3."""
    if device.type != "cuda":
        raise ConfigError(f"fp8 needs a GPU, this is {device.type}; leave it out")
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 9):
        name = torch.cuda.get_device_name(device)
        raise ConfigError(
            f"fp8 needs a GPU of compute capability 8.9 or more, {name} has {capability[0]}."
            f"{capability[1]}; leave it out"
        )
