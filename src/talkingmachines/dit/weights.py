"""What the DiT's weights are called elsewhere, and what a layer begins as that no weights are given for.

Our names are Wan2.1's own, with those of the MultiTalk family for the audio layers. diffusers has others for the same
tensors; shapes and values are the same.
"""

import re
import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from talkingmachines.dit.config import DiTConfig
from talkingmachines.dit.model import SILENT, DiT

_TOP = {
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
_IMAGE = {"k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k"}
_BLOCK = {
    **{f"self_attn.{ours}": f"attn1.{theirs}" for ours, theirs in _ATTENTION.items()},
    **{f"cross_attn.{ours}": f"attn2.{theirs}" for ours, theirs in (_ATTENTION | _IMAGE).items()},
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "modulation": "scale_shift_table",
}
_FROM_TOP = {theirs: ours for ours, theirs in _TOP.items()}
_FROM_BLOCK = {theirs: ours for ours, theirs in _BLOCK.items()}

_PARTS = re.compile(r"(blocks\.\d+\.)?(.+?)(\.weight|\.bias)?")
_PREFIX = re.compile(r"(base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|transformer\.)*")

IMAGE_LAYERS = ("img_emb.", "cross_attn.k_img.", "cross_attn.v_img.", "cross_attn.norm_k_img.")
_FLOAT32 = re.compile(r"time_.*|.*\bmodulation|.*\bnorm.*|img_emb\.proj\.[04]\..*")

AUDIO_LAYERS = ("audio_proj.", "audio_mode.", "audio_cross_attn.", "norm_x.")


def _renamed(name: str, top: Mapping[str, str], block: Mapping[str, str]) -> str:
    match = _PARTS.fullmatch(name)
    assert match, name
    place, module, end = match.group(1) or "", match.group(2), match.group(3) or ""
    return place + (block if place else top).get(module, module) + end


def native_name(name: str) -> str:
    """Our name of a tensor or module that is called `name` in files of Wan, diffusers or the MultiTalk family.

    Names that are ours already, and names of things we do not have, stay as they are.
    """
    prefix = _PREFIX.match(name)
    return _renamed(name[prefix.end() :] if prefix else name, _FROM_TOP, _FROM_BLOCK)


def diffusers_name(name: str) -> str:
    """diffusers' name of a tensor of ours; the audio layers have none and keep ours."""
    return _renamed(name, _TOP, _BLOCK)


def is_part_of(name: str, layers: Sequence[str]) -> bool:
    """Whether the tensor belongs to one of `layers`: IMAGE_LAYERS or AUDIO_LAYERS."""
    inside = re.sub(r"^blocks\.\d+\.", "", name)
    return inside.startswith(tuple(layers))


def keeps_float32(name: str) -> bool:
    """Whether a tensor of ours stays float32 in a model of lower precision: modulations, norms, and what codes time."""
    return _FLOAT32.fullmatch(name) is not None


def unfilled(config: DiTConfig, dtype: torch.dtype, device: torch.device) -> DiT:
    """A model for weights.load_weights to fill, in `dtype` but for what keeps float32; to be run under autocast.

    Random values would take the 14 B minutes, and float32 twice the memory.
    """
    with torch.device("meta"):
        model = DiT(config)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if keeps_float32(name) else dtype)
    return model.to_empty(device=device).eval().requires_grad_(False)


def fresh(name: str, shape: Sequence[int]) -> Tensor:
    """What the tensor called `name` begins as, float32, in audio or image layers that change nothing until trained.

    The same each time, so that work which was stopped can go on.
    """
    tensor = torch.zeros(*shape)
    if name.endswith((*SILENT, "cross_attn.v_img.weight")) or name.endswith("bias"):
        return tensor
    if len(shape) == 1:
        return tensor.fill_(1)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return nn.init.xavier_uniform_(tensor, generator=generator)
