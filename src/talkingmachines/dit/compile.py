"""A causal DiT made faster and no different: its layers fused by torch.compile, its passes recorded as CUDA graphs.

What is compiled is the half of a layer before self-attention, the half after it, and the turning of the keys: tensors
in, tensors out. All layers have the same shapes, so each is compiled once, not once a layer. Norms, modulation and
rotary positions become a few kernels instead of dozens. Attention itself and the cache stay outside: kernels are
chosen elsewhere, and the cache is written in place.
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from talkingmachines.attention.kv_cache import KVCache
from talkingmachines.dit.causal import turned
from talkingmachines.dit.conditioning import Conditioning, PreparedConditioning
from talkingmachines.dit.few_steps import FewStepDiT


def compile_model(model: FewStepDiT, backend: str | Callable = "inductor") -> None:
    """In place, for static shapes. The first passes of every new shape take a minute or more; later ones are faster.

    Shapes are those of chunk 0, of chunk 1 and of all others, for every number of calls in one pass.
    """
    for block in model.model.blocks:
        for half in ("before", "after"):
            setattr(block, half, torch.compile(getattr(block, half), dynamic=False, backend=backend))
    model.model.head.compile(dynamic=False, backend=backend)
    model.turn = torch.compile(turned, dynamic=False, backend=backend)


Run = Callable[[], Tensor]
Record = Callable[[Run], Run]
"""Makes of a function one that does the same again, on the same memory, and returns its result in the same place."""


_RECORDING = threading.Lock()
"""CUDA records in one thread of a process at a time."""


_TAKEN: set[tuple[torch.device, int]] = set()
"""Streams of CudaGraphs that are there."""


class CudaGraphs:
    """Records functions as CUDA graphs of a device. What is between shares memory: one runs after the other."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        # Not torch's own, which is on whatever device was the current one at its first use, and the same for all: when
        # a graph goes, what others of its stream work in goes too. torch hands out few streams, again and again.
        self._stream = torch.cuda.Stream(device)
        with _RECORDING:
            while (number := (device, self._stream.cuda_stream)) in _TAKEN:
                self._stream = torch.cuda.Stream(device)
            _TAKEN.add(number)
        weakref.finalize(self, _TAKEN.discard, number)

    def __call__(self, run: Run) -> Run:
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads go on decoding while this one records.
        with (
            _RECORDING,
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            made = run()

        def replay() -> Tensor:
            graph.replay()
            return made

        return replay


@dataclass(frozen=True)
class _Recorded:
    """One step's pass. x, cond.of_chunk(): where the input of a replay goes; the rest of cond is the call's own."""

    x: Tensor
    cond: PreparedConditioning
    run: Run


class RecordedDiT:
    """A FewStepDiT for one call: once the window is full, its passes are recorded and from then on replayed.

    Implements flow.chunk.ChunkModel. From then on only x and what is of the chunk change, and where the cache lies is
    always the same. A replay is given the same cache and else the same conditioning, or an assertion fails. What it
    returns is overwritten by the next replay of the step.
    """

    def __init__(self, model: FewStepDiT, record: Record) -> None:
        self._model, self._record = model, record
        self._warm: set[int] = set()
        self._recorded: dict[int, _Recorded] = {}

    def __call__(
        self, x: Tensor, step: int, cond: Conditioning | PreparedConditioning, caches: Sequence[KVCache]
    ) -> Tensor:
        """See FewStepDiT."""
        assert isinstance(cond, PreparedConditioning) and len(caches) == 1, "one call, and what was prepared for it"
        if caches[0].phase < self._model.window - 1 or step not in self._warm:
            # What a graph needs, kernels loaded and workspaces made, is there after a plain pass of the same shape.
            if caches[0].phase == self._model.window - 1:
                self._warm.add(step)
            return self._model(x, step, cond, caches)
        if step not in self._recorded:
            self._recorded[step] = self._record_pass(x, step, cond, caches)
        kept = self._recorded[step]
        assert cond.latents.data_ptr() == kept.cond.latents.data_ptr(), "recorded for another call"
        kept.x.copy_(x)
        for place, fresh in zip(kept.cond.of_chunk(), cond.of_chunk(), strict=True):
            place.copy_(fresh)
        return kept.run()

    def _record_pass(self, x: Tensor, step: int, cond: PreparedConditioning, caches: Sequence[KVCache]) -> _Recorded:
        own_x, own = _place_for(x), cond.with_chunk(_place_for)
        return _Recorded(own_x, own, self._record(lambda: self._model(own_x, step, own, caches)))


def _place_for(tensor: Tensor) -> Tensor:
    """Memory for tensors like this one, strides included: others would be compiled anew, in the midst of recording."""
    place = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return place.copy_(tensor)
