"""Which device, and where bfloat16 is faster than float32 on it."""

import torch

from talkingmachines.errors import ConfigError

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def bf16_instructions() -> list[str]:
    """Those of the processor's instruction sets that multiply bfloat16."""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return [name for name in BF16_INSTRUCTIONS if has.get(name)]


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has instructions for it; without them it would only be slower."""
    return torch.bfloat16 if device.type != "cpu" or bf16_instructions() else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Linear layers in `dtype`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype != torch.float32)


def fast_autocast(device: torch.device) -> torch.autocast:
    return autocast(device, fast_dtype(device))


def choose_device(device: str) -> torch.device:
    """auto: the GPU if there is one. Raises ConfigError for a device that does not exist here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} is not available here; use 'auto' or 'cpu'") from error
    return chosen
