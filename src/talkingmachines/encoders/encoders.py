"""All that a large model's calls need beside the model: tokens of the prompt and of the picture, and hearing.

L text tokens of width D, I picture tokens of width E.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from talkingmachines.encoders.embeddings import PARTS, Embeddings
from talkingmachines.encoders.loading import transformers_class
from talkingmachines.encoders.speech import SpeechEncoder, load_speech_encoder
from talkingmachines.errors import CheckpointError

PROMPT = "a person looks into the camera and talks"

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""What a name on the hub looks like. A folder may look so too; then it is taken if it is there."""


class Tokens(Protocol):
    """What Embeddings does: prompts to [B, L, D], a picture [H, W, 3] uint8 to [1, I, E]."""

    def prompts(self, prompts: Sequence[str], /) -> Tensor: ...

    def picture(self, picture: np.ndarray, /) -> Tensor: ...


@dataclass(frozen=True)
class Encoders:
    """tokens: makes those of `prompt`, which is said to every call, and of its picture. speech: hears for all calls."""

    tokens: Tokens
    speech: SpeechEncoder
    prompt: str = PROMPT

    def tell(self, picture: np.ndarray) -> tuple[Tensor, Tensor]:
        """Text [1, L, D] and picture tokens [1, I, E] of a call; made once for each prompt and picture."""
        return self.tokens.prompts([self.prompt]), self.tokens.picture(picture)


def load_encoders(
    source: str | Path, speech: str | Path, device: torch.device, text_tokens: int, prompt: str = PROMPT
) -> Encoders:
    """Encoders from folders, or by their names on the hub; see Embeddings and load_speech_encoder.

    The prompt is embedded here: before the large model takes the memory, and what is missing is said at once.
    Raises MissingPackageError, CheckpointError.
    """
    transformers_class("CLIPVisionModel")
    for place, what, option in ((source, "of text and pictures", "encoders"), (speech, "of speech", "speech_encoder")):
        if not Path(place).is_dir() and (isinstance(place, Path) or not _HUB_NAME.fullmatch(place)):
            raise CheckpointError(
                f"{place} does not exist: put the encoders {what} there, or name them with {option}= "
                f"(--{option.replace('_', '-')}), a folder or a name on the hub"
            )
    for part in PARTS:
        if Path(source).is_dir() and not (Path(source) / part).is_dir():
            raise CheckpointError(f"{source} has no {part}: it takes {', '.join(PARTS)}; get the rest")
    hearing = load_speech_encoder(speech, device)
    embeddings = Embeddings(source, device, torch.bfloat16 if device.type == "cuda" else torch.float32, text_tokens)
    embeddings.prompts([prompt])
    return Encoders(embeddings, hearing, prompt)
