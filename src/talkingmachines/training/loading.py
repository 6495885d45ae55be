"""Batches from worker processes, each in one piece of memory.

A process that is handed a tensor of another's asks that process for its memory, and waits until it has finished what it
draws. So there is one tensor to ask for, and one to move to a GPU.
"""

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

_ALIGNED = 16
"""Bytes at whose multiples a tensor begins."""


@contextmanager
def load(
    batches: Dataset[dict[str, Tensor]], steps: Sequence[int], workers: int, device: torch.device
) -> Iterator[Iterator[dict[str, Tensor]]]:
    """batches[step] of each of `steps`, on `device`; workers: processes that make them ahead, 0 makes them here.

    The workers end with the context, for a program waits for them when it ends.
    """
    ahead = 4 if workers else None
    loader: DataLoader[_Packed] = DataLoader(
        batches,  # type: ignore[arg-type]  # of what collate_fn makes of them
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=ahead,
        collate_fn=_pack,  # type: ignore[arg-type]  # of one batch, as batch_size says
        worker_init_fn=_outlive_a_stop,
    )
    drawing = iter(loader)
    try:
        yield (packed.unpacked(device) for packed in drawing)
    finally:
        if workers:  # by hand: an error's traceback keeps the loader alive
            drawing._shutdown_workers()  # type: ignore[attr-defined]


def _outlive_a_stop(_: int) -> None:
    """A machine that goes down sends SIGTERM to all processes: the run takes its last step first, then ends these."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@dataclass(frozen=True)
class _Packed:
    """memory: uint8 [bytes]; places: name, dtype, shape and first byte of each tensor in it."""

    memory: Tensor
    places: tuple[tuple[str, torch.dtype, torch.Size, int], ...]

    def unpacked(self, device: torch.device) -> dict[str, Tensor]:
        # From pinned memory a GPU fetches a batch without anybody waiting.
        memory = self.memory.pin_memory() if device.type == "cuda" else self.memory
        memory = memory.to(device, non_blocking=True)
        return {name: _part(memory, dtype, shape, first) for name, dtype, shape, first in self.places}


def _pack(batch: dict[str, Tensor]) -> _Packed:
    places, size = [], 0
    for name, tensor in batch.items():
        places.append((name, tensor.dtype, tensor.shape, size))
        size += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
    packed = _Packed(torch.empty(size, dtype=torch.uint8), tuple(places))
    for name, dtype, shape, first in places:
        _part(packed.memory, dtype, shape, first).copy_(batch[name])
    return packed


def _part(memory: Tensor, dtype: torch.dtype, shape: torch.Size, first: int) -> Tensor:
    return memory[first : first + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
