"""How many calls fit on this machine: measured, not guessed."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from talkingmachines.server.pictures import LOOKS, bundled_picture
from talkingmachines.server.timing import Model
from talkingmachines.types import FPS, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from talkingmachines.apart import ApartAvatar

log = logging.getLogger(__name__)

SHARE = 0.7
"""Of the machine that pictures may take; hearing, thinking, speaking and encoding need the rest."""

CHUNKS = 6
"""That are timed."""


def measured_calls(avatar: "ApartAvatar") -> int:
    """How many calls to take at the same time on this machine; said in the log, too."""
    fit, share = calls_that_fit(avatar, bundled_picture(LOOKS[0]), avatar.window + 2)
    steps = f"{avatar.steps} step{'s' * (avatar.steps > 1)} a chunk"
    words = f"a call takes {share:.0%} of real time here, {steps}: {fit} call{'s' * (fit > 1)} at the same time"
    if share > 1:
        log.warning("%s, which will stutter", words)
    else:
        log.info("%s", words)
    return fit


def calls_that_fit(
    model: Model, image: np.ndarray, warm_up: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[int, float]:
    """How many calls keep up with real time together, at least 1, and the part of real time that one takes.

    warm_up: chunks that are made first and do not count, because a call's first chunks are cheaper than later ones.
    """
    with closing(model.session(image)) as session:
        spent = []
        for _ in range(warm_up + CHUNKS):
            samples = np.zeros(session.samples_wanted, np.float32)
            began = clock()
            session.decode(session.denoise(samples, samples[:0]))
            spent.append((clock() - began) / (len(samples) / SAMPLES_PER_FRAME / FPS))
    share = median(spent[warm_up:])
    return max(1, int(SHARE / share)), share
