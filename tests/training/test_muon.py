"""Muon by shapes against torch's own, which moves one matrix after the other."""

import torch
from torch import Tensor, nn

from talkingmachines.training.muon import BatchedMuon

SHAPES = [(24, 16), (16, 24), (24, 16), (16, 16), (16, 24)]
OPTIONS = {"lr": 0.02, "weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"}


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def run(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def assert_near(made: list[nn.Parameter], wanted: list[nn.Parameter], before: list[nn.Parameter]) -> None:
    """To 1% of what has moved: both compute in bfloat16, in another order."""
    for one, other, start in zip(made, wanted, before, strict=True):
        moved: Tensor = other - start
        assert (one - other).norm() < 0.01 * moved.norm()


def test_moves_as_one_after_the_other() -> None:
    made, wanted = parameters(), parameters()
    run(made, BatchedMuon(made, **OPTIONS), range(8))
    run(wanted, torch.optim.Muon(wanted, **OPTIONS), range(8))
    assert_near(made, wanted, parameters())


def test_goes_on_from_the_state_of_torchs_own() -> None:
    made, wanted = parameters(), parameters()
    before = torch.optim.Muon(made, **OPTIONS)
    run(made, before, range(4))
    going_on = BatchedMuon(made, **OPTIONS)
    going_on.load_state_dict(before.state_dict())
    run(made, going_on, range(4, 8))
    run(wanted, torch.optim.Muon(wanted, **OPTIONS), range(8))
    assert_near(made, wanted, parameters())


def test_leaves_what_has_no_gradient() -> None:
    made = parameters()
    optimizer = BatchedMuon(made, **OPTIONS)
    for parameter in made[1:]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert torch.equal(made[0], parameters()[0]) and not torch.equal(made[1], parameters()[1])
