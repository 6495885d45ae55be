"""What a teacher is trained on: windows of coded clips."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from talkingmachines.audio.alignment import frames_in
from talkingmachines.data.crops import batch_squares, crop_weight, stacked
from talkingmachines.data.latents import LatentClips


@dataclass(frozen=True)
class TeacherBatches(Dataset[dict[str, Tensor]]):
    """Windows of coded clips, as TeacherStage wants them.

    window: latent frames; history: how many are given when a window does not start a clip.
    batch: samples of 3/4 of the picture's height and width; a batch of smaller squares around the face has more of
    them, so that all batches cost the same. What lies outside the head hardly changes. Crops are multiples of `patch`.
    """

    clips: LatentClips
    window: int
    history: int
    patch: int
    batch: int = 8
    seed: int = 0

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        squares = batch_squares(rng, self.clips, self.patch, self.batch)
        return stacked([self._window(rng, *square) for square in squares])

    def _window(self, rng: np.random.Generator, index: int, rows: slice, columns: slice) -> dict[str, Tensor]:
        arrays = self.clips.arrays
        latest = arrays["latents"].shape[1] - self.window
        start = int(rng.integers(1, latest + 1)) if latest and rng.random() < 0.5 else 0
        clip = arrays["latents"][index][:, :, rows, columns].astype(np.float32)
        frames = slice(frames_in(start + 1) - 1, frames_in(start + self.window))
        return {
            "latents": torch.from_numpy(clip[start : start + self.window]).transpose(0, 1),
            "reference": torch.from_numpy(clip[0]),
            "known": torch.tensor(self.history if start else 1),
            "features": torch.from_numpy(arrays["features"][index][frames].astype(np.float32)),
            "modes": torch.from_numpy(arrays["modes"][index][start : start + self.window].astype(np.int64)),
            "weight": torch.from_numpy(crop_weight(self.clips, index, start + self.window)[start:, rows, columns]),
        }
