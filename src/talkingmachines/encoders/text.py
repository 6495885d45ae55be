"""Prompts as Wan hears them: umT5-xxl, 512 tokens, zeros after the prompt's end.

B prompts, L = 512 tokens, D = 4096.
"""

import html
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

TOKENS = 512


def clean_prompt(prompt: str) -> str:
    """HTML entities resolved, white space as single blanks. Wan also mends wrongly decoded text; this does not."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(prompt))).strip()


def embed_prompts(model: Any, tokenizer: Any, prompts: Sequence[str], tokens: int = TOKENS) -> Tensor:
    """[B, L, D] of a UMT5EncoderModel and its tokenizer; longer prompts are cut."""
    made = tokenizer(
        [clean_prompt(prompt) for prompt in prompts],
        padding="max_length",
        max_length=tokens,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return embed_tokens(model, made["input_ids"], made["attention_mask"])


@torch.no_grad()
def embed_tokens(model: Any, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """[B, L, D]: the tokens of mask 1 see each other, the others are zero, which is how Wan pads."""
    ids_BL, mask_BL = ids_BL.to(model.device), mask_BL.to(model.device)
    hidden_BLD = model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    # Not a product: what stands at padded places may be infinite in half precision.
    return hidden_BLD.masked_fill(mask_BL[..., None] == 0, 0)
