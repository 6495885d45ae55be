"""Where a picture has its eyes and its mouth, drawn in any way: a small network that ships with the package.

It looks at the picture at several sizes for the middle of a face, as CenterNet does (Zhou et al. 2019, arXiv
1904.07850), then once more at a cut around what it found.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

CELL = 8
"""Pixels across what the network has one score for."""

SIDE = 160
"""Height and width of the pictures that it learns from."""

SIZES = (10.0, 64.0)
"""Of the faces in the pictures that it learns from, in pixels; see face_size."""

_SIDES = (80, 160, 320)
"""Shorter sides at which it looks at a picture."""

_LONGEST = 960
"""Pixels; a very long picture is looked at smaller."""

_REFINED = 48.0
"""Size of the face in the cut that is looked at last."""

CERTAIN = 0.5
"""The least score of a face."""


class _Block(nn.Module):
    """Residual; dilation: how far apart the cells are that it looks at."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.norm = nn.GroupNorm(8, width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.norm(self.first(x))))


class FaceFinder(nn.Module):
    """For each cell: is the middle of a face here, and where from here are its eyes and its mouth."""

    def __init__(self) -> None:
        super().__init__()
        narrow, medium, width = 16, 32, 64
        self.stem = nn.Sequential(
            nn.Conv2d(3, narrow, 5, stride=2, padding=2),
            nn.GroupNorm(4, narrow),
            nn.SiLU(),
            nn.Conv2d(narrow, medium, 3, stride=2, padding=1),
            nn.GroupNorm(8, medium),
            nn.SiLU(),
            _Block(medium, 1),
            nn.Conv2d(medium, width, 3, stride=2, padding=1),
        )
        self.blocks = nn.Sequential(*(_Block(width, dilation) for dilation in (1, 2, 4, 8, 2, 1)))
        self.out = nn.Conv2d(width, 7, 1)
        assert self.out.bias is not None
        nn.init.constant_(self.out.bias[:1], -4.0)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """pixels: [B, 3, H, W] in [-1, 1], H and W multiples of CELL.

        Returns logits [B, h, w] and places [B, h, w, 3, 2]: (x, y) of left eye, right eye and mouth, in pixels.
        """
        out = self.out(F.silu(self.blocks(self.stem(pixels)))).float()
        h, w = out.shape[-2:]
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        centres = (torch.stack([x, y], -1).to(out) + 0.5) * CELL
        offsets = out[:, 1:].movedim(1, -1).unflatten(-1, (3, 2)) * CELL
        return out[:, 0], centres[:, :, None] + offsets

    @torch.inference_mode()
    def find(self, picture: np.ndarray) -> np.ndarray | None:
        """(x, y) of left eye, right eye and mouth, float32 [3, 2] in pixels of a picture uint8 [H, W, 3]; None if there
        is no face. Of several the clearest. Left and right as seen.
        """
        image = Image.fromarray(picture)
        score, places = max((self._look(image, side) for side in _SIDES), key=lambda found: found[0])
        for _ in range(2):
            if score < CERTAIN:
                return None
            score, places = self._look_again(image, places)
        x, y = middle(places)
        inside = 0 <= x < image.width and 0 <= y < image.height
        return places if score >= CERTAIN and inside else None

    @torch.inference_mode()
    def find_near(self, picture: np.ndarray, places: np.ndarray) -> np.ndarray | None:
        """As `find`, but only of a face that is about there: a tenth of the time."""
        score, found = self._look_again(Image.fromarray(picture), places)
        return found if score >= CERTAIN else None

    def _look(self, image: Image.Image, side: int) -> tuple[float, np.ndarray]:
        """The best score, and places in pixels of the image."""
        scale = min(side / min(image.size), _LONGEST / max(image.size))
        width, height = (max(CELL, round(scale * length)) for length in image.size)
        small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        rest = (-height % CELL, -width % CELL)
        scores, places = self._run(np.pad(small, ((0, rest[0]), (0, rest[1]), (0, 0)), mode="edge"))
        best = int(scores.argmax())
        return float(scores.flatten()[best]), places[best] * (image.width / width, image.height / height)

    def _look_again(self, image: Image.Image, places: np.ndarray) -> tuple[float, np.ndarray]:
        """The same of a square around a face, of the size that the network knows best."""
        scale = _REFINED / max(1.0, face_size(places))
        left, top = middle(places) - SIDE / 2 / scale
        inverse = (1 / scale, 0, left, 0, 1 / scale, top)
        reduced = image
        if scale < 1:  # a transform takes single pixels
            size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
            reduced = image.resize(size, Image.Resampling.BILINEAR)
            inverse = (1, 0, left * scale, 0, 1, top * scale)
        square = reduced.transform((SIDE, SIDE), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR,
                                   fillcolor=(128, 128, 128))  # fmt: skip
        scores, found = self._run(np.asarray(square))
        near = np.hypot(*(middle(found) - SIDE / 2).T) < _REFINED
        scores = np.where(near, scores.flatten(), 0.0)
        best = int(scores.argmax())
        return float(scores[best]), found[best] / scale + (left, top)

    def _run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores [h, w] in 0..1 and places [h * w, 3, 2] in pixels of `pixels`, [H, W, 3] uint8."""
        device = self.out.weight.device
        batch = torch.from_numpy(np.array(pixels)).to(device).movedim(-1, 0)[None].float() / 127.5 - 1
        logits, places = self(batch)
        return logits[0].sigmoid().cpu().numpy(), places[0].flatten(0, 1).cpu().numpy()


def middle(places: np.ndarray) -> np.ndarray:
    """Of a face, half way from between the eyes to the mouth. places: [..., 3, 2] -> [..., 2]."""
    return (places[..., :2, :].mean(-2) + places[..., 2, :]) / 2


def face_size(places: np.ndarray) -> float:
    """The geometric mean of how far the eyes are apart and how far above the mouth. places: [3, 2]."""
    left, right, mouth = places
    return float(np.sqrt(np.hypot(*(mouth - (left + right) / 2)) * np.hypot(*(right - left))))
