"""How the passes of a DiT that learns are run: kernel by kernel, or as recorded CUDA graphs.

A training step of the pocket is three thousand small kernels. A GPU computes them in less time than it takes to launch
them one by one.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from talkingmachines.attention.masks import sparse_causal_mask
from talkingmachines.attention.rope import rope_table
from talkingmachines.audio.alignment import AudioWindows
from talkingmachines.dit.conditioning import Conditioning
from talkingmachines.dit.model import DiT

Pass = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""Noisy latents x [B, C, F, H, W] and sigma [B] or [1] to what DiT.with_warp makes of them."""

Recorded = Callable[..., tuple[Tensor, ...]]

Record = Callable[[nn.Module, tuple[Tensor, ...]], Recorded]
"""Makes of a module, tensors to tensors, one that does the same for others of the same shapes, with gradients."""


class Passes(Protocol):
    def __call__(self, model: DiT, cond: Conditioning, chunk: int | None = None) -> Pass:
        """Passes of `model` under one conditioning; chunk: see DiT.prepare."""


def plain_passes(model: DiT, cond: Conditioning, chunk: int | None = None) -> Pass:
    """Kernel by kernel."""
    prepared = model.prepare(cond, chunk=chunk)
    return lambda x, sigma: model.with_warp(x, sigma, prepared)


def passes_for(device: torch.device) -> Passes:
    """The fastest that a device has."""
    return RecordedPasses(cuda_graphs) if device.type == "cuda" else plain_passes


class RecordedPasses:
    """Implements Passes: forward and backward are recorded once for each shape, and from then on replayed.

    What a pass returns, and the gradients that it leaves, are overwritten by the next pass of the same shape.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._recorded: dict[tuple[object, ...], Recorded] = {}

    def __call__(self, model: DiT, cond: Conditioning, chunk: int | None = None) -> Pass:
        """See Passes."""
        given = _tensors(cond)

        def run(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor | None]:
            inputs = (x, sigma, *given.values())
            shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
            key = (id(model), chunk, tuple(given), *shapes)
            if key not in self._recorded:
                module = _WithWarp(model, tuple(given), cond.latents, chunk)
                # The shapes' first pass may be one without gradients; its like will have them.
                with torch.enable_grad():
                    self._recorded[key] = self._record(module, inputs)
            made = self._recorded[key](*inputs)
            return made[0], made[1] if len(made) > 1 else None

        return run


def cuda_graphs(module: nn.Module, inputs: tuple[Tensor, ...]) -> Recorded:
    """A Record. No other thread may use the GPU meanwhile, and no graph of an earlier pass be alive."""
    places = tuple(tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in inputs)
    cached = torch.is_autocast_cache_enabled()
    # Weights that were cast before would be taken for what the recorded pass is given.
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.cuda.device(inputs[0].device):
            return cast(Recorded, torch.cuda.make_graphed_callables(module, places, allow_unused_input=True))
    finally:
        torch.set_autocast_cache_enabled(cached)


class _WithWarp(nn.Module):
    """DiT.with_warp of tensors alone: x, sigma and what `names` says. What the shapes say is made once."""

    def __init__(self, model: DiT, names: Sequence[str], latents: Tensor, chunk: int | None) -> None:
        super().__init__()
        self.model, self.names = model, names
        (F, H, W), (p, q), device = latents.shape[2:], model.config.patch[1:], latents.device
        h, w = H // p, W // q
        self.rope = rope_table(model.config.head_width, range(F), h, w, device)
        self.visible = sparse_causal_mask(F // chunk, chunk * h * w, device) if chunk else None

    def forward(self, x: Tensor, sigma: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        cond = _conditioning(dict(zip(self.names, given, strict=True)))
        prepared = replace(self.model.prepare(cond, rope=self.rope), visible=self.visible)
        velocity, moved = self.model.with_warp(x, sigma, prepared)
        return (velocity,) if moved is None else (velocity, moved)


_FIELDS = ("latents", "mask", "text", "image", "mode", "face_mask", "previous")


def _tensors(cond: Conditioning) -> dict[str, Tensor]:
    """All that there is, by name."""
    named = {name: getattr(cond, name) for name in _FIELDS}
    if cond.audio is not None:
        named |= {"audio_first": cond.audio.first, "audio_rest": cond.audio.rest}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def _conditioning(named: dict[str, Tensor]) -> Conditioning:
    audio = None
    if "audio_first" in named:
        audio = AudioWindows(named.pop("audio_first"), named.pop("audio_rest"))
    return Conditioning(**named, audio=audio)
