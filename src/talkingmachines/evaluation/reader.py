"""Reads from a picture of a drawn character the pose that is seen in it: the instrument of the evaluation."""

from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from talkingmachines.weights import load_weights

READ_FIELDS = (
    "mouth_open", "mouth_wide", "mouth_round", "eye_open", "gaze_x", "head_x", "head_y", "head_roll", "head_yaw",
    "head_pitch", "smile",
)  # fmt: skip
"""What is read: columns of a motion track."""

SCALES = (0.25, 0.4, 0.3, 0.35, 0.35, 0.012, 0.012, 0.03, 0.25, 0.25, 0.35)
"""About one standard deviation of each, in the units of a pose."""

READ_SIZE = 256
"""Height and width of the pictures that are read."""

FACE_CROP = (48, 64, 208, 208)
"""x0, y0, x1, y1 in pixels of such a picture: brows to chin with room for the movement of the head."""

_BATCH = 32


def reader_folder() -> Path:
    """Where the weights of the shipped reader are."""
    return Path(str(files("talkingmachines") / "assets" / "weights" / "reader"))


class _Step(nn.Module):
    """Halves the picture, then one residual block at the new size."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(before, after, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(8, after)
        self.first = nn.Conv2d(after, after, 3, padding=1)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.down(x)))
        return x + self.second(F.silu(self.first(x)))


class FaceReader(nn.Module):
    """A small convolutional network that keeps places to the end: an opening is a matter of single pixels."""

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 48, 72, 80)
        self.stem = nn.Conv2d(3, widths[0], 5, stride=2, padding=2)
        self.steps = nn.ModuleList([_Step(a, b) for a, b in pairwise(widths)])
        self.squeeze = nn.Conv2d(widths[-1], 16, 1)
        rows, columns = (FACE_CROP[3] - FACE_CROP[1]) // 16, (FACE_CROP[2] - FACE_CROP[0]) // 16
        self.hidden = nn.Linear(16 * rows * columns, 96)
        self.out = nn.Linear(96, len(READ_FIELDS))

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: [B, 3, 144, 160] in [-1, 1], the face crop -> [B, len(READ_FIELDS)] in units of SCALES."""
        x = F.silu(self.stem(pixels.contiguous(memory_format=torch.channels_last)))
        for step in self.steps:
            x = step(x)
        x = F.silu(self.squeeze(x)).flatten(1)
        with torch.autocast(x.device.type, enabled=False):
            return self.out(F.silu(self.hidden(x.float())))

    @torch.inference_mode()
    def read(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """frames: [T, H, W, 3] uint8 of any square size -> each of READ_FIELDS, float32 [T], in the units of a pose."""
        x0, y0, x1, y1 = FACE_CROP
        device = self.out.weight.device
        read = []
        for start in range(0, len(frames), _BATCH):
            pixels = torch.from_numpy(frames[start : start + _BATCH]).to(device).movedim(-1, 1).float()
            if pixels.shape[-1] != READ_SIZE:
                pixels = F.interpolate(pixels, (READ_SIZE, READ_SIZE), mode="bilinear", antialias=True)
            read.append(self(pixels[:, :, y0:y1, x0:x1] / 127.5 - 1).cpu().numpy())
        columns = (np.concatenate(read) * np.array(SCALES, np.float32)).T
        return dict(zip(READ_FIELDS, columns, strict=True))


def load_reader(folder: Path | None = None) -> FaceReader:
    """The shipped reader, or the one saved in `folder`. Raises CheckpointError when it is missing or damaged."""
    reader = FaceReader()
    load_weights(folder or reader_folder(), "reader", reader)
    return reader.eval().requires_grad_(False)
