"""Training of the face reader, on drawn training characters only."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.character import sample_character
from talkingmachines.data.synthetic.clip import HELDOUT_CHARACTERS, make_clip
from talkingmachines.data.synthetic.degrade import degrade
from talkingmachines.data.synthetic.draw import draw_clip
from talkingmachines.data.synthetic.pose import POSE_FIELDS
from talkingmachines.evaluation.metrics import pearson
from talkingmachines.evaluation.reader import FACE_CROP, READ_FIELDS, READ_SIZE, SCALES, FaceReader

_READ = [POSE_FIELDS.index(name) for name in READ_FIELDS]

_RANGES = {
    "mouth_open": (0.0, 1.0), "mouth_wide": (-0.8, 1.0), "mouth_round": (0.0, 1.0), "teeth": (0.0, 1.0),
    "tongue": (0.0, 1.0), "smile": (-0.6, 0.9), "eye_open": (0.0, 1.2), "gaze_x": (-0.9, 0.9),
    "gaze_y": (-0.7, 0.7), "brow_raise": (-0.6, 0.9), "brow_frown": (0.0, 0.7), "head_x": (-0.03, 0.03),
    "head_y": (-0.03, 0.03), "head_roll": (-0.08, 0.08), "head_yaw": (-0.6, 0.6), "head_pitch": (-0.6, 0.6),
    "breath": (-1.0, 1.0),
}  # fmt: skip


@dataclass(frozen=True)
class ReaderRecipe:
    """What a batch of the reader's training is.

    characters in a batch, poses of each; random: share of poses from the whole range rather than from a clip;
    shift: the most pixels that the crop is moved by; mouth: how much more the opening of the mouth counts.
    """

    characters: int = 16
    poses: int = 3
    random: float = 0.4
    shift: int = 5
    mouth: float = 4.0


@dataclass(frozen=True)
class ReaderBatches(Dataset[dict[str, Tensor]]):
    """{"pixels": uint8 [B, 144, 160, 3], the face crop; "pose": float32 [B, len(READ_FIELDS)], units of SCALES}."""

    bank: SpeechBank
    recipe: ReaderRecipe
    seed: int = 0

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step, 17])
        clip = make_clip(int(rng.integers(2**31)), self.bank.split, 100, self.bank)
        pixels, poses = [], []
        for _ in range(self.recipe.characters):
            looks = sample_character(int(rng.integers(HELDOUT_CHARACTERS, 2**31)))
            track = np.stack([self._row(clip.track, rng) for _ in range(self.recipe.poses)])
            frames = draw_clip(looks, track, READ_SIZE)
            for index, row in enumerate(track):
                crop, pose = self._cut(frames[index], frames[index - 1], row, rng)
                pixels.append(crop)
                poses.append(pose)
        return {"pixels": torch.from_numpy(np.stack(pixels)), "pose": torch.from_numpy(np.stack(poses))}

    def _row(self, track: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        row = track[rng.integers(len(track))].copy()
        low, high = np.array([_RANGES[name] for name in POSE_FIELDS], np.float32).T
        drawn = rng.uniform(low, high).astype(np.float32)
        if rng.random() < self.recipe.random:
            row = drawn
        # A clip has one resting pose and few blinks; the reader is to know them all.
        free = rng.random(len(row)) < 0.15
        row[free] = drawn[free]
        if rng.random() < 0.1:
            row[POSE_FIELDS.index("mouth_open")] = 0.0
        return row

    def _cut(
        self, frame: np.ndarray, other: np.ndarray, row: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The face crop, moved by some pixels, which is a shift of the head the other way."""
        x0, y0, x1, y1 = FACE_CROP
        right, down = rng.integers(-self.recipe.shift, self.recipe.shift + 1, 2)
        window = slice(y0 + down, y1 + down), slice(x0 + right, x1 + right)
        row = row.copy()
        row[POSE_FIELDS.index("head_x")] -= right / READ_SIZE
        row[POSE_FIELDS.index("head_y")] -= down / READ_SIZE
        return degrade(frame[window], other[window], rng), row[_READ] / np.array(SCALES, np.float32)


class ReaderStage:
    """Learns to read poses. Batches: see ReaderBatches."""

    name = "reader"

    def __init__(self, model: FaceReader, recipe: ReaderRecipe, batches: Dataset[dict[str, Tensor]]) -> None:
        self.model: nn.Module = model
        self.recipe = recipe
        self.batches = batches

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        read = self.model(batch["pixels"].movedim(-1, 1).float() / 127.5 - 1)
        weight = torch.ones(len(READ_FIELDS), device=read.device)
        weight[READ_FIELDS.index("mouth_open")] = self.recipe.mouth
        error = F.smooth_l1_loss(read, batch["pose"], beta=0.5, reduction="none").mean(0)
        mouth = (read - batch["pose"])[:, 0].detach().abs().mean() * SCALES[0]
        return {"loss": (weight * error).sum() / weight.sum(), "mouth_error": mouth}

    def sample_grid(self, model: nn.Module) -> np.ndarray:
        """What the reader is shown: one batch of face crops, poses of a character side by side."""
        pixels = self.batches[0]["pixels"].numpy()
        rows = pixels.reshape(self.recipe.characters, -1, *pixels.shape[1:])
        return rows.swapaxes(1, 2).reshape(-1, rows.shape[1] * pixels.shape[2], 3)


def drawn_accuracy(reader: FaceReader, bank: SpeechBank, clips: int, seed: int = 0) -> dict[str, float]:
    """How well the reader reads drawn clips of 50 frames: per field r over all frames, and of shut mouths.

    `mouth_open_clip_r`: mean of the r within each clip in which the mouth moves; `shut_q98`: 98 in 100 shut mouths
    are read as less open than this, in pose units.
    """
    tracks, readings = [], []
    for index in range(clips):
        clip = make_clip(10_000 + 100 * seed + index, bank.split, 50, bank)
        frames = draw_clip(sample_character(clip.character_seed), clip.track, READ_SIZE)
        tracks.append(clip.track[:, _READ])
        readings.append(np.stack(list(reader.read(frames).values()), 1))
    true, read = np.concatenate(tracks), np.concatenate(readings)
    accuracy = {f"{name}_r": pearson(read[:, i], true[:, i]) for i, name in enumerate(READ_FIELDS)}
    within = [pearson(r[:, 0], t[:, 0]) for r, t in zip(readings, tracks, strict=True) if t[:, 0].std() > 0.08]
    shut = read[true[:, 0] == 0, 0]
    extra = {"mouth_open_clip_r": float(np.mean(within)), "shut_q98": float(np.quantile(shut, 0.98))}
    return {name: round(value, 4) for name, value in (accuracy | extra).items()}
