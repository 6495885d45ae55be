"""A small engine with random weights, and the same call made in another way: all of it at once."""

from dataclasses import replace

import numpy as np
import torch
from random_weights import randomise
from torch import Tensor

from talkingmachines.audio.alignment import AudioWindows, audio_windows, latent_modes
from talkingmachines.audio.features import activity
from talkingmachines.dit.conditioning import Conditioning, box_mask, still_conditioning
from talkingmachines.dit.few_steps import FewStepDiT
from talkingmachines.dit.model import DiT
from talkingmachines.evaluation.random_avatar import random_features
from talkingmachines.flow.chunk import ChunkConfig, denoise_chunk
from talkingmachines.presets import tiny
from talkingmachines.streaming.engine import Engine
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.pixels import to_frames, to_tensor

SIZE = 64


def random_engine(chunk: ChunkConfig | None = None) -> Engine:
    """The tiny preset's models in float32, or two ways of computing the same would not agree. chunk: the preset's
    unless given."""
    spec = tiny()
    student, vae = DiT(spec.dit).eval().requires_grad_(False), CausalVAE(spec.vae).eval().requires_grad_(False)
    randomise(student, 0, 1.0)
    randomise(vae, 1, 0.7)
    torch.manual_seed(0)
    features = random_features(spec)
    assert features is not None
    return Engine(
        student,
        vae,
        chunk or spec.chunk,
        SIZE,
        torch.device("cpu"),
        spec.sampling.face_box,
        torch.float32,
        features=features,
    )


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """Noise that swells and fades, so that speech starts and ends."""
    rng = np.random.default_rng(seed)
    loudness = 0.2 * np.abs(np.sin(np.arange(samples) * (6.0 / 16_000))) ** 4
    return (loudness * rng.standard_normal(samples)).clip(-1, 1).astype(np.float32)


def samples_of(engine: Engine, chunks: int) -> int:
    """Of so many chunks."""
    return (1 + 4 * (engine.chunk.frames * chunks - 1)) * 640


def whole_call(engine: Engine, image: np.ndarray, samples: np.ndarray, seed: int) -> tuple[Tensor, np.ndarray]:
    """Latents [1, C, F, h, w] and frames of a call whose sound, of whole chunks, is known from the start."""
    config, size = engine.student.config, engine.chunk.frames
    assert config.audio
    reference = engine.vae.encode_image(to_tensor(image))
    side = reference.shape[-1]
    total = 1 + (len(samples) // 640 - 1) // 4
    heard = audio_windows(
        engine.features(seed).push(torch.from_numpy(samples)[None]),
        config.audio.window,
        list(range(size - 1, total, size)),
    )
    face = box_mask(engine.face_box, side // config.patch[1], side // config.patch[2])[None]
    modes = latent_modes(activity(samples))[None]
    cond = still_conditioning(reference, total, config.mask_channels, reference[:, :, None], heard, modes, face)
    model = FewStepDiT(engine.student, engine.chunk.sigmas, engine.chunk.window, size, side, side)
    cache, generator = model.empty_cache(1, torch.float32), torch.Generator().manual_seed(seed)
    latents = []
    for start in range(0, total, size):
        noise = torch.randn(engine.chunk.steps, 1, config.latent_channels, size, side, side, generator=generator)
        previous = latents[-1][:, :, -1:] if latents else reference[:, :, None]
        part = replace(_part(cond, start, size), previous=previous.expand(-1, -1, size, -1, -1))
        latents.append(denoise_chunk(model, noise, engine.chunk.sigmas, part, [cache])[-1])
    whole = torch.cat(latents, 2)
    return whole, to_frames(engine.vae.decode(whole))


def _part(cond: Conditioning, start: int, size: int) -> Conditioning:
    """Latent frames start .. start + size - 1."""
    assert cond.audio and cond.mode is not None
    first = cond.audio.first if start == 0 else cond.audio.first[:, :0]
    rest = cond.audio.rest[:, max(start - 1, 0) : start + size - 1]
    frames = slice(start, start + size)
    return replace(
        cond,
        latents=cond.latents[:, :, frames],
        mask=cond.mask[:, :, frames],
        audio=AudioWindows(first, rest),
        mode=cond.mode[:, frames],
    )
