"""What a CUDA graph cannot record, seen without a GPU: on the meta device, numbers that come from the processor."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows no meta device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)


class Recordable:
    """In here, whatever is computed is on the meta device and of nothing else."""

    def __enter__(self) -> None:
        self._modes = _MadeThere(), _OnlyThere()
        for mode in self._modes:
            mode.__enter__()

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


_COPIES = torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, Tensor.new_tensor


class _MadeThere(TorchFunctionMode):
    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in _COPIES, f"{func.__name__} copies to the device"
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            assert not any(isinstance(part, list) for part in tree_leaves(args[1], lambda part: isinstance(part, list)))
        return func(*args, **(kwargs or {}))


class _OnlyThere(TorchDispatchMode):
    def __torch_dispatch__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, made)):
            # A single number goes along with the kernel.
            assert not (isinstance(tensor, Tensor) and tensor.device.type != "meta" and tensor.dim()), func
        return made
