"""Whether a processor's fast arithmetic can be trusted.

A kernel that is wrong raises no error: it makes a character of noise. So before bfloat16 is used, a pass in it is held
to one in float32.
"""

import logging
import math
from copy import deepcopy

import torch
from torch import Tensor

from talkingmachines.audio.alignment import audio_windows, frames_in
from talkingmachines.dit.conditioning import still_conditioning
from talkingmachines.dit.model import DiT
from talkingmachines.precision import autocast, fast_dtype, multiply_in
from talkingmachines.vae.model import CausalVAE

LIMIT = 0.1
"""The most that a pass may be off: rounding explains a hundredth, a wrong kernel makes it about 1."""

log = logging.getLogger(__name__)


def trusted_dtype(student: DiT, vae: CausalVAE, frames: int, shape: tuple[int, int]) -> torch.dtype:
    """What `student` and `vae`, on the processor, should compute in: its fast_dtype where it is right.

    frames: latent frames of a chunk; shape: height and width of the video in pixels. Else float32, with a warning in
    the log.
    """
    dtype = fast_dtype(torch.device("cpu"))
    if dtype == torch.float32:
        return dtype
    error = rounding_error(student, vae, frames, shape, dtype)
    if error <= LIMIT:
        return dtype
    log.warning(
        "%s is computed wrongly on this processor (a pass is off by %.0f%%): float32 is used, which is slower",
        str(dtype).removeprefix("torch."),
        100 * error,
    )
    return torch.float32


@torch.no_grad()
def rounding_error(
    student: DiT, vae: CausalVAE, frames: int, shape: tuple[int, int], dtype: torch.dtype = torch.bfloat16
) -> float:
    """How far a pass over random latents, coding a picture and decoding are off in `dtype`: the most of the three, over
    the result."""
    plain, student, vae = _passes(student, vae, frames, shape, torch.float32), deepcopy(student), deepcopy(vae)
    # As they will be used: some kernels work only where the weights are rounded too.
    student.multiply_in(dtype)
    multiply_in(vae, dtype)
    rounded = _passes(student, vae, frames, shape, dtype)
    errors = [float((b.float() - a).norm() / a.norm()) for a, b in zip(plain, rounded, strict=True)]
    return max(errors) if all(map(math.isfinite, errors)) else math.inf


def _passes(
    student: DiT, vae: CausalVAE, frames: int, shape: tuple[int, int], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    random, config = torch.Generator().manual_seed(0), student.config
    assert config.audio is not None
    picture = 2 * torch.rand(1, 3, 1, *shape, generator=random) - 1
    with autocast(torch.device("cpu"), dtype):
        coded = vae.encode(picture).float()
        noise = torch.randn(1, coded.shape[1], frames, *coded.shape[3:], generator=random)
        heard = torch.randn(1, frames_in(frames), config.audio.feature_dim, generator=random)
        cond = still_conditioning(
            coded[:, :, 0], frames, config.mask_channels, audio=audio_windows(heard, config.audio.window)
        )
        velocity = student(noise, torch.tensor([0.5]), cond)
        return coded, velocity, vae.decode(noise)
