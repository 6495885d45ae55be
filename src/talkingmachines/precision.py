"""Which device, and where bfloat16 is faster than float32 on it."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from talkingmachines.errors import ConfigError

log = logging.getLogger(__name__)

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def bf16_instructions() -> list[str]:
    """Those of the processor's instruction sets that multiply bfloat16."""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return [name for name in BF16_INSTRUCTIONS if has.get(name)]


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has instructions for it; without them it would only be slower."""
    if device.type == "cuda":
        has = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        has = device.type != "cpu" or bool(bf16_instructions())
    return torch.bfloat16 if has else torch.float32


def weights_dtype(device: torch.device, dtype: torch.dtype | None) -> torch.dtype:
    """What weights are kept in: on a GPU what it computes in; on processors float32, see multiply_in."""
    return torch.float32 if device.type == "cpu" else dtype or fast_dtype(device)


def multiply_in(model: nn.Module, dtype: torch.dtype, *plain: nn.Module) -> None:
    """Keeps the weights of linear layers and convolutions in what they are multiplied in, but for those in `plain`,
    parts of the model that are never autocast. What comes out is the same, but autocast would round weights that do not
    learn anew in every pass: an eighth of its time on a processor."""
    left = {module for part in plain for module in part.modules()}
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module not in left:
            module.to(dtype)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Linear layers in `dtype`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype != torch.float32)


def fast_autocast(device: torch.device) -> torch.autocast:
    return autocast(device, fast_dtype(device))


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """On a device, without waiting for what that has still to do."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def picked(tensor: Tensor, dim: int, places: Sequence[int]) -> Tensor:
    """Those at some places along a dimension, as indexing with a list gives them, which waits for a GPU."""
    return tensor.index_select(dim, sent(torch.tensor(list(places), dtype=torch.long), tensor.device))


def choose_device(device: str) -> torch.device:
    """auto: the GPU if there is one that works, with a warning in the log if it does not.

    Raises ConfigError for a device that does not exist here or does not work.
    """
    if device == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    try:
        chosen = torch.device("cuda" if device == "auto" else device)
        # A GPU that this torch has no kernels for is there all the same, until it has something to compute.
        (torch.ones(1, device=chosen) + 1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if device != "auto":
            raise ConfigError(f"device {device!r} is not available here; use 'auto' or 'cpu'") from error
        log.warning("the GPU does not work with this torch and is not used: %s", str(error).partition("\n")[0])
        return torch.device("cpu")
    return chosen
