"""The tiny decoder for Wan2.1's latents, `taew2_1` of the TAEHV family (MIT): faster than Wan's own, less exact.

Structure, names and alignment in time are those of the published code, and equal to it on random weights. The
released weights themselves have not been tried. It takes the normalised latents that WanVAE makes; variants that take
others (`lighttaew2_1`) are not of this kind.

B batch, C channels, F latent frames, T frames at a layer's own rate, h w rows and columns. Frames go through the
layers as [B * T, C, h, w].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkingmachines.errors import CheckpointError
from talkingmachines.vae.config import TEMPORAL_STRIDE
from talkingmachines.vae.wan import WanVAE
from talkingmachines.vae.wan_config import WanVAEConfig
from talkingmachines.vae.wan_weights import read_tensors

_TRIMMED = TEMPORAL_STRIDE - 1
"""The first latent frame too becomes four frames; the last of them is the clip's first."""


@dataclass(frozen=True)
class TinyState:
    """The last frame into each memory block, [B, C, h, w]."""

    frames: tuple[Tensor, ...]


class SoftClamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class MemoryBlock(nn.Module):
    """Sees each frame and the one before it, which is zero at the clip's start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(2 * width, width, 3, padding=1)]
        convs += [nn.Conv2d(width, width, 3, padding=1) for _ in range(2)]
        self.conv = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])

    def forward(self, x: Tensor, batch: int, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the output and what the next call takes as `before`."""
        own = x.unflatten(0, (batch, -1))
        start = torch.zeros_like(own[:, 0]) if before is None else before.to(own.dtype)
        past = torch.cat([start[:, None], own[:, :-1]], 1).flatten(0, 1)
        return F.relu(self.conv(torch.cat([x, past], 1)) + x), own[:, -1].clone()


class Grow(nn.Module):
    """Each frame becomes `times` frames."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, times * width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).reshape(-1, *x.shape[1:])


def _stage(width: int, width_out: int, times: int) -> list[nn.Module]:
    """At one size: three memory blocks, then twice the rows and columns and `times` the frames."""
    return [
        *[MemoryBlock(width) for _ in range(3)],
        nn.Upsample(scale_factor=2),
        Grow(width, times),
        nn.Conv2d(width, width_out, 3, padding=1, bias=False),
    ]


class TAEHV(nn.Module):
    """Decoder alone. `decode` and `decode_next` as those of WanVAE."""

    def __init__(self, widths: tuple[int, int, int, int] = (256, 128, 64, 64), latent_channels: int = 16) -> None:
        super().__init__()
        first, second, third, last = widths
        self.decoder = nn.Sequential(
            SoftClamp(),
            nn.Conv2d(latent_channels, first, 3, padding=1),
            nn.ReLU(),
            *_stage(first, second, 1),
            *_stage(second, third, 2),
            *_stage(third, last, 2),
            nn.ReLU(),
            nn.Conv2d(last, 3, 3, padding=1),
        )

    def decode(self, latents: Tensor) -> Tensor:
        """latents: [B, C, F, h, w] of a whole clip -> video [B, 3, 1 + 4(F - 1), H, W] in about [-1, 1]."""
        state: TinyState | None = None
        parts = []
        for piece in latents.split(TEMPORAL_STRIDE, 2):
            video, state = self.decode_next(piece, state)
            parts.append(video)
        return torch.cat(parts, 2)

    def decode_next(self, latents: Tensor, state: TinyState | None) -> tuple[Tensor, TinyState]:
        """Streaming decode: any number of latent frames, after those that made `state` (None: the clip's start)."""
        batch = len(latents)
        x = latents.movedim(2, 1).flatten(0, 1)
        before = iter(state.frames) if state else None
        frames = []
        for layer in self.decoder:
            if isinstance(layer, MemoryBlock):
                x, last = layer(x, batch, next(before) if before else None)
                frames.append(last)
            else:
                x = layer(x)
        video = x.unflatten(0, (batch, -1)).movedim(1, 2) * 2 - 1
        return (video if state else video[:, :, _TRIMMED:]), TinyState(tuple(frames))


class TinyWanVAE(nn.Module):
    """Wan2.1's encoder with the tiny decoder: the contract of WanVAE where a picture goes in and video comes out."""

    def __init__(self, wan: WanVAE, tiny: TAEHV) -> None:
        super().__init__()
        self.wan, self.tiny = wan, tiny

    @property
    def config(self) -> WanVAEConfig:
        return self.wan.config

    @property
    def latent_mean(self) -> Tensor:
        return self.wan.latent_mean

    def encode(self, video: Tensor) -> Tensor:
        return self.wan.encode(video)

    def encode_image(self, image: Tensor) -> Tensor:
        return self.wan.encode_image(image)

    def decode(self, latents: Tensor) -> Tensor:
        return self.tiny.decode(latents)

    def decode_next(self, latents: Tensor, state: TinyState | None) -> tuple[Tensor, TinyState]:
        return self.tiny.decode_next(latents, state)

    def compile_decoder(self) -> None:
        """Its memory blocks, nearly all of it: see WanVAE."""
        for layer in self.tiny.decoder:
            if isinstance(layer, MemoryBlock):
                layer.compile(dynamic=False)


def load_taehv(tensors: Mapping[str, Tensor], decoder: TAEHV) -> None:
    """Fill `decoder` from the tensors of a TAEHV checkpoint, of which the encoder's are left out.

    A checkpoint may have been trained to make more frames than are used; the last ones are. Raises CheckpointError
    if a tensor is missing, too many, or of another shape.
    """
    wanted = decoder.state_dict()
    found = {name: tensor for name, tensor in tensors.items() if name.startswith("decoder.")}
    for name in wanted.keys() | found.keys():
        if name not in found:
            raise CheckpointError(
                f"the tiny decoder wants {name}, which is not there: the weights are of another model"
            )
        if name not in wanted:
            raise CheckpointError(f"the tiny decoder has no {name}: the weights are of another model")
        rows = wanted[name].shape[0]
        if isinstance(decoder.get_submodule(name.rsplit(".", 2)[0]), Grow) and found[name].shape[0] > rows:
            found[name] = found[name][-rows:]
        if found[name].shape != wanted[name].shape:
            raise CheckpointError(
                f"the tiny decoder wants {name} {list(wanted[name].shape)}, got {list(found[name].shape)}"
            )
    decoder.load_state_dict(found)


def read_taehv(path: Path) -> TAEHV:
    """The decoder in `taew2_1.pth` or `taew2_1.safetensors`. Raises CheckpointError."""
    decoder = TAEHV()
    load_taehv(read_tensors(path), decoder)
    return decoder
