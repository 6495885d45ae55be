"""The sparse causal rule, against the paper's table."""

import torch

from talkingmachines.attention.masks import frame_positions, seen_chunks, seen_positions, sparse_causal_mask

PAPER = {0: "0", 1: "01", 2: "012", 3: "023", 4: "034", 5: "045", 6: "056"}


def test_the_papers_table() -> None:
    for chunk, seen in PAPER.items():
        assert seen_chunks(chunk) == tuple(int(digit) for digit in seen)
        assert seen_positions(chunk, 7) == seen_chunks(chunk)
    assert seen_chunks(1000) == (0, 999, 1000)


def test_positions_stay_in_the_window() -> None:
    for chunk in (6, 7, 8, 100_000):
        assert seen_positions(chunk, 7) == (0, 5, 6)
    assert seen_positions(1, 3) == (0, 1) and seen_positions(5, 3) == (0, 1, 2)
    assert frame_positions((0, 5, 6), 3) == [0, 1, 2, 15, 16, 17, 18, 19, 20]


def test_mask_is_the_rule_spread_over_tokens() -> None:
    mask = sparse_causal_mask(7, 2)
    assert mask.shape == (14, 14)
    for row in range(14):
        for column in range(14):
            assert bool(mask[row, column]) == (str(column // 2) in PAPER[row // 2])
    assert torch.equal(sparse_causal_mask(1, 3), torch.ones(3, 3, dtype=torch.bool))
