"""Attention against a loop over heads and queries, in both of its ways of computing."""

import pytest
import torch
from torch import Tensor

from talkingmachines.attention.attention import attention


def naive(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """allowed: [L, S] bool."""
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for n in range(q.shape[2]):
            for i in range(q.shape[1]):
                scores = (k[b, :, n] @ q[b, i, n]) / q.shape[-1] ** 0.5
                weights = torch.where(allowed[i], scores, -torch.inf).softmax(0)
                out[b, i, n] = weights @ v[b, :, n]
    return out


def qkv(dtype: torch.dtype, queries: int = 5, keys: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = (queries, keys, keys)
    q, k, v = (torch.randn(2, size, 3, 8, generator=generator).to(dtype) for size in sizes)
    return q, k, v


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_equals_a_loop(dtype: torch.dtype, tolerance: float, kind: str) -> None:
    q, k, v = qkv(dtype)
    allowed = torch.ones(5, 7, dtype=torch.bool)
    mask = None
    if kind != "none":
        allowed = torch.ones(5, 7, dtype=torch.bool).tril(1)
        added = torch.zeros(5, 7).masked_fill(~allowed, -torch.inf).to(dtype)
        mask = allowed if kind == "bool" else added
    out = attention(q, k, v, mask)
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.float(), naive(q.float(), k.float(), v.float(), allowed), atol=tolerance, rtol=tolerance
    )


def test_gradients_of_both_ways_agree() -> None:
    grads = []
    for dtype in (torch.float32, torch.bfloat16):
        tensors = [tensor.requires_grad_() for tensor in qkv(dtype, 16, 16)]
        (attention(*tensors).float() ** 2).sum().backward()
        grads.append(torch.cat([tensor.grad.float().flatten() for tensor in tensors]))
    assert torch.corrcoef(torch.stack(grads))[0, 1] > 0.999
