"""Scaled dot product attention: one signature for the whole project, several ways to compute it (see `backends`).

B batch, L query tokens, S key tokens, N heads, K head width.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Attention(Protocol):
    """softmax(q k / sqrt(K)) v: q [B, L, N, K], k and v [B, S, N, K] -> [B, L, N, K]; mask as in `attention`."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, /) -> Tensor: ...


def attention(q_BLNK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k / sqrt(K)) v, [B, L, N, K].

    mask: bool, broadcastable to [B, N, L, S], True where the query may see the key; or a float of that shape
    that is added to the scores.
    """
    # torch's fused kernel gains nothing from bfloat16 on a CPU; plain products take half its time with a
    # thousand keys, and a seventh with ten.
    in_products = q_BLNK.device.type == "cpu" and q_BLNK.dtype == torch.bfloat16
    return (products if in_products else fused)(q_BLNK, k_BSNK, v_BSNK, mask)


def fused(q_BLNK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor, mask: Tensor | None = None) -> Tensor:
    """By the kernel that torch chooses."""
    q, k, v = (tensor.transpose(1, 2) for tensor in (q_BLNK, k_BSNK, v_BSNK))
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2)


def products(q_BLNK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor, mask: Tensor | None = None) -> Tensor:
    """As it is written down: two products and a softmax, with all scores in memory."""
    q_BNLK, k_BNSK, v_BNSK = (tensor.transpose(1, 2) for tensor in (q_BLNK, k_BSNK, v_BSNK))
    scores_BNLS = (q_BNLK * q_BNLK.shape[-1] ** -0.5) @ k_BNSK.transpose(-1, -2)
    if mask is not None:
        hidden = mask.dtype == torch.bool
        scores_BNLS = scores_BNLS.masked_fill(~mask, -torch.inf) if hidden else scores_BNLS + mask
    return (scores_BNLS.softmax(-1).to(v_BNSK.dtype) @ v_BNSK).transpose(1, 2)
