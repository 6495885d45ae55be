"""Weights that cannot be converted: what is wrong is said in one line, before anything is written."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoint_models import (
    SMALL,
    audio_of,
    base_of,
    random_weights,
    text_to_video_of,
    without,
    write_file,
    write_folder,
)
from torch import Tensor

from talkingmachines.checkpoints.convert import convert
from talkingmachines.checkpoints.plan import make_plan
from talkingmachines.dit.weights import IMAGE_LAYERS
from talkingmachines.errors import CheckpointError
from talkingmachines.vae.wan import WanVAE

Weights = dict[str, Tensor]


def changed(name: str, tensor: Tensor | None) -> Callable[[Weights], Weights]:
    def change(weights: Weights) -> Weights:
        left = {key: value for key, value in weights.items() if key != name}
        return left if tensor is None else left | {name: tensor}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("blocks.1.self_attn.norm_q.weight", None), "blocks.1.self_attn.norm_q.weight is missing"),
        (lambda w: without(w, "ffn.2"), r"blocks.0.ffn.2.bias and 3 more are missing"),
        (
            lambda w: without(w, *IMAGE_LAYERS),
            "missing; get all files of Wan2.1's image-to-video model, and of no other",
        ),
        (changed("audio_proj.proj1.weight", None), "audio_proj.proj1.weight is missing"),
        (changed("blocks.0.self_attn.memory_proj_k.weight", torch.zeros(2)), "memory_proj_k.weight is not part"),
        (changed("blocks.1.norm3.weight", torch.zeros(8)), r"blocks.1.norm3.weight is \[8\] and must be \[24\]"),
        (changed("text_embedding.0.weight", torch.zeros(24, 11)), r"is \[24, 11\] and must be \[24, 10\]"),
        (changed("patch_embedding.weight", torch.zeros(24, 20, 1, 2, 2)), r"must be \[24, 36, 1, 2, 2\]"),
        (changed("blocks.2.norm3.weight", torch.zeros(24)), "width 24, feed-forward width 32 and 3 layers"),
        (changed("patch_embedding.weight", None), "no weights of a Wan transformer: patch_embedding.weight"),
        (lambda w: {"encoder.weight": torch.zeros(1)}, "no weights of a Wan transformer"),
        (changed("blocks.0.attn1.to_q.weight", torch.zeros(24, 24)), "are the same tensor"),
        (changed("head.head.bias", torch.zeros(64, dtype=torch.int8)), "head.head.bias is I8; get weights in F32"),
        (changed("head.head.bias", torch.zeros(64, dtype=torch.float8_e4m3fn)), "F8_E4M3; get weights in F32"),
        (text_to_video_of, "text-to-video weights .16 input channels., .* --from-text"),
    ],
)
def test_of_another_model(tmp_path: Path, change: Callable[[Weights], Weights], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        make_plan(write_folder(tmp_path / "wan", change(random_weights()), 2))


def test_from_text_is_for_text_to_video_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="leave out --from-text"):
        make_plan(write_folder(tmp_path / "wan", random_weights()), from_text=True)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (base_of(random_weights()), "audio_proj.norm.bias and 25 more are missing; .* MultiTalk or InfiniteTalk"),
        (random_weights(), "not part of this model"),
        ({name: tensor[..., :1] for name, tensor in audio_of(random_weights()).items()}, "must be"),
    ],
)
def test_audio_layers_of_another_model(tmp_path: Path, weights: Weights, message: str) -> None:
    audio = write_file(tmp_path / "audio.safetensors", {name: tensor.contiguous() for name, tensor in weights.items()})
    with pytest.raises(CheckpointError, match=message):
        make_plan(write_folder(tmp_path / "wan", base_of(random_weights())), audio)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * 99, lambda b: b[9:]])
@pytest.mark.parametrize("index", [False, True])
def test_damaged(tmp_path: Path, damage: Callable[[bytes], bytes], index: bool) -> None:
    wan = write_folder(tmp_path / "wan", random_weights(), 2, index)
    file = sorted(wan.glob("*.safetensors"))[1]
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match=r"00002-of-00002.safetensors is damaged, cut short"):
        make_plan(wan)


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder"):
        make_plan(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no .safetensors files"):
        make_plan(tmp_path)
    wan = write_folder(tmp_path / "wan", random_weights(), 3, index=True)
    sorted(wan.glob("*.safetensors"))[2].unlink()
    with pytest.raises(CheckpointError, match=r"00003-of-00003.safetensors is missing, which .*index.json names"):
        make_plan(wan)
    (wan / "diffusion_pytorch_model.safetensors.index.json").write_text("[]")
    with pytest.raises(CheckpointError, match="not an index"):
        make_plan(wan)


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    wan = write_folder(tmp_path / "wan", random_weights(), 2)
    write_file(wan / "more.safetensors", {"head.head.bias": torch.zeros(64)})
    with pytest.raises(CheckpointError, match=r"head.head.bias is both in"):
        make_plan(wan)


@pytest.mark.parametrize("ending", [".pth", ".bin", ".pt", ".ckpt"])
def test_pickles_are_not_opened(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"model{ending}"
    file.write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    for path in (tmp_path, file):
        with pytest.raises(CheckpointError, match=f"loading a {ending} file runs code.*convert it to safetensors"):
            make_plan(path)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    weights = random_weights()
    weights["blocks.1.ffn.0.weight"][3, 4] = torch.nan
    plan = make_plan(write_folder(tmp_path / "wan", weights))
    with pytest.raises(CheckpointError, match=r"blocks.1.ffn.0.weight in .*has values that are not finite"):
        convert(plan, "teacher", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_lora_is_named_too(tmp_path: Path) -> None:
    low = {
        "blocks.0.ffn.2.lora_A.weight": torch.full((1, 32), torch.nan),
        "blocks.0.ffn.2.lora_B.weight": torch.ones(24, 1),
    }
    plan = make_plan(
        write_folder(tmp_path / "wan", random_weights()), lora=write_file(tmp_path / "lora.safetensors", low)
    )
    with pytest.raises(CheckpointError, match=r"blocks.0.ffn.2.weight in .* with .*lora.safetensors has values"):
        convert(plan, "teacher", tmp_path / "out")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda vae: vae.write_bytes(vae.read_bytes()[:-9]), "Wan2.1_VAE.safetensors is damaged"),
        (lambda vae: write_file(vae, {"a": torch.zeros(1)}), "Wan2.1_VAE.safetensors: .* of another model"),
    ],
)
def test_an_autoencoder_that_is_none_leaves_nothing_and_can_be_mended(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    wan = write_folder(tmp_path / "wan", random_weights(), index=True)
    whole = WanVAE(SMALL.vae).state_dict()
    vae = write_file(wan / "Wan2.1_VAE.safetensors", whole)
    damage(vae)
    with pytest.raises(CheckpointError, match=message):
        convert(make_plan(wan), "teacher", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["wan"]
    write_file(vae, whole)
    convert(make_plan(wan), "teacher", tmp_path / "out")


def test_a_full_disk_is_said_before_there_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(write_folder(tmp_path / "wan", random_weights()))
    free = SimpleNamespace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
    with pytest.raises(CheckpointError, match=r"0\.0 GB are needed and 0\.0 GB free: make room"):
        convert(plan, "teacher", tmp_path / "deep" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["wan"]
