"""Batches for training, each a function of its step alone."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from talkingmachines.audio.features import log_mel
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.character import sample_character
from talkingmachines.data.synthetic.clip import make_clip
from talkingmachines.data.synthetic.draw import draw_clip
from talkingmachines.data.synthetic.pose import POSE_FIELDS
from talkingmachines.data.synthetic.visemes import MOUTH_FIELDS


@dataclass(frozen=True)
class VideoBatches(Dataset[dict[str, Tensor]]):
    """Freshly drawn clips, cut to squares of `crop` pixels: {"video": uint8 [batch, frames, crop, crop, 3]}."""

    bank: SpeechBank
    size: int
    crop: int
    frames: int = 9
    batch: int = 8
    seed: int = 0

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        videos = []
        for _ in range(self.batch):
            clip = make_clip(int(rng.integers(2**31)), self.bank.split, self.frames, self.bank)
            video = draw_clip(sample_character(clip.character_seed), clip.track, self.size)
            top, left = rng.integers(0, self.size - self.crop + 1, 2)
            videos.append(video[:, top : top + self.crop, left : left + self.crop])
        return {"video": torch.from_numpy(np.stack(videos))}


@dataclass(frozen=True)
class SpeechBatches(Dataset[dict[str, Tensor]]):
    """Speech and the mouth that speaks it: features [batch, frames, 320], mouth [batch, frames, MOUTH_FIELDS]."""

    bank: SpeechBank
    frames: int = 81
    batch: int = 16
    seed: int = 0

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        clips = [
            make_clip(int(rng.integers(2**31)), self.bank.split, self.frames, self.bank) for _ in range(self.batch)
        ]
        columns = [POSE_FIELDS.index(name) for name in MOUTH_FIELDS]
        return {
            "features": log_mel(torch.from_numpy(np.stack([clip.samples for clip in clips]))),
            "mouth": torch.from_numpy(np.stack([clip.track[:, columns] for clip in clips])),
        }
