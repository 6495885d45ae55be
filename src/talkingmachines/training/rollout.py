"""A student's own clips, made as they are in a call, with gradients.

B batch, C latent channels, F latent frames, h w latent rows and columns, A audio features of a video frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from talkingmachines.audio.alignment import AudioWindows, audio_windows, num_latents
from talkingmachines.dit.conditioning import Conditioning, still_conditioning
from talkingmachines.dit.few_steps import FewStepDiT
from talkingmachines.dit.layers import compute_dtype
from talkingmachines.dit.model import DiT
from talkingmachines.flow.chunk import ChunkConfig, denoise_chunk
from talkingmachines.flow.path import add_noise, x0_from_velocity
from talkingmachines.precision import picked, sent
from talkingmachines.training.passes import Passes, plain_passes
from talkingmachines.training.randomness import normal
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.pixels import to_pixels

Batch = dict[str, Tensor]
SCENE = ("latents", "reference", "features", "modes")
UNCERTAINTY = 0.1
"""Standard deviation, in latents, of what a student's frames miss, about."""


@dataclass(frozen=True)
class Scene:
    """What a batch of calls is made from; see CallBatches. audio: what each latent frame hears in a call."""

    latents: Tensor
    reference: Tensor
    modes: Tensor
    audio: AudioWindows

    @classmethod
    def of(cls, batch: Batch, window: int, chunk: int, ahead: bool = False) -> "Scene":
        """window: video frames heard; chunk: latent frames; ahead: what comes after a chunk is heard too, as it is in a
        call whose speech comes faster than it is spoken."""
        features = batch["features"]
        ends = None if ahead else range(chunk - 1, num_latents(features.shape[1]) + chunk, chunk)
        return cls(batch["latents"], batch["reference"], batch["modes"], audio_windows(features, window, ends))

    def conditioning(self, mask_channels: int, frames: Sequence[int], chunk: int, before: Tensor) -> Conditioning:
        """Of latent frames `frames`, in chunks of `chunk`, of which only frame 0, the picture, is given.

        before: latents [B, C, F, h, w] of the call from its beginning, with all that `frames` go on from.
        """
        known = self.reference[:, :, None] if frames[0] == 0 else None
        cond = still_conditioning(
            self.reference,
            len(frames),
            mask_channels,
            known,
            self.audio.of(frames),
            picked(self.modes, 1, frames),
        )
        return replace(cond, previous=picked(before, 2, [max(0, frame // chunk * chunk - 1) for frame in frames]))


def few_steps(model: DiT, chunk: ChunkConfig, scene: Scene) -> FewStepDiT:
    """The student as it is served, at the size of the scene."""
    return FewStepDiT(model, chunk.sigmas, chunk.window, chunk.frames, *scene.reference.shape[2:])


def uncertain(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Latents that a chunk goes on from, as noisy as the student's own: so that their errors are not copied on.

    But for frame 0, the picture, which is given to a call as it is.
    """
    noise = UNCERTAINTY * normal(latents.shape, latents, generator)
    return torch.cat([latents[:, :, :1], (latents + noise)[:, :, 1:]], 2)


def window_call(
    model: DiT,
    chunk: ChunkConfig,
    scene: Scene,
    frames: Sequence[int],
    step: int,
    generator: torch.Generator,
    passes: Passes = plain_passes,
) -> tuple[Tensor, Tensor | None]:
    """x0 of a whole window [B, C, F, h, w] at one step, all its chunks at once; earlier steps get no gradient.

    And x0 of the warp alone, see DiT.with_warp.

    frames: chunk 0 and chunks that follow each other, anywhere later; positions are counted without the gap. Made as a
    call makes it, but for the latent frame before each chunk, which is a real one, a little noisy.
    """
    before = uncertain(scene.latents, generator)
    run = passes(model, scene.conditioning(model.config.mask_channels, frames, chunk.frames, before), chunk.frames)
    made, moved = torch.zeros_like(picked(scene.latents, 2, frames)), None
    for index, sigma in enumerate(sent(chunk.sigmas[: step + 1].to(made.dtype), made.device).split(1)):
        noise = normal(made.shape, made, generator)
        x = add_noise(made, noise, sigma) if index else noise
        with torch.set_grad_enabled(torch.is_grad_enabled() and index == step):
            velocity, moved = run(x, sigma)
            made = x0_from_velocity(x, velocity, sigma)
    return made, moved


def real_window(scene: Scene, chunk: ChunkConfig, generator: torch.Generator) -> list[int]:
    """Latent frames of C_0 and of window - 1 chunks in a row from anywhere later in the real clip."""
    chunks = scene.latents.shape[2] // chunk.frames
    first = int(torch.randint(1, chunks - chunk.window + 2, (), generator=generator))
    return [*range(chunk.frames), *range(first * chunk.frames, (first + chunk.window - 1) * chunk.frames)]


def rollout(
    model: DiT, chunk: ChunkConfig, scene: Scene, chunks: int, step: int, learn: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A call of `chunks` chunks, each after its own past, through flow.chunk and the real cache.

    Returns (latents [B, C, F, h, w] of the whole call, without gradients, and x0 at `step` of its last `learn`
    chunks, with them).
    """
    student = few_steps(model, chunk, scene)
    caches = [student.empty_cache(len(scene.reference), compute_dtype(scene.reference))]
    made: list[Tensor] = []
    learnt: list[Tensor] = []
    B, C, h, w = scene.reference.shape
    for index in range(chunks):
        frames = range(index * chunk.frames, (index + 1) * chunk.frames)
        noise = normal((chunk.steps, B, C, chunk.frames, h, w), scene.reference, generator)
        with torch.set_grad_enabled(torch.is_grad_enabled() and index >= chunks - learn):
            before = torch.cat(made, 2) if made else scene.reference[:, :, None]
            cond = model.prepare(scene.conditioning(model.config.mask_channels, frames, chunk.frames, before))
            estimates = denoise_chunk(student, noise, chunk.sigmas, cond, caches)
        made.append(estimates[-1].detach())
        if index >= chunks - learn:
            learnt.append(estimates[step])
    return torch.cat(made, 2), torch.cat(learnt, 2)


def heard_ahead(generator: torch.Generator) -> bool:
    """Whether a scene hears ahead: half of them do."""
    return bool(torch.rand((), generator=generator) < 0.5)


@torch.no_grad()
def call_grid(model: DiT, chunk: ChunkConfig, batch: Batch, vae: CausalVAE) -> np.ndarray:
    """Every fourth frame of two calls [H, W, 3] uint8: true above, as far as it goes, and the student's below."""
    assert model.config.audio is not None
    device = next(model.parameters()).device
    scene = Scene.of({name: batch[name][:2].to(device) for name in SCENE}, model.config.audio.window, chunk.frames)
    chunks = scene.latents.shape[2] // chunk.frames
    made, _ = rollout(model, chunk, scene, chunks, 0, 1, torch.Generator().manual_seed(0))
    videos = [to_pixels(vae.decode(latents))[:, ::4] for latents in (scene.latents[:, :, : made.shape[2]], made)]
    rows = [video[clip].transpose(0, 1).flatten(1, 2) for clip in range(len(made)) for video in videos]
    return torch.cat(rows).cpu().numpy()
