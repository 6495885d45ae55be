"""Counted by hand against torch's own counter."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from talkingmachines.attention.attention import products
from talkingmachines.attention.masks import seen_chunks
from talkingmachines.audio.alignment import AudioWindows
from talkingmachines.dit.conditioning import Conditioning
from talkingmachines.dit.config import AudioConfig, DiTConfig, ImageConfig, RefinerConfig, TextConfig, WarpConfig
from talkingmachines.dit.few_steps import FewStepDiT
from talkingmachines.dit.model import DiT
from talkingmachines.dit.weights import unfilled
from talkingmachines.evaluation.flops import floor_seconds, measured_peak, parameters_of, pass_flops
from talkingmachines.evaluation.random_avatar import fill
from talkingmachines.presets import wan_14b

AUDIO = AudioConfig(feature_dim=6, feature_layers=2, hidden=16, context_tokens=3, width=12)
WAN = DiTConfig(48, 64, 2, 3, text=TextConfig(10, 5), image=ImageConfig(14, 4), audio=AUDIO)
POCKET = DiTConfig(
    48, 64, 2, 2, 8, patch=(1, 4, 4), audio=AUDIO, refiner=RefinerConfig(8, 2, 4), previous=True, prediction="x0"
)
WARPED = replace(POCKET, refiner=RefinerConfig(8, 2, 4, WarpConfig(2, 3)))
DEAF = DiTConfig(48, 64, 2, 1)


@pytest.mark.parametrize("config", [WAN, POCKET, WARPED, DEAF], ids=["wan", "pocket", "warped", "deaf"])
def test_a_pass_as_torch_counts_it(config: DiTConfig) -> None:
    """The third chunk of a call, which sees two others; with gradients, as the counter does not know the kernel that is
    used without."""
    f, H, W = 2, 8, 12
    model = DiT(config).eval()
    model.use_attention(products)
    student = FewStepDiT(model, torch.tensor([1.0]), 4, f, H, W)
    # Attention as two products, which the counter knows on every device.
    student.model.attention = products
    cache = student.empty_cache(1, torch.float32)
    latents = torch.zeros(1, config.latent_channels, f, H, W)
    windows = AudioWindows(torch.zeros(1, 0, 5, 2, 6), torch.zeros(1, f, 8, 2, 6)) if config.audio else None
    text = torch.zeros(1, 5, 10) if config.text else None
    image = torch.zeros(1, 4, 14) if config.image else None
    mask = torch.zeros(1, 4, f, H, W)
    cond = model.prepare(Conditioning(latents, mask, text, image, windows, previous=latents))
    for _ in range(2):
        student(latents, 0, cond, [cache])
        cache.advance()
    with FlopCounterMode(display=False) as counter:
        student(latents, 0, cond, [cache])
    assert pass_flops(config, student.tokens, 3 * student.tokens).total == counter.get_total_flops()


def test_the_paper_s_arithmetic() -> None:
    """111 TFLOP of linear layers and 23 of attention a pass; 35 frames a second at 790 TFLOP/s."""
    config = wan_14b().dit
    assert parameters_of(config) == 18_882_048_320
    tokens, keys = 3072, len(seen_chunks(2)) * 3072
    assert 2 * parameters_of(config) * tokens == pytest.approx(116e12, rel=0.01)
    assert 4 * config.layers * tokens * config.width * keys == pytest.approx(23e12, rel=0.01)
    seconds = floor_seconds(config, tokens, keys, 2, 790e12, 790e12)
    assert 12 / seconds == pytest.approx(34, abs=1)
    # Keys and values of the prompt, the picture and the sound are made elsewhere, so a pass is a little less.
    assert pass_flops(config, tokens, keys).linear < 2 * parameters_of(config) * tokens


def test_peak_is_of_this_machine() -> None:
    assert 1e8 < measured_peak(torch.device("cpu"), torch.float32, seconds=0.01) < 1e14


def test_weights_are_filled_where_they_are() -> None:
    model = unfilled(WAN, torch.bfloat16, torch.device("cpu"))
    fill(model)
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert dtypes["blocks.0.ffn.0.weight"] == torch.bfloat16 and dtypes["blocks.0.modulation"] == torch.float32
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert model.blocks[0].norm3.weight.eq(1).all() and model.blocks[0].ffn[0].bias.eq(0).all()
    assert 0.5 < model.blocks[0].ffn[0].weight.float().std() * 48**0.5 < 2
