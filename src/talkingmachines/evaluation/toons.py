"""How far the mouth of a simple drawn character is open, read from its pictures."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from PIL import Image

from talkingmachines.data.synthetic.looks import boxes, draw_clip, places_of
from talkingmachines.data.synthetic.pose import Pose
from talkingmachines.data.synthetic.toon import Toon
from talkingmachines.evaluation.metrics import pearson
from talkingmachines.framing.finder import FaceFinder


@dataclass(frozen=True)
class ToonTake:
    """r: between the drawn opening and the one that is read from what was made; reader_r: from the drawing itself;
    opening: how much the first varies over the second."""

    r: float
    reader_r: float
    opening: float

    @classmethod
    def of(cls, toon: Toon, opening: np.ndarray, true: np.ndarray, made: np.ndarray, finder: FaceFinder) -> Self:
        """opening: the drawn one, [T]; true, made: [T, S, S, 3] uint8, of which the first frame was given."""
        drawn, seen = (toon_opening(toon, frames[1:], finder) for frames in (true, made))
        return cls(pearson(seen, opening[1:]), pearson(drawn, opening[1:]), float(seen.std() / max(1e-6, drawn.std())))


def toon_lips(takes: list[ToonTake]) -> dict[str, Any]:
    """Means over clips."""
    names = ("r", "reader_r", "opening")
    means = {name: float(np.mean([getattr(take, name) for take in takes])) if takes else None for name in names}
    return means | {"clips_r": [take.r for take in takes], "clips": len(takes)}


def toon_opening(toon: Toon, frames: np.ndarray, finder: FaceFinder) -> np.ndarray:
    """frames: [T, S, S, 3] uint8 -> [T], about 0 where the mouth is shut and 1 where it is widest.

    The eyes say how the head has moved since its drawing at rest. The mouth there, less the shut one as it is drawn, is
    compared with the drawn open one less that: the factor by which the squares differ least.
    """
    size = frames.shape[1]
    shut, widest = draw_clip(toon, np.stack([Pose().to_row(), replace(Pose(), mouth_open=1.0).to_row()]), size)
    _, box = boxes(toon)
    x0, y0, x1, y1 = (round(size * value) for value in box)
    change = widest[y0:y1, x0:x1].astype(np.float32) - shut[y0:y1, x0:x1]
    rest = size * np.array(places_of(toon, Pose()))
    start, moved = finder.find_near(shut, rest), np.zeros(2)
    openings = []
    for frame in frames:
        if start is not None and (seen_at := finder.find_near(frame, rest)) is not None:
            moved = (seen_at - start)[:2].mean(0)
        image = Image.fromarray(frame).transform(
            (size, size), Image.Transform.AFFINE, (1, 0, moved[0], 0, 1, moved[1]), Image.Resampling.BILINEAR
        )
        seen = np.asarray(image, np.float32)[y0:y1, x0:x1] - shut[y0:y1, x0:x1]
        openings.append(float((seen * change).sum() / (change * change).sum()))
    return np.array(openings)
