import logging
from typing import Any

import pytest
import torch
from torch import nn

from talkingmachines import precision
from talkingmachines.errors import ConfigError
from talkingmachines.precision import autocast, choose_device, fast_dtype, multiply_in, weights_dtype


def test_choose_device() -> None:
    assert choose_device("cpu").type == "cpu" and choose_device("auto").type in ("cpu", "cuda")
    for nothing in ("quantum", "meta"):
        with pytest.raises(ConfigError, match="device"):
            choose_device(nothing)


def test_a_gpu_without_kernels_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It is there, memory can be had, and the first thing that it is to compute fails."""
    ones = torch.ones

    def no_kernel(*size: int, device: Any = None) -> Any:
        if torch.device(device).type == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")
        return ones(*size, device=device)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(precision.torch, "ones", no_kernel)
    with caplog.at_level(logging.WARNING):
        assert choose_device("auto").type == "cpu"
    [record] = caplog.records
    assert "no kernel image" in record.message and "\n" not in record.message
    with pytest.raises(ConfigError, match="'cuda' is not available here; use 'auto' or 'cpu'"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_bfloat16_is_for_gpus_that_have_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    gpu = torch.device("cuda")
    assert fast_dtype(gpu) == weights_dtype(gpu, None) == dtype
    assert weights_dtype(gpu, torch.float32) == weights_dtype(torch.device("cpu"), torch.bfloat16) == torch.float32


def test_weights_kept_in_what_they_are_multiplied_in_change_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.LayerNorm(32), nn.Linear(32, 16), nn.Linear(16, 4))
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad(), autocast(torch.device("cpu"), torch.bfloat16):
        before = model(x)
        multiply_in(model, torch.bfloat16, model[4])
        assert torch.equal(model(x), before)
    dtypes = [parameter.dtype for parameter in model.parameters()]
    assert dtypes == [torch.bfloat16] * 2 + [torch.float32] * 2 + [torch.bfloat16] * 2 + [torch.float32] * 2
