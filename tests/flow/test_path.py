"""The path between latents and noise, and the conversions along it."""

import torch

from talkingmachines.dit.model import MIN_SIGMA as MODEL_MIN_SIGMA
from talkingmachines.flow.path import MIN_SIGMA, add_noise, velocity_from_x0, x0_from_velocity


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(4, 3, 2, 2, generator=generator) for _ in range(2))
    return x0, noise


def test_ends_of_the_path() -> None:
    x0, noise = tensors()
    torch.testing.assert_close(add_noise(x0, noise, torch.zeros(4)), x0)
    torch.testing.assert_close(add_noise(x0, noise, torch.ones(4)), noise)


def test_velocity_and_x0_are_two_ways_to_say_the_same() -> None:
    x0, noise = tensors()
    sigma = torch.tensor([0.05, 0.3, 0.7, 1.0])
    x = add_noise(x0, noise, sigma)
    torch.testing.assert_close(x0_from_velocity(x, noise - x0, sigma), x0)
    torch.testing.assert_close(velocity_from_x0(x, x0, sigma), noise - x0, atol=1e-5, rtol=1e-4)


def test_velocity_is_bounded_at_sigma_zero() -> None:
    x0, noise = tensors()
    velocity = velocity_from_x0(noise, x0, torch.zeros(4))
    torch.testing.assert_close(velocity, (noise - x0) / MIN_SIGMA)
    assert MIN_SIGMA == MODEL_MIN_SIGMA
