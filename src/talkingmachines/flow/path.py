"""The straight path between latents and noise: x_sigma = (1 - sigma) x0 + sigma noise, velocity = noise - x0.

sigma is [B] everywhere, the tensors [B, ...].
"""

from torch import Tensor

MIN_SIGMA = 0.05
"""Below it, a velocity made from x0 is damped instead of dividing by (almost) zero."""


def _like(sigma_B: Tensor, x: Tensor) -> Tensor:
    return sigma_B.view(-1, *[1] * (x.ndim - 1))


def add_noise(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_sigma."""
    return x0 + _like(sigma, x0) * (noise - x0)


def x0_from_velocity(x: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The clean latents that a velocity at x_sigma points to."""
    return x - _like(sigma, x) * velocity


def velocity_from_x0(x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """The velocity at x_sigma that leads to x0; the inverse of x0_from_velocity for sigma >= MIN_SIGMA."""
    return (x - x0) / _like(sigma, x).clamp(min=MIN_SIGMA)
