"""Scaled dot product attention, one signature for the whole project.

B batch, L query tokens, S key tokens, N heads, K head width.
"""

import torch.nn.functional as F
from torch import Tensor


def attention(q_BLNK: Tensor, k_BSNK: Tensor, v_BSNK: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k / sqrt(K)) v, [B, L, N, K].

    mask: bool, broadcastable to [B, N, L, S], True where the query may see the key; or a float of that shape
    that is added to the scores.
    """
    out_BNLK = F.scaled_dot_product_attention(
        q_BLNK.transpose(1, 2), k_BSNK.transpose(1, 2), v_BSNK.transpose(1, 2), attn_mask=mask
    )
    return out_BNLK.transpose(1, 2)
