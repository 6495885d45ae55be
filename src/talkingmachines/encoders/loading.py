"""Models of the transformers library, from a folder or from the hub, for as long as they are needed."""

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from talkingmachines.errors import CheckpointError, MissingPackageError


def transformers_class(name: str) -> Any:
    """A class of transformers. Raises MissingPackageError if the library is missing or too old."""
    try:
        return getattr(importlib.import_module("transformers"), name)
    except (ImportError, AttributeError) as error:
        raise MissingPackageError(
            "encoders of text, pictures and speech need transformers; install it with: pip install 'transformers>=5'"
        ) from error


def from_pretrained(class_name: str, source: str | Path, subfolder: str = "", **options: Any) -> Any:
    """What `source` holds: a folder on disk, or a name on the hub, which transformers downloads.

    Raises CheckpointError if there is nothing of the kind, or not all of it.
    """
    place = f"{source}/{subfolder}" if subfolder else str(source)
    try:
        return transformers_class(class_name).from_pretrained(str(source), subfolder=subfolder, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{place} holds no {class_name}, get it again: {reason}") from error


def model_from_pretrained(class_name: str, source: str | Path, subfolder: str, dtype: torch.dtype) -> Any:
    """A model of which all weights are there. Raises as from_pretrained."""
    model, loaded = from_pretrained(class_name, source, subfolder, dtype=dtype, output_loading_info=True)
    # transformers fills what is missing with random values and goes on. The mask is of training alone.
    missing = sorted(set(loaded["missing_keys"]) - {"masked_spec_embed"})
    if missing:
        place = f"{source}/{subfolder}" if subfolder else str(source)
        raise CheckpointError(
            f"{place} holds no {class_name}: it lacks {missing[0]}, one of {len(missing)}; get it again"
        )
    return model


@contextmanager
def for_a_moment(
    class_name: str, source: str | Path, subfolder: str, device: torch.device, dtype: torch.dtype
) -> Iterator[Any]:
    """A model for inference on `device`, whose memory is given back at the end: umT5 alone takes 11 GB."""
    model = model_from_pretrained(class_name, source, subfolder, dtype)
    try:
        yield model.to(device).eval().requires_grad_(False)
    finally:
        model.to("meta")  # the caller still has it
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()  # does nothing while a call records CUDA graphs; the next one makes up for it
