"""Looking at many characters at once."""

import math
from collections.abc import Sequence

import numpy as np

from talkingmachines.data.synthetic.looks import draw_clip, sample_look
from talkingmachines.data.synthetic.pose import Pose


def contact_sheet(seeds: Sequence[int], size: int = 128) -> np.ndarray:
    """The characters of the seeds in a grid about as wide as high, each in a slightly lively pose.

    Returns [rows * size, columns * size, 3] uint8 RGB; places left over are white. Raises ValueError without seeds.
    """
    if not seeds:
        raise ValueError("a contact sheet needs at least one seed")
    columns = math.ceil(math.sqrt(len(seeds)))
    rows = math.ceil(len(seeds) / columns)
    sheet = np.full((rows * size, columns * size, 3), 255, np.uint8)
    for place, seed in enumerate(seeds):
        y, x = size * (place // columns), size * (place % columns)
        sheet[y : y + size, x : x + size] = draw_clip(sample_look(seed), _lively(seed).to_row()[None], size)[0]
    return sheet


def _lively(seed: int) -> Pose:
    """A friendly pose, somewhat different for each seed; a few speak."""
    rng = np.random.default_rng([seed, 11])
    speaks = rng.random() < 0.3
    return Pose(
        mouth_open=float(rng.uniform(0.3, 0.7)) if speaks else 0.0,
        teeth=0.5,
        smile=float(rng.uniform(0.1, 0.8)),
        brow_raise=float(rng.uniform(-0.1, 0.4)),
        head_yaw=float(rng.uniform(-0.3, 0.3)),
        head_pitch=float(rng.uniform(-0.2, 0.2)),
        head_roll=float(rng.uniform(-0.05, 0.05)),
        gaze_x=float(rng.uniform(-0.3, 0.3)),
    )
