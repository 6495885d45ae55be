"""A small Wan2.1, and its weights in the files in which others would publish it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from talkingmachines.checkpoints.convert import convert
from talkingmachines.checkpoints.plan import make_plan
from talkingmachines.dit.config import AudioConfig, DiTConfig, ImageConfig, TextConfig
from talkingmachines.dit.model import DiT
from talkingmachines.dit.weights import AUDIO_LAYERS, IMAGE_LAYERS, diffusers_name, is_part_of
from talkingmachines.presets import Preset
from talkingmachines.vae.wan_config import WanVAEConfig
from talkingmachines.weights import load_weights

AUDIO = AudioConfig(feature_dim=6, feature_layers=2, hidden=16, context_tokens=3, width=12)
DIT = DiTConfig(
    width=24,
    ffn_width=32,
    heads=2,
    layers=2,
    freq_dim=16,
    text=TextConfig(dim=10, length=5),
    image=ImageConfig(dim=14, tokens=4),
    audio=AUDIO,
)
SMALL = Preset("small_wan", 32, DIT, WanVAEConfig(dim=8, dim_mult=(1, 1, 1, 1), num_res_blocks=1))


def random_weights(config: DiTConfig = DIT, seed: int = 0) -> dict[str, Tensor]:
    """Of all layers but audio_mode, which nobody else has."""
    generator = torch.Generator().manual_seed(seed)
    state = DiT(config).state_dict()
    return {
        name: torch.randn(tensor.shape, generator=generator) * 0.3
        for name, tensor in state.items()
        if name != "audio_mode.weight"
    }


def without(weights: Mapping[str, Tensor], *layers: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if not is_part_of(name, layers)}


def base_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return without(weights, *AUDIO_LAYERS)


def audio_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if is_part_of(name, AUDIO_LAYERS)}


def text_to_video_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the same model would have if it had no picture."""
    left = without(weights, *AUDIO_LAYERS, *IMAGE_LAYERS)
    return left | {"patch_embedding.weight": left["patch_embedding.weight"][:, : DIT.latent_channels].contiguous()}


def in_diffusers_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {diffusers_name(name): tensor for name, tensor in weights.items()}
    return named | {"blocks.0.attn2.norm_added_q.weight": torch.ones(DIT.width)}


def write_folder(folder: Path, weights: Mapping[str, Tensor], files: int = 1, index: bool = False) -> Path:
    """The weights in so many files, with an index or without."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(weights)
    weight_map = {}
    for number in range(files):
        file = f"diffusion_pytorch_model-{number + 1:05d}-of-{files:05d}.safetensors"
        part = names[number::files]
        save_file({name: weights[name].contiguous() for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    if index:
        whole = {"metadata": {}, "weight_map": weight_map}
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(whole))
    return folder


def write_file(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    save_file(dict(tensors), path)
    return path


def converted(out: Path, wan: Path, audio: Path | None = None, lora: Path | None = None, **options: bool) -> DiT:
    """Converted to `out`, and loaded from there."""
    convert(make_plan(wan, audio, lora, **options), "teacher", out)
    return loaded(out)


def loaded(folder: Path) -> DiT:
    model = DiT(DIT).eval()
    load_weights(folder, "teacher", model)
    return model


def stays_exact(name: str) -> bool:
    """Modulations, norms, and what codes time."""
    return "modulation" in name or name.startswith(("time_", "img_emb.proj.0", "img_emb.proj.4")) or ".norm" in name


def rounded(name: str, tensor: Tensor) -> Tensor:
    """What a converted tensor is in float32."""
    return tensor.float() if stays_exact(name) else tensor.bfloat16().float()


def assert_holds(model: DiT, weights: Mapping[str, Tensor], names: Iterable[str] = ()) -> None:
    """That the model has the weights, as far as its precision goes."""
    state = model.state_dict()
    for name in names or weights:
        assert torch.equal(state[name], rounded(name, weights[name])), name


def model_of(weights: Mapping[str, Tensor], **changes: object) -> DiT:
    """A model with exactly these weights, for configurations that have no other."""
    model = DiT(replace(DIT, **changes)).eval()
    model.load_state_dict({name: rounded(name, tensor) for name, tensor in weights.items()})
    return model
