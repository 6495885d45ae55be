"""The path between latents and noise, and the conversions along it."""

import torch

from talkingmachines.flow.path import add_noise, x0_from_velocity


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(4, 3, 2, 2, generator=generator) for _ in range(2))
    return x0, noise


def test_ends_of_the_path() -> None:
    x0, noise = tensors()
    torch.testing.assert_close(add_noise(x0, noise, torch.zeros(4)), x0)
    torch.testing.assert_close(add_noise(x0, noise, torch.ones(4)), noise)


def test_a_velocity_points_to_x0() -> None:
    x0, noise = tensors()
    sigma = torch.tensor([0.05, 0.3, 0.7, 1.0])
    x = add_noise(x0, noise, sigma)
    torch.testing.assert_close(x0_from_velocity(x, noise - x0, sigma), x0)
