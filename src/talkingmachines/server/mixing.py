"""Voices that come in pieces, each at its own pace, mixed to one sound."""

from collections.abc import Sequence

import numpy as np

from talkingmachines.types import SAMPLE_RATE

GAP = 0.1
"""Seconds that a voice may come late and still go on where it stopped; after more there was a pause."""


QUIET = 0.01
"""Loudest sample of a piece in which nobody speaks."""


class Mixer:
    """Pieces of each voice follow one another without a gap, unless one comes later than GAP: that was silence. Where
    pieces had been held up and then came at once, the voice would be late from then on: it loses its pauses until it is
    not.

    Holds what has been given and not yet taken. Times are seconds since the beginning.
    """

    def __init__(self, voices: Sequence[str]) -> None:
        self._next = dict.fromkeys(voices, 0)  # where each voice goes on, in samples
        self._taken = 0
        self._waiting = np.zeros(0, np.float32)

    @property
    def end(self) -> float:
        """Until when there is sound of any voice."""
        return (self._taken + len(self._waiting)) / SAMPLE_RATE

    def continues(self, voice: str, at: float) -> float:
        """When a piece of that voice, given at `at`, is heard."""
        goes_on = self._next[voice] / SAMPLE_RATE
        return goes_on if at - goes_on <= GAP else at

    def add(self, voice: str, samples: np.ndarray, at: float) -> None:
        """float32 [n], given at `at`. What would be heard before what was taken is left out."""
        heard = self.continues(voice, at)
        if heard - at > GAP and np.abs(samples).max(initial=0.0) < QUIET:
            return
        start = round(max(0.0, heard) * SAMPLE_RATE)
        self._next[voice] = start + len(samples)
        late = min(max(0, self._taken - start), len(samples))
        first, samples = start + late - self._taken, samples[late:]
        missing = first + len(samples) - len(self._waiting)
        if missing > 0:
            self._waiting = np.pad(self._waiting, (0, missing))
        self._waiting[first : first + len(samples)] += samples

    def take(self, until: float) -> np.ndarray:
        """All sound from where the last take ended: float32 [n] in [-1, 1], silence where nobody spoke."""
        count = max(0, round(until * SAMPLE_RATE) - self._taken)
        taken = np.zeros(count, np.float32)
        there = self._waiting[:count]
        taken[: len(there)] = np.clip(there, -1, 1)
        self._waiting = self._waiting[count:]
        self._taken += count
        return taken
