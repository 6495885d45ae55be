"""Which kernel is used: the first that does not raise and is right."""

import logging

import pytest
import torch
from torch import Tensor

from talkingmachines.attention import backends
from talkingmachines.attention.attention import attention, fused, products
from talkingmachines.attention.backends import (
    LIMITS,
    Backend,
    attention_error,
    choose_attention,
    present_backends,
)
from talkingmachines.errors import ConfigError

CPU = torch.device("cpu")
SIZES = [(24, 72), (24, 5)]


def raises(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    raise RuntimeError("no kernel image is available\nfor execution on the device")


def one_percent_more(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return 1.01 * fused(q, k, v)


def noise_at_the_end(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Right but for the last query, as where a kernel's last tile is not full."""
    made = fused(q, k, v)
    made[:, -1] += made.std()
    return made


def not_finite(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return fused(q, k, v) * torch.nan


def choose(*backends: Backend, dtype: torch.dtype = torch.bfloat16):  # type: ignore[no-untyped-def]
    return choose_attention(backends, CPU, dtype, 16, SIZES)


@pytest.mark.parametrize("wrong", [raises, one_percent_more, noise_at_the_end, not_finite], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_falls_back_with_a_warning(wrong, dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    with caplog.at_level(logging.WARNING):
        chosen = choose(Backend("wrong one", wrong), Backend("right one", fused), dtype=dtype)
    assert chosen.backend.name == "right one" and chosen.error < LIMITS[dtype]
    [record] = caplog.records
    assert "wrong one" in record.message and "\n" not in record.message


def test_the_first_right_one_is_used_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    chosen = choose(Backend("first", products), Backend("second", raises))
    assert chosen.backend.name == "first" and not caplog.records


def test_none_is_right() -> None:
    with pytest.raises(ConfigError, match="first, second"):
        choose(Backend("first", raises), Backend("second", one_percent_more))


@pytest.mark.parametrize("kernel", [fused, products])
@pytest.mark.parametrize(("L", "S"), [(24, 72), (3, 2), (192, 576)])
def test_the_limit_leaves_room_for_rounding(kernel, L: int, S: int) -> None:  # type: ignore[no-untyped-def]
    for dtype, limit in LIMITS.items():
        assert attention_error(kernel, CPU, dtype, 64, L, S) < 0.8 * limit


def test_what_it_is_not_made_for_goes_to_the_plain_one() -> None:
    chosen = choose(Backend("counts", fused))
    q, k, v = (torch.randn(1, size, 2, 16, generator=torch.Generator().manual_seed(0)) for size in (4, 6, 6))
    mask = torch.ones(4, 6, dtype=torch.bool).tril(2)
    assert torch.equal(chosen(q, k, v), attention(q, k, v))
    assert torch.equal(chosen(q, k, v, mask), attention(q, k, v, mask))
    half = q.bfloat16(), k.bfloat16(), v.bfloat16()
    assert torch.equal(chosen(*half), fused(*half))


@pytest.mark.parametrize(("has", "first"), [(["avx512_bf16"], "products"), (["avx512_bf16", "amx_bf16"], "sdpa")])
def test_on_a_processor_by_what_it_multiplies(has: list[str], first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "bf16_instructions", lambda: has)
    assert [backend.name for backend in present_backends(CPU, torch.float32)] == ["sdpa", "products"]
    assert {backend.name for backend in present_backends(CPU, torch.bfloat16)} == {"sdpa", "products"}
    assert present_backends(CPU, torch.bfloat16)[0].name == first
