"""Rotary positions against complex numbers, and their defining property."""

import pytest
import torch
from torch import Tensor

from talkingmachines.attention.rope import axis_widths, rope_table, rotate, rotate_complex, rotate_real
from talkingmachines.errors import ConfigError


def complex_rotation(x_BLNK: Tensor, frames: list[int], height: int, width: int) -> Tensor:
    """The definition, one token after the other."""
    K = x_BLNK.shape[-1]
    space = K // 6
    pairs = (K // 2 - 2 * space, space, space)
    tokens = [(f, i, j) for f in frames for i in range(height) for j in range(width)]
    out = torch.view_as_complex(x_BLNK.double().unflatten(-1, (-1, 2))).clone()
    for token, position in enumerate(tokens):
        turns = []
        for count, place in zip(pairs, position, strict=True):
            turns += [place * 10_000 ** (-2 * i / (2 * count)) for i in range(count)]
        out[:, token] *= torch.polar(torch.ones(K // 2, dtype=torch.float64), torch.tensor(turns).double())
    return torch.view_as_real(out).flatten(-2).float()


@pytest.mark.parametrize("K", [6, 8, 32, 64, 80, 128])
@pytest.mark.parametrize("frames", [[0], [0, 1, 2], [0, 15, 16, 20], [7, 3]])
def test_equals_complex_numbers(K: int, frames: list[int]) -> None:
    assert sum(axis_widths(K)) == K
    x = torch.randn(2, len(frames) * 6, 2, K, generator=torch.Generator().manual_seed(K))
    wanted = complex_rotation(x, frames, 2, 3)
    for turn in (rotate, rotate_real, rotate_complex):
        torch.testing.assert_close(turn(x, rope_table(K, frames, 2, 3)), wanted, atol=2e-5, rtol=1e-5)


def test_split_is_that_of_wan() -> None:
    assert axis_widths(128) == (44, 42, 42)
    assert axis_widths(64) == (24, 20, 20)


def test_scores_depend_on_the_distance_in_time_only() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 1, 64, generator=generator).expand(1, 2, 1, 64) for _ in range(2))

    def score(first: int, second: int) -> Tensor:
        table = rope_table(64, [first, second], 1, 1)
        return (rotate(q, table)[0, 0] * rotate(k, table)[0, 1]).sum()

    torch.testing.assert_close(score(0, 3), score(18, 21), atol=1e-4, rtol=1e-4)
    assert abs(score(0, 3) - score(0, 4)) > 1e-2


@pytest.mark.parametrize("K", [4, 65])
def test_unusable_head_width(K: int) -> None:
    with pytest.raises(ConfigError, match=str(K)):
        axis_widths(K)
