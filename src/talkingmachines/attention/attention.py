"""Scaled dot product attention: one signature for the whole project, two ways to compute it.

B batch, L query tokens, S key tokens, N heads, K head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(q_BLNK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k / sqrt(K)) v, [B, L, N, K].

    mask: bool, broadcastable to [B, N, L, S], True where the query may see the key; or a float of that shape
    that is added to the scores.
    """
    q, k, v = (tensor.transpose(1, 2) for tensor in (q_BLNK, k_BSNK, v_BSNK))
    # torch's fused kernel gains nothing from bfloat16 on a CPU; plain products take half its time with a
    # thousand keys, and a seventh with ten.
    in_products = q.device.type == "cpu" and q.dtype == torch.bfloat16
    out = _products(q, k, v, mask) if in_products else F.scaled_dot_product_attention(q, k, v, mask)
    return out.transpose(1, 2)


def _products(q_BNLK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor, mask: Tensor | None) -> Tensor:
    scores_BNLS = (q_BNLK * q_BNLK.shape[-1] ** -0.5) @ k_BNSK.transpose(-1, -2)
    if mask is not None:
        hidden = mask.dtype == torch.bool
        scores_BNLS = scores_BNLS.masked_fill(~mask, -torch.inf) if hidden else scores_BNLS + mask
    return scores_BNLS.softmax(-1).to(v_BNSK.dtype) @ v_BNSK
