"""Embeddings of prompts and pictures: each made once, by a model that is there only while it works."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from talkingmachines.encoders.loading import for_a_moment, from_pretrained
from talkingmachines.encoders.picture import embed_picture
from talkingmachines.encoders.text import TOKENS, clean_prompt, embed_prompts

PARTS = "text_encoder", "tokenizer", "image_encoder"
"""The subfolders of a source."""

_KEPT = 64
"""Embeddings of each kind that are remembered: a quarter of a gigabyte of prompts."""


class _Recent:
    """The last few tensors, by a digest of what they were made from."""

    def __init__(self) -> None:
        self._tensors: OrderedDict[str, Tensor] = OrderedDict()

    def get(self, key: str) -> Tensor | None:
        if key in self._tensors:
            self._tensors.move_to_end(key)
        return self._tensors.get(key)

    def put(self, key: str, tensor: Tensor) -> None:
        self._tensors[key] = tensor
        while len(self._tensors) > _KEPT:
            self._tensors.popitem(last=False)


class Embeddings:
    """The prompt and picture tokens of a DiT (TextConfig, ImageConfig).

    source: a folder, or a name on the hub, with the subfolders of a diffusers checkpoint: `text_encoder`,
    `tokenizer`, `image_encoder`; such as Wan-AI/Wan2.1-I2V-14B-480P-Diffusers. A model is loaded to `device` for
    what is new, and freed before the call returns; results are kept on the processor, keyed by content. Safe to use
    from several threads, which take turns.
    """

    def __init__(
        self,
        source: str | Path,
        device: torch.device,
        text_dtype: torch.dtype = torch.bfloat16,
        tokens: int = TOKENS,
    ) -> None:
        self._source, self._device, self._text_dtype, self._tokens = source, device, text_dtype, tokens
        self._texts, self._pictures = _Recent(), _Recent()
        self._lock = Lock()

    def prompts(self, prompts: Sequence[str]) -> Tensor:
        """[B, 512, 4096], zero after each prompt's end. Raises MissingPackageError, CheckpointError."""
        keys = [clean_prompt(prompt) for prompt in prompts]
        with self._lock:
            found = {key: tensor for key in keys if (tensor := self._texts.get(key)) is not None}
            if missing := [key for key in dict.fromkeys(keys) if key not in found]:
                for key, tensor in zip(missing, self._embed_prompts(missing), strict=True):
                    # A copy: a row would keep the whole batch alive.
                    found[key] = tensor.clone()
                    self._texts.put(key, found[key])
        return torch.stack([found[key] for key in keys])

    def _embed_prompts(self, prompts: list[str]) -> Tensor:
        tokenizer = from_pretrained("AutoTokenizer", self._source, "tokenizer")
        with for_a_moment("UMT5EncoderModel", self._source, "text_encoder", self._device, self._text_dtype) as model:
            return embed_prompts(model, tokenizer, prompts, self._tokens).cpu()

    def picture(self, picture: np.ndarray) -> Tensor:
        """[1, 257, 1280] of [H, W, 3] uint8. Raises MissingPackageError, CheckpointError."""
        pixels = np.ascontiguousarray(picture)
        key = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        with self._lock:
            tensor = self._pictures.get(key)
            if tensor is None:
                with for_a_moment(
                    "CLIPVisionModel", self._source, "image_encoder", self._device, torch.float32
                ) as model:
                    tensor = embed_picture(model, pixels).cpu()
                self._pictures.put(key, tensor)
        return tensor
