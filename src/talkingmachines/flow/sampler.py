"""From noise to a whole clip's latents: Euler steps with classifier-free guidance."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import Tensor

Condition_contra = TypeVar("Condition_contra", contravariant=True)


class VelocityModel(Protocol[Condition_contra]):
    """x [B, C, F, H, W] and sigma [B] -> the velocity, shaped like x."""

    def __call__(self, x: Tensor, sigma: Tensor, cond: Condition_contra, /) -> Tensor: ...


Condition = TypeVar("Condition")


def sample(
    model: VelocityModel[Condition],
    noise: Tensor,
    sigmas: Tensor,
    conditional: Condition,
    unconditional: Condition | None = None,
    guidance_scale: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Latents [B, C, F, H, W] from noise of that shape, along falling sigmas [steps + 1].

    The velocity is v_u + guidance_scale * (v_c - v_u); without `unconditional`, or at scale 1, only v_c is
    computed. progress(steps done, steps) is called after each step.
    Conditions are passed on as they are: prepare once what the model would compute anew at each step.
    """
    x, steps = noise, len(sigmas) - 1
    for step in range(steps):
        sigma = sigmas[step].to(x.device).expand(len(x))
        velocity = model(x, sigma, conditional)
        if unconditional is not None and guidance_scale != 1:
            free = model(x, sigma, unconditional)
            velocity = free + guidance_scale * (velocity - free)
        x = x + (sigmas[step + 1] - sigmas[step]).to(x.device) * velocity
        if progress:
            progress(step + 1, steps)
    return x
