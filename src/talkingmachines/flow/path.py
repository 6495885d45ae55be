"""The straight path between latents and noise: x_sigma = (1 - sigma) x0 + sigma noise, velocity = noise - x0.

sigma is [B] everywhere, the tensors [B, ...].
"""

from torch import Tensor


def _like(sigma_B: Tensor, x: Tensor) -> Tensor:
    return sigma_B.view(-1, *[1] * (x.ndim - 1))


def add_noise(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_sigma."""
    return x0 + _like(sigma, x0) * (noise - x0)


def x0_from_velocity(x: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The clean latents that a velocity at x_sigma points to."""
    return x - _like(sigma, x) * velocity
