"""What large patches need: convolutions over the cells of each latent frame, after the last layer.

A token that stands for many cells must write all of them through one linear layer, blind to its neighbours: details
are coarse and seams run along its border. Here every cell sees the picture, the noise and what the tokens say around
it.
B batch, F latent frames, H W latent rows and columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkingmachines.audio.alignment import FRAMES_PER_LATENT
from talkingmachines.dit.conditioning import PreparedConditioning
from talkingmachines.dit.config import DiTConfig
from talkingmachines.dit.layers import compute_dtype
from talkingmachines.dit.warp import Warp


class ResidualConv(nn.Module):
    """x + conv(silu(conv(silu(norm(x))))), normalised over the channels of each cell alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.ones(width, 1, 1))
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        cells = x.movedim(1, -1)
        normed = (
            F.rms_norm(cells.float(), self.norm.shape[:1], self.norm.flatten().float(), 1e-6).to(x.dtype).movedim(-1, 1)
        )
        return x + self.conv2(F.silu(self.conv1(F.silu(normed))))


class Refiner(nn.Module):
    """What the tokens said, the noisy and the given latents, and the audio -> the network's output in every cell.

    What multiplies, beside what adds: values read from the latents by gates read from all, what the tokens said by
    how much of it is kept, the noisy latents by how much of them is let through, all features by what is heard.
    Moving a part of the picture a little, letting more of the noise through the less there is of it, opening the mouth
    where there is one: these are products, not sums. With a warp, the picture is first moved as the first half of the
    layers says, and the second half sees what that changes.
    A fresh one gives back what the tokens said.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        assert config.refiner is not None
        latents, width, values = config.latent_channels, config.refiner.width, 2 * config.refiner.width
        self.latents, self.patch = latents, config.patch[1:]
        seen = (3 if config.previous else 2) * latents
        self.conv_in = nn.Conv2d(seen + config.out_channels, width, 3, padding=1)
        self.layers = nn.ModuleList(ResidualConv(width) for _ in range(config.refiner.layers))
        self.conv_out = nn.Conv2d(width, latents, 3, padding=1)
        self.warp = None
        if config.refiner.warp:
            self.warp = Warp(latents, config.refiner.warp.fine, config.refiner.warp.channels)
            self.flow = nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, 2 * FRAMES_PER_LATENT, 1)
            )
            self.moved_in = nn.Conv2d(latents, width, 3, padding=1)
            self.moved_out = nn.Conv2d(width, latents, 1)
            seen += latents
        self.values = nn.Conv2d(seen, values, 3, padding=1)
        self.gates = nn.Conv2d(width, values, 1)
        self.gated_out = nn.Conv2d(values, latents, 3, padding=1)
        self.keep = nn.Conv2d(width, latents, 1)
        self.skip = nn.Conv2d(width, latents, 1)
        if config.audio:
            told = config.audio.context_tokens * config.audio.width
            self.hear = nn.Sequential(nn.Linear(told, width), nn.SiLU(), nn.Linear(width, 4 * width))

    def listen(self, tokens_BFAD: Tensor) -> Tensor:
        """What is made of the audio tokens, [B * F, 4 * width]: scale and shift, before the layers and after."""
        return self.hear(tokens_BFAD.flatten(0, 1).flatten(1))

    def forward(
        self, told: Tensor, x: Tensor, sigma: Tensor, cond: PreparedConditioning
    ) -> tuple[Tensor, Tensor | None]:
        """told [B, out_channels, F, H, W]; x, latents noisy at sigma [B] or [1], and the result [B, C, F, H, W].

        The second is what the warp alone changes, of the same shape, where there is one.
        """
        frames, dtype, C = x.shape[2], compute_dtype(x), self.latents
        # Of the frame before, what has changed since the picture: nothing while all is still.
        given = [cond.latents] if cond.previous is None else [cond.latents, cond.previous - cond.latents]
        seen = [x, *given]
        cells = torch.cat([part.to(dtype) for part in [*seen, told]], 1)
        cells = cells.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        h = self._hear(self.conv_in(cells), cond, 0)
        half = len(self.layers) // 2
        for layer in self.layers[:half]:
            h = layer(h)
        read, moved = cells[:, : len(seen) * C], None
        if self.warp:
            moved = self.warp(cells[:, C : 2 * C], self.flow(h))
            read, h = torch.cat([read, moved], 1), h + self.moved_in(moved)
        for layer in self.layers[half:]:
            h = layer(h)
        h = F.silu(self._hear(h, cond, 1))
        gated = self.values(read) * self.gates(h)
        kept = cells[:, -told.shape[1] :][:, :C] * (1 + self.keep(h))
        # What has changed since the picture, and the noise: all there is to see of it where there is little noise.
        clean = (1 - sigma).to(dtype).view(-1, 1, 1, 1).expand(len(x), 1, 1, 1).repeat_interleave(frames, 0)
        skipped = (cells[:, :C] - clean * cells[:, C : 2 * C]) * self.skip(h)
        made = kept + skipped + self.conv_out(h) + self.gated_out(gated)
        if moved is not None:
            made = made + moved * self.moved_out(h)
            moved = moved.unflatten(0, (-1, frames)).transpose(1, 2)
        return made.unflatten(0, (-1, frames)).transpose(1, 2), moved

    def _hear(self, h: Tensor, cond: PreparedConditioning, place: int) -> Tensor:
        """h [B * F, width, H, W], scaled and shifted by the audio where the face mask lets it be heard."""
        if cond.heard is None:
            return h
        scale, shift = cond.heard.to(h.dtype)[..., None, None].chunk(4, 1)[2 * place : 2 * place + 2]
        change = h * scale + shift
        if cond.face_mask is None:
            return h + change
        B, F_ = len(cond.face_mask), len(h) // len(cond.face_mask)
        rows, columns = (size // step for size, step in zip(h.shape[-2:], self.patch, strict=True))
        mask = cond.face_mask.to(h.dtype).view(B, 1, rows, columns).repeat_interleave(F_, 0)
        return h + F.interpolate(mask, h.shape[-2:]) * change
