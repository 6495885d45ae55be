"""What a student is distilled on: coded clips with sound that goes on after their end."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from talkingmachines.audio.alignment import frames_in
from talkingmachines.data.latents import LatentClips, batch_crop, crop_weight, cropped_batch


@dataclass(frozen=True)
class CallBatches(Dataset[dict[str, Tensor]]):
    """B clips from their beginning: latents [B, C, F, h, w], reference [B, C, h, w], weight [B, h, w]; and what is
    heard in `heard` latent frames: features [B, 1 + 4(heard - 1), A], modes [B, heard].

    latents: F, latent frames of picture. The sound is that of the clip and then of others, one after the other.
    Crops and batch as in TeacherBatches.
    """

    clips: LatentClips
    latents: int
    heard: int
    patch: int
    batch: int = 8
    seed: int = 0

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        return cropped_batch(rng, self.clips, self.patch, self.batch, self._call)

    def _call(self, rng: np.random.Generator, crop: int) -> dict[str, Tensor]:
        arrays = self.clips.arrays
        index = int(rng.integers(self.clips.clips))
        rows, columns = batch_crop(rng, arrays["face"][index], crop, self.clips.cells, self.patch)
        latents = arrays["latents"][index][: self.latents, :, rows, columns].astype(np.float32)
        features, modes = self._sound(rng, index)
        return {
            "latents": torch.from_numpy(latents).transpose(0, 1),
            "reference": torch.from_numpy(latents[0]),
            "features": torch.from_numpy(features[: frames_in(self.heard)].astype(np.float32)),
            "modes": torch.from_numpy(modes[: self.heard].astype(np.int64)),
            "weight": torch.from_numpy(crop_weight(self.clips, index)[rows, columns]),
        }

    def _sound(self, rng: np.random.Generator, index: int) -> tuple[np.ndarray, np.ndarray]:
        arrays = self.clips.arrays
        features, modes = [arrays["features"][index]], [arrays["modes"][index]]
        while sum(len(part) for part in modes) < self.heard:
            other = rng.integers(self.clips.clips)
            features.append(arrays["features"][other][1:])
            modes.append(arrays["modes"][other][1:])
        return np.concatenate(features), np.concatenate(modes)
