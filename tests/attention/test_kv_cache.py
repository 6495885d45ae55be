"""Two slots, timestep-matched."""

import torch
from torch import Tensor

from talkingmachines.attention.kv_cache import KVCache


def filled(value: float, cache: KVCache) -> Tensor:
    return torch.full((cache.batch, *cache.keys.shape[4:]), value)


def test_anchor_stays_and_previous_is_replaced() -> None:
    cache = KVCache.empty(2, 2, 3, 4, 1, 6, 7, torch.float32)
    storage = cache.keys.data_ptr(), cache.values.data_ptr()
    for chunk in range(9):
        for step in range(2):
            for layer in range(3):
                keys, values = cache.seen(step, layer)
                earlier = sorted({0, chunk - 1}) if chunk else []
                expected = [100 * old + 10 * step + layer for old in earlier for _ in range(4)]
                assert keys.shape == (2, 4 * len(earlier), 1, 6)
                assert keys[1, :, 0, 0].tolist() == expected
                assert values[0, :, 0, 5].tolist() == [-number for number in expected]
                new = filled(100 * chunk + 10 * step + layer, cache)
                cache.write(step, layer, new, -new)
        assert len(cache.positions()) == len(earlier) + 1
        cache.advance()
    assert (cache.keys.data_ptr(), cache.values.data_ptr()) == storage


def test_positions_and_phase() -> None:
    cache = KVCache.empty(1, 1, 1, 1, 1, 6, 4, torch.float32)
    seen = []
    for _ in range(6):
        seen.append((cache.phase, cache.positions()))
        cache.advance()
    assert seen == [(0, (0,)), (1, (0, 1)), (2, (0, 1, 2)), (3, (0, 2, 3)), (3, (0, 2, 3)), (3, (0, 2, 3))]


def test_what_is_kept_has_no_gradient() -> None:
    cache = KVCache.empty(1, 1, 1, 1, 1, 6, 4, torch.float32)
    new = torch.ones(1, 1, 1, 6, requires_grad=True)
    cache.write(0, 0, new * 2, new)
    assert not cache.keys.requires_grad and cache.keys[0, 0, 0, 0, 0, 0, 0] == 2
