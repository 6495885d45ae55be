"""The sampler on velocity fields that are known in closed form."""

import torch
from torch import Tensor

from talkingmachines.flow.sampler import sample
from talkingmachines.flow.schedule import sampling_sigmas


def to_point(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
    """The velocity when all data is one point, `cond`."""
    return (x - cond) / sigma.view(-1, 1, 1, 1, 1)


def to_gaussian(x: Tensor, sigma: Tensor, cond: tuple[float, float]) -> Tensor:
    """E[noise - x0 | x] for data of the given mean and standard deviation."""
    mean, std = cond
    s = sigma.view(-1, 1, 1, 1, 1)
    residual = x - (1 - s) * mean
    return (s - (1 - s) * std**2) / (s**2 + (1 - s) ** 2 * std**2) * residual - mean


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_reaches_a_point_in_any_number_of_steps() -> None:
    point = noise(2, 3, 1, 2, 2) + 1
    for num_steps in (1, 2, 9):
        out = sample(to_point, noise(2, 3, 1, 2, 2), sampling_sigmas(num_steps, 3.0), point)
        torch.testing.assert_close(out, point, atol=1e-5, rtol=1e-5)


def test_recovers_a_gaussian() -> None:
    out = sample(to_gaussian, noise(1, 1, 1, 100, 100), sampling_sigmas(200, 1.0), (3.0, 0.5))
    assert abs(out.mean() - 3) < 0.02
    assert abs(out.std() - 0.5) < 0.02


def test_guidance_goes_beyond_the_condition() -> None:
    start = noise(1, 1, 1, 2, 2)
    conditional, unconditional = torch.ones_like(start), torch.zeros_like(start)
    for scale in (0.0, 1.0, 2.5):
        out = sample(to_point, start, sampling_sigmas(1, 1.0), conditional, unconditional, scale)
        torch.testing.assert_close(out, torch.full_like(start, scale))


def test_unconditional_model_is_not_run_without_need() -> None:
    seen: list[str] = []

    def model(x: Tensor, sigma: Tensor, cond: str) -> Tensor:
        seen.append(cond)
        return x

    sample(model, noise(1, 1, 1, 1, 1), sampling_sigmas(2, 1.0), "audio", "none", 1.0)
    assert seen == ["audio", "audio"]


def test_progress_and_the_sigmas_that_the_model_sees() -> None:
    seen, reports = [], []

    def model(x: Tensor, sigma: Tensor, cond: None) -> Tensor:
        seen.append(sigma.tolist())
        return torch.zeros_like(x)

    sigmas = sampling_sigmas(3, 2.0)
    sample(model, noise(2, 1, 1, 1, 1), sigmas, None, progress=lambda *report: reports.append(report))
    assert seen == [[sigma] * 2 for sigma in sigmas[:-1].tolist()]
    assert reports == [(1, 3), (2, 3), (3, 3)]
