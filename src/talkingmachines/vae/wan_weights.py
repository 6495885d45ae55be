"""Wan2.1's autoencoder from its checkpoint, or from the one that diffusers made of it: names there and back."""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from talkingmachines.errors import CheckpointError
from talkingmachines.vae.wan import WanVAE
from talkingmachines.vae.wan_config import WanVAEConfig

_WHOLE = {
    "conv1": "quant_conv",
    "conv2": "post_quant_conv",
    "encoder.conv1": "encoder.conv_in",
    "decoder.conv1": "decoder.conv_in",
    "encoder.head.0": "encoder.norm_out",
    "encoder.head.2": "encoder.conv_out",
    "decoder.head.0": "decoder.norm_out",
    "decoder.head.2": "decoder.conv_out",
}
_INSIDE = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}


def diffusers_name(name: str, config: WanVAEConfig) -> str:
    """What diffusers' AutoencoderKLWan calls the parameter that Wan2.1's checkpoint calls `name`."""
    module, leaf = name.rsplit(".", 1)
    if module in _WHOLE:
        return f"{_WHOLE[module]}.{leaf}"
    match = re.fullmatch(r"(encoder|decoder)\.(downsamples|middle|upsamples)\.(\d+)\.(.+)", module)
    if match is None:
        raise CheckpointError(f"{name} is no parameter of Wan2.1's autoencoder")
    half, row, index, inside = match.groups()
    if row == "middle":
        place = f"mid_block.{_MIDDLE[index]}"
    elif row == "downsamples":
        place = f"down_blocks.{index}"
    else:
        # diffusers nests what Wan counts through: the residual layers of a size, then its upsampling.
        level, layer = divmod(int(index), config.num_res_blocks + 2)
        last = layer == config.num_res_blocks + 1
        place = f"up_blocks.{level}.{'upsamplers.0' if last else f'resnets.{layer}'}"
    return f"{half}.{place}.{_INSIDE.get(inside, inside)}.{leaf}"


def diffusers_names(config: WanVAEConfig) -> dict[str, str]:
    """Every parameter's native name -> its name in diffusers."""
    with torch.device("meta"):
        return {name: diffusers_name(name, config) for name in WanVAE(config).state_dict()}


def to_native(tensors: Mapping[str, Tensor], config: WanVAEConfig) -> dict[str, Tensor]:
    """Tensors under either naming -> under Wan2.1's own names.

    Raises CheckpointError if one is missing or there is one too many, naming it.
    """
    names = diffusers_names(config)
    theirs = {theirs: ours for ours, theirs in names.items()}
    renamed = {theirs.get(name, name): tensor for name, tensor in tensors.items()}
    if missing := names.keys() - renamed.keys():
        raise CheckpointError(
            f"Wan2.1's autoencoder wants {min(missing)}, which is not there ({len(missing)} missing): the weights are "
            "of another model"
        )
    if extra := renamed.keys() - names.keys():
        raise CheckpointError(f"Wan2.1's autoencoder has no {min(extra)}: the weights are of another model")
    return renamed


def to_diffusers(tensors: Mapping[str, Tensor], config: WanVAEConfig) -> dict[str, Tensor]:
    """The inverse of `to_native`, for tensors under Wan2.1's own names."""
    names = diffusers_names(config)
    return {names[name]: tensor for name, tensor in to_native(tensors, config).items()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Those in a file of PyTorch or safetensors, on the processor. Raises CheckpointError if missing or damaged."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; name a file of weights") from error
    except (SafetensorError, OSError, RuntimeError, UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{path} is damaged or not a file of weights; get it again") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{path} holds something else than weights by name; get it again")
    return tensors


def read_wan_vae(path: Path, config: WanVAEConfig | None = None) -> WanVAE:
    """The autoencoder in a file: Wan2.1_VAE.pth, or safetensors with native or diffusers names. On the processor.

    Raises CheckpointError if the file is missing, damaged, or of another model.
    """
    vae = WanVAE(config or WanVAEConfig())
    stored, wanted = read_tensors(path), vae.state_dict()
    try:
        tensors = to_native(stored, vae.config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(f"{path} has {name} {list(tensor.shape)}, wanted {list(wanted[name].shape)}")
    vae.load_state_dict(tensors)
    return vae
