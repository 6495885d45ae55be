"""Samples, video frames and latent frames: which belongs to which.

Latent frame 0 is video frame 0; latent frame k >= 1 is video frames 4k - 3 .. 4k. Pure integers, but for the
functions at the end that cut tensors accordingly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkingmachines.precision import picked
from talkingmachines.types import SAMPLES_PER_FRAME

FRAMES_PER_LATENT = 4
"""Video frames in each latent frame but the first."""


def num_frames(num_samples: int) -> int:
    """The fewest video frames that last as long as the sound."""
    return -(-num_samples // SAMPLES_PER_FRAME)


def num_latents(num_frames: int) -> int:
    """The fewest latent frames that cover the video frames."""
    return 0 if num_frames == 0 else 1 + -(-(num_frames - 1) // FRAMES_PER_LATENT)


def frames_in(num_latents: int) -> int:
    """Video frames that a video of so many latent frames has."""
    return 0 if num_latents == 0 else 1 + FRAMES_PER_LATENT * (num_latents - 1)


def frames_of(latent: int) -> range:
    """The video frames of one latent frame."""
    return range(frames_in(latent), frames_in(latent + 1))


def pad_to_frames(samples: np.ndarray, frames: int) -> np.ndarray:
    """[n] -> [640 * frames]: silence appended, or the end cut off."""
    wanted = frames * SAMPLES_PER_FRAME
    return np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))


@dataclass(frozen=True)
class AudioWindows:
    """The features that each latent frame hears.

    first: [B, 1, window, ...], centred on video frame 0.
    rest: [B, F - 1, window + 3, ...]: the 4 video frames of the latent frame and window // 2 on both sides.
    """

    first: Tensor
    rest: Tensor

    @property
    def num_latents(self) -> int:
        return self.first.shape[1] + self.rest.shape[1]

    def of(self, latents: Sequence[int]) -> "AudioWindows":
        """Those of some latent frames, ascending."""
        later = [latent - 1 for latent in latents if latent]
        return AudioWindows(self.first[:, : len(latents) - len(later)], picked(self.rest, 1, later))


def window_frames(
    num_frames: int, window: int, chunk_ends: Sequence[int] | None = None
) -> tuple[list[int], list[list[int]]]:
    """The video frames in the window of latent frame 0, and in those of the later ones.

    Places outside the clip repeat its first or last frame. chunk_ends: latent frames, ascending, after which
    nothing may be heard yet: for a latent frame up to such an end, places beyond it repeat its last video frame.
    """

    def of(latent: int) -> list[int]:
        frames, side = frames_of(latent), window // 2
        end = next((end for end in chunk_ends or () if end >= latent), None)
        last = num_frames - 1 if end is None else min(num_frames, frames_in(end + 1)) - 1
        return [min(max(frame, 0), last) for frame in range(frames.start - side, frames.stop + side)]

    return of(0), [of(latent) for latent in range(1, num_latents(num_frames))]


def audio_windows(features: Tensor, window: int, chunk_ends: Sequence[int] | None = None) -> AudioWindows:
    """Cut features per video frame [B, T, ...] into what each latent frame hears; T >= 1, window odd.

    The layout of the MultiTalk family. chunk_ends: see window_frames.
    """
    assert window % 2 == 1 and features.shape[1] > 0, (window, features.shape)
    first, rest = window_frames(features.shape[1], window, chunk_ends)
    wide = window + 3
    heard = picked(features, 1, [*first, *(frame for frames in rest for frame in frames)])
    return AudioWindows(heard[:, None, : len(first)], heard[:, len(first) :].unflatten(1, (len(rest), wide)))


def any_in_latent(flags: np.ndarray) -> Tensor:
    """bool [1 + 4n] per video frame -> bool [1 + n]: whether it holds for any frame of a latent frame."""
    rest = flags[1:].reshape(-1, FRAMES_PER_LATENT).any(1)
    return torch.from_numpy(np.concatenate([flags[:1], rest]))


def latent_modes(speaking: np.ndarray) -> Tensor:
    """bool [1 + 4n] per video frame -> long [1 + n]: a latent frame speaks if any of its frames does."""
    return any_in_latent(speaking).long()
