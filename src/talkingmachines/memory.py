"""What memory a preset needs, and whether it is there: asked before anything is loaded. GB are 10^9 bytes."""

from pathlib import Path

import torch

from talkingmachines.dit.model import DiT
from talkingmachines.errors import ConfigError
from talkingmachines.precision import weights_dtype
from talkingmachines.presets import Preset

_CACHED = torch.bfloat16.itemsize
"""Bytes of a cached key or value at least."""


def memory_needed(spec: Preset, shape: tuple[int, int], fp8: bool, kept: torch.dtype = torch.bfloat16) -> int:
    """Bytes for the student in `kept` and one call's cache; or its layers in eight bits, which they become once they
    are all there.

    What passes and the autoencoder take while they work comes to it, and is not counted.
    """
    with torch.device("meta"):
        model = DiT(spec.dit)
    blocks = sum(parameter.numel() for parameter in model.blocks.parameters())
    total = sum(parameter.numel() for parameter in model.parameters()) * kept.itemsize
    rows, columns = (side // spec.vae.spatial_stride // spec.dit.patch[1] for side in shape)
    tokens = spec.chunk.frames * rows * columns
    cache = 2 * 2 * spec.chunk.steps * spec.dit.layers * tokens * spec.dit.width * _CACHED
    return max(total, total - (blocks * (kept.itemsize - 1) if fp8 else 0) + cache)


def check_memory(
    spec: Preset, device: torch.device, shape: tuple[int, int], fp8: bool, dtype: torch.dtype | None
) -> None:
    """Raises ConfigError where too little is free. dtype: what the models compute in, see Engine."""
    free, needed = free_memory(device), memory_needed(spec, shape, fp8, weights_dtype(device, dtype))
    if free is None or needed <= free:
        return
    eight = f"{memory_needed(spec, shape, fp8=True) / 1e9:.0f} GB"
    if device.type == "cpu":
        plain = f"{memory_needed(spec, shape, fp8=False) / 1e9:.0f} GB"
        where, lower = "memory without a GPU", f"give it a GPU, of which it needs {plain}, or {eight} with fp8"
    else:
        where, lower = "GPU memory", "take a larger one" if fp8 else f"fp8 needs {eight}, and a smaller size less"
    raise ConfigError(
        f"{spec.name} needs more than {needed / 1e9:.0f} GB of {where}, {free / 1e9:.0f} are free; {lower}"
    )


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be taken on a device now; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    told = Path("/proc/meminfo")
    if device.type != "cpu" or not told.exists():
        return None
    fields = dict(line.split(":") for line in told.read_text().splitlines())
    free = 1024 * int(fields["MemAvailable"].split()[0])
    # A container may be allowed less than the machine has.
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.exists() else "max"
    return free if allowed == "max" else min(free, int(allowed))
