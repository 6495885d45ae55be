"""Batches for training, each a function of its step alone."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from talkingmachines.audio.features import log_mel
from talkingmachines.data.synthetic.augment import other_throat
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.clip import make_clip
from talkingmachines.data.synthetic.gestures import gestures_of
from talkingmachines.data.synthetic.looks import draw_clip, sample_look
from talkingmachines.data.synthetic.pose import POSE_FIELDS
from talkingmachines.data.synthetic.visemes import MOUTH_FIELDS

MOUTH = (*MOUTH_FIELDS, "shut")
"""What SpeechBatches says of a mouth."""

_COLUMNS = [POSE_FIELDS.index(name) for name in MOUTH_FIELDS]


@dataclass(frozen=True)
class VideoBatches(Dataset[dict[str, Tensor]]):
    """Freshly drawn clips, cut to squares of `crop` pixels: {"video": uint8 [batch, frames, crop, crop, 3]}.

    cuts: squares from each clip, a divisor of batch.
    """

    bank: SpeechBank
    size: int
    crop: int
    frames: int = 9
    batch: int = 8
    seed: int = 0
    cuts: int = 1

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        videos = []
        for _ in range(self.batch // self.cuts):
            clip = make_clip(int(rng.integers(2**31)), self.bank.split, self.frames, self.bank)
            video = draw_clip(sample_look(clip.character_seed), clip.track, self.size)
            for top, left in rng.integers(0, self.size - self.crop + 1, (self.cuts, 2)):
                videos.append(video[:, top : top + self.crop, left : left + self.crop])
        return {"video": torch.from_numpy(np.stack(videos))}


@dataclass(frozen=True)
class SpeechBatches(Dataset[dict[str, Tensor]]):
    """Speech and the face that speaks it: mel [batch, frames, 320], of throats of many sizes; mouth [batch, frames,
    MOUTH]; bilabial bool [batch, frames], lips shut on p, b or m; gestures [batch, frames, GESTURE_FIELDS].
    """

    bank: SpeechBank
    frames: int = 81
    batch: int = 16
    seed: int = 0

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        clips = [
            make_clip(int(rng.integers(2**31)), self.bank.split, self.frames, self.bank) for _ in range(self.batch)
        ]
        mel = log_mel(torch.from_numpy(np.stack([clip.samples for clip in clips])))
        mouth = [np.concatenate([clip.track[:, _COLUMNS], clip.closed[:, None]], 1) for clip in clips]
        return {
            "mel": torch.stack([other_throat(one, rng) for one in mel]),
            "mouth": torch.from_numpy(np.stack(mouth).astype(np.float32)),
            "bilabial": torch.from_numpy(np.stack([clip.bilabial for clip in clips])),
            "gestures": torch.from_numpy(np.stack([gestures_of(clip.track) for clip in clips])),
        }
