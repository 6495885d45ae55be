"""One chunk of a call: the only place that denoises one, in training as in serving."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from talkingmachines.errors import ConfigError
from talkingmachines.flow.path import add_noise, x0_from_velocity
from talkingmachines.flow.schedule import sampling_sigmas


@dataclass(frozen=True)
class ChunkConfig:
    """How a student makes a call.

    frames: latent frames of a chunk; window: chunks that positions are counted in, the anchor among them; steps:
    denoising steps of a chunk, at the sigmas of a sampler of as many steps with this shift.
    """

    frames: int = 3
    window: int = 7
    steps: int = 2
    shift: float = 3.0

    def __post_init__(self) -> None:
        if self.window < 3 or min(self.frames, self.steps) < 1:
            raise ConfigError(
                f"a chunk needs frames and steps of at least 1 and a window of at least 3 chunks, got {self.frames}, "
                f"{self.steps} and {self.window}"
            )

    @property
    def sigmas(self) -> Tensor:
        """[steps], falling from 1."""
        return sampling_sigmas(self.steps, self.shift)[:-1]


class Cache(Protocol):
    def advance(self) -> None: ...


Condition_contra = TypeVar("Condition_contra", contravariant=True)
Cache_contra = TypeVar("Cache_contra", contravariant=True, bound=Cache)


class ChunkModel(Protocol[Condition_contra, Cache_contra]):
    """Velocity of x [B, C, F, H, W], noisy at step `step` of the model's own few sigmas, seeing the caches at it."""

    def __call__(self, x: Tensor, step: int, cond: Condition_contra, caches: Sequence[Cache_contra], /) -> Tensor: ...


Condition = TypeVar("Condition")
SomeCache = TypeVar("SomeCache", bound=Cache)


def denoise_chunk(
    model: ChunkModel[Condition, SomeCache],
    noise: Tensor,
    sigmas: Tensor,
    cond: Condition,
    caches: Sequence[SomeCache],
) -> list[Tensor]:
    """The chunk's x0 [B, C, F, H, W] as seen at each step; the last one is the chunk. Advances the caches.

    noise: [steps, B, C, F, H, W], fresh for each step; sigmas: [steps], falling from 1. After each step the x0 is
    made noisy again at the next sigma (multistep consistency sampling, as in DMD2). No gradient flows from one step
    to the next, nor from one chunk to the next.
    """
    estimates: list[Tensor] = []
    for step, sigma in enumerate(sigmas.to(noise.device)):
        x = add_noise(estimates[-1].detach(), noise[step], sigma.view(1)) if estimates else noise[step]
        velocity = model(x, step, cond, caches)
        estimates.append(x0_from_velocity(x, velocity, sigma.view(1)))
    for cache in caches:
        cache.advance()
    return estimates
