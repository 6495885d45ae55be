"""Numbers of a training run."""

import math
from dataclasses import dataclass

from talkingmachines.errors import ConfigError


@dataclass(frozen=True)
class LoopConfig:
    """steps or minutes: where the run ends (exactly one). decay: the last part of it, over which the rate falls."""

    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 1e-3
    muon: bool = False
    warmup: int = 100
    decay: float = 0.8
    grad_clip: float = 1.0
    ema_decay: float = 0.999
    checkpoint_minutes: float = 3.0
    sample_minutes: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ConfigError(f"give exactly one of steps and minutes, got {self.steps} and {self.minutes}")
        end = self.steps or self.minutes or 0
        if not 0 < end < math.inf:
            raise ConfigError(f"steps or minutes must be positive and finite, got {end}")

    def progress(self, step: int, elapsed_s: float) -> float:
        """How much of the run is done, 0..1."""
        done = step / self.steps if self.steps else elapsed_s / (60 * (self.minutes or 1))
        return min(done, 1.0)

    def rate(self, step: int, progress: float) -> float:
        """Factor on the learning rate: linear warm-up, constant, linear fall to 2%."""
        warm = min(1.0, (step + 1) / self.warmup)
        return warm * max(0.02, min(1.0, (1.0 - progress) / self.decay))
