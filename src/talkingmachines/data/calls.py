"""What a student is distilled on: coded clips with sound that goes on after their end."""

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from talkingmachines.audio.alignment import frames_in
from talkingmachines.data.crops import batch_squares, crop_weight, stacked
from talkingmachines.data.latents import LatentClips
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.excerpt import make_excerpt
from talkingmachines.data.synthetic.gestures import GESTURE_FIELDS
from talkingmachines.data.synthetic.looks import draw_clip, sample_look
from talkingmachines.errors import ConfigError
from talkingmachines.precision import fast_autocast
from talkingmachines.training.checkpoint import fingerprint
from talkingmachines.types import FPS
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.pixels import to_unit

_GESTURES = len(GESTURE_FIELDS)

EDGE = 2
"""Latent cells from where a picture was cut that a decoder makes otherwise than in the whole picture, as it misses what
is beside them."""

_SAME = 0.001
"""Share of the energy by which one clip, coded on two machines, may differ; bfloat16 makes a hundredth of it."""

_RETURN = FPS / 2
"""Video frames in which a head goes most of the way from where one clip ended to where the next one was drawn."""


@dataclass(frozen=True)
class CallBatches(Dataset[dict[str, Tensor]]):
    """B clips from their beginning: latents [B, C, F, h, w], reference [B, C, h, w]; and of `heard` latent frames what
    is heard and how much an error counts: features [B, 1 + 4(heard - 1), A], modes [B, heard], weight [B, heard, h, w].

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
        squares = batch_squares(rng, self.clips, self.patch, self.batch)
        return stacked([self._clip(rng, *square) for square in squares])

    def _clip(self, rng: np.random.Generator, index: int, rows: slice, columns: slice) -> dict[str, Tensor]:
        arrays = self.clips.arrays
        latents = arrays["latents"][index][: self.latents, :, rows, columns].astype(np.float32)
        features, modes = self._sound(rng, index)
        return {
            "latents": torch.from_numpy(latents).transpose(0, 1),
            "reference": torch.from_numpy(latents[0]),
            "features": torch.from_numpy(features[: frames_in(self.heard)]),
            "modes": torch.from_numpy(modes[: self.heard].astype(np.int64)),
            "weight": torch.from_numpy(crop_weight(self.clips, index, self.heard)[:, rows, columns]),
        }

    def _sound(self, rng: np.random.Generator, index: int) -> tuple[np.ndarray, np.ndarray]:
        arrays = self.clips.arrays
        features, modes = [arrays["features"][index].astype(np.float32)], [arrays["modes"][index]]
        while sum(len(part) for part in modes) < self.heard:
            other = rng.integers(self.clips.clips)
            following = arrays["features"][other].astype(np.float32)
            # The head goes on from where it was.
            gap = features[-1][-1:, -_GESTURES:] - following[:1, -_GESTURES:]
            following[:, -_GESTURES:] += gap * np.exp(-np.arange(len(following)) / _RETURN)[:, None]
            features.append(following[1:])
            modes.append(arrays["modes"][other][1:])
        return np.concatenate(features), np.concatenate(modes)


@dataclass(frozen=True, kw_only=True)
class DrawnCalls(CallBatches):
    """CallBatches with their pictures, drawn again: video uint8 [B, 1 + 4(F - 1), H, W, 3]; and whole bool [B, h, w]:
    the latent cells that a decoder has all of, those that are EDGE or more from where the picture was cut.

    bank: the speech that the clips were made from. cuts: squares from each drawn clip.
    """

    bank: SpeechBank
    cuts: int = 1

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        squares = batch_squares(rng, self.clips, self.patch, self.batch, self.cuts)
        samples = []
        for index, cuts in groupby(squares, key=itemgetter(0)):
            video = self._drawn(index)
            samples += [self._clip(rng, *square) | self._cut(video, *square[1:]) for square in cuts]
        return stacked(samples)

    @torch.no_grad()
    def check(self, vae: CausalVAE) -> None:
        """Raises ConfigError where the clips were coded from other pictures: of other speech, or drawn otherwise.

        Under another decoder than that of `vae` they cannot be compared: the encoder was told what that one misses.
        """
        if self.clips.decoder not in (None, fingerprint(vae.decoder)):
            return
        device = vae.latent_mean.device
        for index in (0, self.clips.clips - 1):
            with fast_autocast(device):
                made = vae.encode(to_unit(torch.from_numpy(self._drawn(index))[None].to(device)))
            coded = torch.from_numpy(self.clips.arrays["latents"][index][: self.latents].astype(np.float32))
            if (made[0].float().cpu().transpose(0, 1) - coded).square().mean() > _SAME * coded.square().mean():
                raise ConfigError(
                    "the run's clips were coded from other pictures than are drawn now, of other speech or by another "
                    "version: remove its folder latents, and train teacher and student anew"
                )

    def _drawn(self, index: int) -> np.ndarray:
        """The whole picture: uint8 [1 + 4(F - 1), H, W, 3]."""
        config = self.clips.config
        excerpt = make_excerpt(config.clip_seed(index), self.bank.split, frames_in(config.latents), self.bank)
        track = excerpt.track[: frames_in(self.latents)]
        return draw_clip(sample_look(excerpt.clip.character_seed), track, config.size)

    def _cut(self, video: np.ndarray, rows: slice, columns: slice) -> dict[str, Tensor]:
        cells = self.clips.cells
        scale = self.clips.config.size // cells
        high, wide = (slice(scale * part.start, scale * part.stop) for part in (rows, columns))
        whole = np.outer(_uncut(rows, cells), _uncut(columns, cells))
        return {"video": torch.from_numpy(video[:, high, wide].copy()), "whole": torch.from_numpy(whole)}


def _uncut(part: slice, cells: int) -> np.ndarray:
    """Which of these cells are far from a cut; an edge of the picture is none."""
    cell = np.arange(part.start, part.stop)
    return ((part.start == 0) | (cell >= part.start + EDGE)) & ((part.stop == cells) | (cell < part.stop - EDGE))
