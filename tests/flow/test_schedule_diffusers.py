"""The schedule and the steps along it against diffusers' schedulers."""

import numpy as np
import pytest
import torch
from torch import Tensor

from talkingmachines.flow.path import add_noise
from talkingmachines.flow.sampler import sample
from talkingmachines.flow.schedule import sampling_sigmas

diffusers = pytest.importorskip("diffusers", reason="needs the independent implementation: .[dev] installs it")

CASES = pytest.mark.parametrize(("num_steps", "shift"), [(2, 3.0), (4, 5.0), (40, 5.0), (7, 1.0)])


def unshifted(num_steps: int) -> np.ndarray:
    return np.linspace(1, 0, num_steps + 1)[:-1]


@CASES
def test_sigmas_of_flow_match_euler(num_steps: int, shift: float) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=unshifted(num_steps))
    torch.testing.assert_close(sampling_sigmas(num_steps, shift), scheduler.sigmas, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(1000 * sampling_sigmas(num_steps, shift)[:-1], scheduler.timesteps, atol=1e-3, rtol=0)


@CASES
def test_sigmas_of_unipc(num_steps: int, shift: float) -> None:
    """UniPC begins a millionth below 1, where its own formula has no value."""
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    scheduler.set_timesteps(sigmas=unshifted(num_steps))
    torch.testing.assert_close(sampling_sigmas(num_steps, shift), scheduler.sigmas, atol=2e-6, rtol=1e-6)


def test_unipcs_own_sigmas_end_a_thousandth_higher() -> None:
    """Left to itself it spaces them from 1 to 1/1000 before the shift, and then goes to 0; ours go to 0 evenly."""
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(40)
    torch.testing.assert_close(sampling_sigmas(40, 3.0), scheduler.sigmas, atol=3e-3, rtol=0)


@CASES
def test_steps(num_steps: int, shift: float) -> None:
    noise = torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def model(x: Tensor, sigma: Tensor, cond: None) -> Tensor:
        return x.tanh() * (1 + sigma.view(-1, 1, 1, 1, 1)) + 0.3

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=unshifted(num_steps))
    x = noise
    for timestep in scheduler.timesteps:
        velocity = model(x, timestep.view(1) / 1000, None)
        x = scheduler.step(velocity, timestep, x, return_dict=False)[0]
    found = sample(model, noise, sampling_sigmas(num_steps, shift), None)
    torch.testing.assert_close(found, x, atol=1e-4, rtol=1e-4)


def test_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(2, 2, 3, 4, 4, generator=generator) for _ in range(2))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    timesteps = scheduler.timesteps[[100, 800]]
    expected = scheduler.scale_noise(x0, timesteps, noise)
    torch.testing.assert_close(add_noise(x0, noise, timesteps / 1000), expected, atol=1e-5, rtol=1e-5)
