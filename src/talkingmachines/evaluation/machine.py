"""What figures of speed were measured on, and the memory of this process."""

import os
import platform
import resource
import sys
from collections.abc import Collection
from pathlib import Path

import torch

_MB = 1e6


def machine(device: torch.device) -> dict[str, object]:
    """Processor, cores that this process may use, torch, its threads, and the GPU where one is used."""
    found: dict[str, object] = {
        "cpu": cpu_model(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """As the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def memory_mb(devices: Collection[torch.device]) -> float:
    """In use now, in megabytes: of the devices on CUDA, of this process otherwise."""
    if on_cuda := [device for device in devices if device.type == "cuda"]:
        return sum(map(torch.cuda.memory_allocated, on_cuda)) / _MB
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return peak_memory_mb(devices)
    return int(pages.read_text().split()[1]) * resource.getpagesize() / _MB


def peak_memory_mb(devices: Collection[torch.device]) -> float:
    """The most that was in use since the process began, or since forget_peak_memory on CUDA, in megabytes."""
    if on_cuda := [device for device in devices if device.type == "cuda"]:
        return sum(map(torch.cuda.max_memory_allocated, on_cuda)) / _MB
    # In kilobytes, but on a Mac in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB


def forget_peak_memory(devices: Collection[torch.device]) -> None:
    """Loading may take more than running does. Only CUDA can forget."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
