"""Which sigmas are visited."""

import pytest
import torch

from talkingmachines.errors import ConfigError
from talkingmachines.flow.schedule import sampling_sigmas, shift_sigmas, training_sigmas


@pytest.mark.parametrize("num_steps", [1, 2, 7, 30])
@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 5.0])
def test_falls_from_exactly_one_to_exactly_zero(num_steps: int, shift: float) -> None:
    sigmas = sampling_sigmas(num_steps, shift)
    assert len(sigmas) == num_steps + 1
    assert sigmas[0] == 1
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_shift() -> None:
    # The steps of 1000, 750, 500, 250 shifted by 5, as public four-step models of the Wan family use them.
    expected = torch.tensor([1, 15 / 16, 5 / 6, 5 / 8, 0])
    torch.testing.assert_close(sampling_sigmas(4, 5.0), expected)
    torch.testing.assert_close(shift_sigmas(expected, 1.0), expected)


@pytest.mark.parametrize(("num_steps", "shift"), [(0, 3.0), (4, 0.0), (4, -1.0)])
def test_unusable_settings(num_steps: int, shift: float) -> None:
    with pytest.raises(ConfigError, match=f"{num_steps} and {shift}"):
        sampling_sigmas(num_steps, shift)


def test_training_sigmas() -> None:
    sigmas = training_sigmas(20_000, 3.0, torch.Generator().manual_seed(0))
    assert ((sigmas > 0) & (sigmas < 1)).all()
    # The median of the logistic normal is 1/2, which shift 3 moves to 3/4.
    assert abs(sigmas.median() - 0.75) < 0.01
    assert torch.equal(sigmas, training_sigmas(20_000, 3.0, torch.Generator().manual_seed(0)))
