"""Fast arithmetic that is wrong is not used."""

import logging
import math

import pytest
import torch
from torch import Tensor

from talkingmachines import precision
from talkingmachines.avatar import load
from talkingmachines.dit import warp
from talkingmachines.patches import convolve_patches
from talkingmachines.streaming.trusted import LIMIT, rounding_error, trusted_dtype


def noise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As oneDNN's convolution of patches: wrong in bfloat16 alone."""
    made = convolve_patches(x, weight, bias)
    return made.flip(-2) if made.dtype == torch.bfloat16 else made


def nothing(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Wrong in bfloat16 alone, too."""
    made = convolve_patches(x, weight, bias)
    return made * math.nan if made.dtype == torch.bfloat16 else made


def test_bfloat16_is_right_on_this_processor() -> None:
    """Also without instructions for it."""
    avatar = load("pocket", device="cpu", dtype=torch.float32)
    assert rounding_error(avatar.student, avatar.vae, avatar.preset.chunk.frames, avatar.shape) < LIMIT / 4


def test_a_wrong_kernel_is_found_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(precision, "bf16_instructions", lambda: ["amx_bf16"])
    assert load("pocket", device="cpu").engine.dtype == torch.bfloat16
    monkeypatch.setattr(warp, "convolve_patches", noise)
    with caplog.at_level(logging.WARNING):
        assert load("pocket", device="cpu").engine.dtype == torch.float32
    [record] = caplog.records
    assert "bfloat16 is computed wrongly on this processor" in record.message
    assert load("pocket", device="cpu", dtype=torch.bfloat16).engine.dtype == torch.bfloat16, "as asked for"


def test_a_kernel_that_makes_no_numbers_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    avatar = load("pocket", device="cpu", dtype=torch.float32)
    monkeypatch.setattr(warp, "convolve_patches", nothing)
    assert rounding_error(avatar.student, avatar.vae, avatar.preset.chunk.frames, avatar.shape) == math.inf


def test_nothing_is_tried_without_fast_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    avatar = load("pocket", device="cpu", dtype=torch.float32)
    monkeypatch.setattr(precision, "bf16_instructions", list)
    monkeypatch.setattr("talkingmachines.streaming.trusted.rounding_error", None)
    assert trusted_dtype(avatar.student, avatar.vae, 3, avatar.shape) == torch.float32
