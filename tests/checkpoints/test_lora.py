"""Low-rank changes, in all their spellings."""

import json
from pathlib import Path

import pytest
import torch
from checkpoint_models import DIT, assert_holds, converted, random_weights, write_file, write_folder
from torch import Tensor

from talkingmachines.checkpoints.plan import make_plan
from talkingmachines.dit.weights import diffusers_name
from talkingmachines.errors import CheckpointError

RANK = 3
TARGETS = ["blocks.0.self_attn.q", "blocks.1.cross_attn.k_img", "blocks.1.ffn.2", "blocks.0.audio_cross_attn.kv_linear"]


def matrices(weights: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    made = {}
    for module in TARGETS:
        rows, columns = weights[module + ".weight"].shape
        made[module] = torch.randn(RANK, columns, generator=generator), torch.randn(rows, RANK, generator=generator)
    return made


def file_of(folder: Path, spelling: str, pairs: dict[str, tuple[Tensor, Tensor]], alpha: float | None) -> Path:
    folder.mkdir()
    tensors = {}
    for module, (down, up) in pairs.items():
        if spelling == "peft":
            tensors |= {f"base_model.model.{module}.lora_A.default.weight": down}
            tensors |= {f"base_model.model.{module}.lora_B.default.weight": up}
        elif spelling == "diffusers":
            name = diffusers_name(module)
            tensors |= {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
        else:
            flat = {"flat": "lora_unet_", "Wan-Fun": "lora_unet__"}
            dots = f"diffusion_model.{module}" if spelling == "dots" else flat[spelling] + module.replace(".", "_")
            tensors |= {f"{dots}.lora_down.weight": down, f"{dots}.lora_up.weight": up}
            if alpha is not None:
                tensors[f"{dots}.alpha"] = torch.tensor(alpha)
    if spelling == "peft" and alpha is not None:
        (folder / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": alpha}))
    return write_file(folder / "lora.safetensors", tensors)


@pytest.mark.parametrize(
    ("spelling", "alpha"),
    [("peft", 6), ("peft", None), ("diffusers", None), ("dots", 1.5), ("flat", 12.0), ("Wan-Fun", 12.0)],
)
def test_merged_in_float32(tmp_path: Path, spelling: str, alpha: float | None) -> None:
    weights = {name: tensor.bfloat16() for name, tensor in random_weights().items()}
    pairs = matrices(weights)
    lora = file_of(tmp_path / "lora", spelling, pairs, alpha)
    model = converted(tmp_path / "out", write_folder(tmp_path / "wan", weights), lora=lora)
    scale = 1.0 if alpha is None else alpha / RANK
    expected = dict(weights)
    for module, (down, up) in pairs.items():
        expected[module + ".weight"] = weights[module + ".weight"].double() + scale * (up.double() @ down.double())
    assert_holds(model, expected, set(weights) - {module + ".weight" for module in TARGETS})
    for module in TARGETS:
        name = module + ".weight"
        assert (expected[name] - weights[name]).abs().mean() > 0.1
        # bfloat16 keeps 8 bits; merging in float32 loses no more than that one rounding.
        torch.testing.assert_close(model.state_dict()[name], expected[name].float(), atol=1e-5, rtol=2**-8)


def test_differences_of_what_is_too_small_for_matrices(tmp_path: Path) -> None:
    weights, pairs = random_weights(), q_pair()
    changed = {
        "diff": "blocks.0.self_attn.norm_q.weight",
        "diff_b": "blocks.1.ffn.0.bias",
        "diff_m": "blocks.1.modulation",
        "modulation.diff": "blocks.0.modulation",
    }
    differences = {name: torch.randn_like(weights[name]) for name in changed.values()}
    tensors = {f"diffusion_model.{name.rpartition('.')[0]}.{kind}": differences[name] for kind, name in changed.items()}
    tensors["lora_unet_head_head.diff_b"] = torch.ones_like(weights["head.head.bias"])
    lora = write_file(tmp_path / "lora.safetensors", tensors | pairs)
    model = converted(tmp_path / "out", write_folder(tmp_path / "wan", weights), lora=lora)
    expected = weights | {name: weights[name] + differences[name] for name in differences}
    expected["head.head.bias"] = weights["head.head.bias"] + 1
    for name in (*differences, "head.head.bias", "blocks.0.self_attn.q.weight"):
        torch.testing.assert_close(model.state_dict()[name], expected[name].float(), atol=1e-5, rtol=2**-8)


def test_scale_by_the_root_of_the_rank(tmp_path: Path) -> None:
    weights = random_weights()
    lora = file_of(tmp_path / "lora", "peft", matrices(weights), 6)
    lora.with_name("adapter_config.json").write_text(json.dumps({"lora_alpha": 6, "use_rslora": True}))
    plan = make_plan(write_folder(tmp_path / "wan", weights), lora=lora)
    scales = {part.change.scale for part in plan.parts if part.change}
    assert scales == {6 / RANK**0.5}


def q_pair(rows: int = DIT.width, columns: int = DIT.width, name: str = "blocks.0.self_attn.q") -> dict[str, Tensor]:
    return {f"{name}.lora_A.weight": torch.zeros(RANK, columns), f"{name}.lora_B.weight": torch.zeros(rows, RANK)}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (q_pair(columns=32), r"LoRA for another model: blocks.0.self_attn.q.weight is \[24, 24\]"),
        (q_pair(rows=5120), r"for another model: .*\[5120, 3\]"),
        (q_pair(name="blocks.7.self_attn.q"), "no blocks.7.self_attn.q.weight"),
        (q_pair(name="double_blocks.0.img_attn"), "no double_blocks.0.img_attn.weight"),
        (dict(list(q_pair().items())[:1]), "has but one of its two matrices"),
        ({"blocks.0.self_attn.q.diff_b": torch.zeros(25)}, r"q.bias is \[24\], but \[25\] here"),
        ({"blocks.0.diff_b": torch.zeros(24)}, "no blocks.0.bias"),
        ({"blocks.0.self_attn.q.set_weight": torch.zeros(24)}, "set_weight is not part of a LoRA"),
        (q_pair() | {"blocks.0.self_attn.q.diff": torch.zeros(24, 24)}, "matrices and a whole difference"),
        (random_weights(), "is not part of a LoRA"),
        ({"blocks.0.self_attn.q.alpha": torch.zeros(())}, "there is no LoRA in it"),
        ({}, "there is no LoRA in it"),
    ],
)
def test_of_another_model(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    lora = write_file(tmp_path / "lora.safetensors", tensors)
    with pytest.raises(CheckpointError, match=message):
        make_plan(write_folder(tmp_path / "wan", random_weights()), lora=lora)


@pytest.mark.parametrize(
    ("config", "message"),
    [("{", "JSON"), ('{"alpha_pattern": {"q": 3}}', "alpha_pattern"), ('{"lora_alpha": "x"}', "'x', which is not")],
)
def test_settings_that_cannot_be_used(tmp_path: Path, config: str, message: str) -> None:
    lora = write_file(tmp_path / "lora.safetensors", q_pair())
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(CheckpointError, match=message):
        make_plan(write_folder(tmp_path / "wan", random_weights()), lora=lora)
