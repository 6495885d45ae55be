"""Changes to weights, as PEFT and others store them: weight + scale * up @ down, or weight + difference."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from talkingmachines.checkpoints.files import Shape, Stored, stored_tensors
from talkingmachines.dit.weights import native_name
from talkingmachines.errors import CheckpointError

_KEY = re.compile(r"(.+)\.(?:(lora_A|lora_down)|(lora_B|lora_up))(?:\.default)?\.weight")
_WHOLE = re.compile(r"(.+?)\.(diff|diff_b|diff_m|modulation\.diff)")
"""Of what is too small for matrices of low rank: norms, biases, modulations. As ComfyUI and its kin store them."""

_CHANGED = {"diff": "weight", "diff_b": "bias", "diff_m": "modulation", "modulation.diff": "modulation"}
"""lightx2v's files have diff_m, which is renamed for ComfyUI."""

_FLAT = re.compile("^lora_unet_+")
"""Begins names in which every dot has become an underscore; Wan-Fun's and VideoX-Fun's have one underscore more."""


@dataclass(frozen=True)
class LowRank:
    """down: [rank, columns], up: [rows, rank]; trailing axes of convolutions are columns too."""

    down: Stored
    up: Stored
    scale: float

    @property
    def stored(self) -> tuple[Stored, ...]:
        return self.down, self.up

    def merged_into(self, weight: Tensor) -> Tensor:
        """weight + scale * up @ down, in float32."""
        down, up = self.down.read().float().flatten(1), self.up.read().float().flatten(1)
        return weight.float().flatten(1).addmm(up, down, alpha=self.scale).view(weight.shape)


@dataclass(frozen=True)
class Difference:
    """whole: of the shape of what it changes."""

    whole: Stored
    scale: float = 1.0

    @property
    def stored(self) -> tuple[Stored, ...]:
        return (self.whole,)

    def merged_into(self, weight: Tensor) -> Tensor:
        """In float32."""
        return weight.float() + self.whole.read().float()


Change = LowRank | Difference


def read_lora(path: Path, shapes: Mapping[str, Shape]) -> dict[str, Change]:
    """The changes by the name of the weight they belong to. shapes: of all weights of the model.

    Matrices are scaled by alpha / rank: alpha as stored beside them, or in adapter_config.json beside the file; without
    either by 1. Raises CheckpointError for a file that is damaged, not a LoRA, or made for another model.
    """
    stored = stored_tensors(path)
    flat = {"lora_unet_" + name.replace(".", "_"): name for name in shapes}
    downs: dict[str, Stored] = {}
    ups: dict[str, Stored] = {}
    alphas: dict[str, Stored] = {}
    changes: dict[str, Change] = {}
    for key, tensor in stored.items():
        if key.endswith(".alpha"):
            alphas[_target(key.removesuffix(".alpha"), flat)] = tensor
        elif match := _KEY.fullmatch(key):
            (downs if match.group(2) else ups)[_target(match.group(1), flat)] = tensor
        elif match := _WHOLE.fullmatch(key):
            name = _target(match.group(1), flat, _CHANGED[match.group(2)])
            _check_whole(path, name, tensor.shape, shapes)
            changes[name] = Difference(tensor)
        else:
            raise CheckpointError(f"{path}: {key} is not part of a LoRA (lora_A and lora_B, or lora_down and lora_up)")
    if not downs and not changes:
        raise CheckpointError(f"{path}: there is no LoRA in it (lora_A and lora_B, or lora_down and lora_up)")
    config = _config(path if path.is_dir() else path.parent)
    for name in sorted(downs.keys() | ups.keys() | alphas.keys()):
        if name not in downs or name not in ups:
            raise CheckpointError(f"{path}: {name} has but one of its two matrices; get the file again")
        if name in changes:
            raise CheckpointError(f"{path}: {name} has matrices and a whole difference; get the file again")
        _check(path, name, downs[name].shape, ups[name].shape, shapes)
        changes[name] = LowRank(downs[name], ups[name], _scale(path, downs[name].shape[0], alphas.get(name), config))
    return changes


def _target(module: str, flat: Mapping[str, str], changed: str = "weight") -> str:
    return flat.get(f"{_FLAT.sub('lora_unet_', module)}_{changed}") or native_name(f"{module}.{changed}")


def _check_whole(path: Path, name: str, shape: Shape, shapes: Mapping[str, Shape]) -> None:
    whole = _shape_of(path, name, shapes)
    if shape != whole:
        raise CheckpointError(f"{path} is a LoRA for another model: {name} is {list(whole)}, but {list(shape)} here")


def _shape_of(path: Path, name: str, shapes: Mapping[str, Shape]) -> Shape:
    if name not in shapes:
        raise CheckpointError(f"{path} is a LoRA for another model: this one has no {name}")
    return shapes[name]


def _check(path: Path, name: str, down: Shape, up: Shape, shapes: Mapping[str, Shape]) -> None:
    whole = _shape_of(path, name, shapes)
    fits = up[:1] == whole[:1] and math.prod(up[1:]) == math.prod(down[:1])
    if min(len(down), len(up)) < 2 or not fits or math.prod(down[1:]) != math.prod(whole[1:]):
        raise CheckpointError(
            f"{path} is a LoRA for another model: {name} is {list(whole)}, but {list(up)} and {list(down)} here"
        )


def _scale(path: Path, rank: int, alpha: Stored | None, config: Mapping[str, object]) -> float:
    numerator = alpha.read().flatten()[0].item() if alpha else config.get("lora_alpha", rank)
    if not isinstance(numerator, int | float):
        raise CheckpointError(f"{path}: lora_alpha in adapter_config.json is {numerator!r}, which is not a number")
    return numerator / (rank**0.5 if config.get("use_rslora") else rank)


def _config(folder: Path) -> Mapping[str, object]:
    """PEFT's settings, where they are."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON; get it again") from error
    if not isinstance(config, dict) or config.get("alpha_pattern"):
        raise CheckpointError(f"{file} has an alpha for each layer (alpha_pattern), which cannot be merged")
    return config
