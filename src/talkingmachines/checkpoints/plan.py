"""Which of our models some weights are, and where each of its tensors comes from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from talkingmachines.checkpoints.files import Shape, Stored, stored_tensors
from talkingmachines.checkpoints.lora import Change, read_lora
from talkingmachines.dit.model import DiT
from talkingmachines.dit.weights import AUDIO_LAYERS, IMAGE_LAYERS, fresh, is_part_of, keeps_float32, native_name
from talkingmachines.errors import CheckpointError
from talkingmachines.presets import PRESETS, Preset
from talkingmachines.weights import all_finite

_UNUSED = "norm_added_q"
"""In diffusers' image-to-video files, and read by no model."""
_VAE_FILES = ("vae/diffusion_pytorch_model.safetensors", "Wan2.1_VAE.safetensors", "Wan2.1_VAE.pth")
"""Where a folder of Wan2.1 weights has its autoencoder."""


@dataclass(frozen=True)
class Part:
    """A tensor of the model to be. source: None for a new layer. change: of a LoRA.

    A source with fewer input channels, that of text-to-video weights, is filled up with zeros.
    """

    name: str
    shape: Shape
    source: Stored | None
    change: Change | None = None

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if keeps_float32(self.name) else torch.bfloat16

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def tensor(self) -> Tensor:
        """As it is to be written. Raises CheckpointError for values that are not finite."""
        tensor = self.source.read() if self.source else fresh(self.name, self.shape)
        if tensor.shape != self.shape:
            narrow, tensor = tensor, tensor.new_zeros(self.shape)
            tensor[:, : narrow.shape[1]] = narrow
        if self.change:
            tensor = self.change.merged_into(tensor)
        tensor = tensor.to(self.dtype).contiguous()
        if not all_finite(tensor):
            where = f" in {self.source.path}" if self.source else ""
            where += f" with {self.change.stored[0].path}" if self.change else ""
            raise CheckpointError(f"{self.name}{where} has values that are not finite in {self.dtype}; get it again")
        return tensor


@dataclass(frozen=True)
class Plan:
    """parts: all tensors of the preset's DiT. vae: file of an autoencoder, or None. files: all that is read."""

    preset: Preset
    parts: tuple[Part, ...]
    vae: Path | None
    files: tuple[Path, ...]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    @property
    def new_layers(self) -> list[str]:
        """Which layers no weights were given for: "audio", "image"."""
        new = [part.name for part in self.parts if part.source is None]
        kinds = {"audio": AUDIO_LAYERS, "image": IMAGE_LAYERS}
        # The embedding of the modes is ours alone, so it is always new.
        return [
            kind
            for kind, layers in kinds.items()
            if any(is_part_of(name, layers) for name in new if not name.startswith("audio_mode."))
        ]


def make_plan(wan: Path, audio: Path | None = None, lora: Path | None = None, *, from_text: bool = False) -> Plan:
    """What to convert, all checked that can be without reading values.

    wan: a folder or file of Wan2.1 weights, with audio layers or without; audio: of the MultiTalk family's audio
    layers, which go before those in `wan`. Without either the audio layers are new and change nothing. lora: merged
    into the weights. from_text: take text-to-video weights, with new layers for the picture. Names may be Wan's own or
    diffusers'. An autoencoder is taken too where the folder has one.
    Raises CheckpointError for all that is missing, left over, misshapen, damaged or of another model.
    """
    base = _by_our_names(wan)
    preset = _recognised(wan, base)
    with torch.device("meta"):
        shapes: dict[str, Shape] = {key: tuple(tensor.shape) for key, tensor in DiT(preset.dit).state_dict().items()}
    given = shapes
    if _of_text(wan, base["patch_embedding.weight"].shape, preset, from_text):
        narrow = (shapes["patch_embedding.weight"][0], preset.dit.latent_channels, *preset.dit.patch)
        given = {name: shape for name, shape in shapes.items() if not is_part_of(name, IMAGE_LAYERS)}
        given["patch_embedding.weight"] = narrow
    heard = {name: shape for name, shape in given.items() if is_part_of(name, AUDIO_LAYERS)}
    base_shapes = given if base.keys() & heard else {name: given[name] for name in given if name not in heard}
    _check(wan, base, base_shapes, f"Wan2.1's {'text' if from_text else 'image'}-to-video model, and of no other")
    if audio:
        layers = _by_our_names(audio)
        _check(audio, layers, heard, "the audio layers of MultiTalk or InfiniteTalk")
        base |= layers
    changes = read_lora(lora, shapes) if lora else {}
    parts = tuple(Part(name, shape, base.get(name), changes.get(name)) for name, shape in shapes.items())
    stored = [*base.values(), *(tensor for change in changes.values() for tensor in change.stored)]
    vae = next((wan / name for name in _VAE_FILES if (wan / name).is_file()), None)
    files = {tensor.path for tensor in stored} | ({vae} if vae else set())
    return Plan(preset, parts, vae, tuple(sorted(files)))


def _by_our_names(path: Path) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for key, tensor in stored_tensors(path).items():
        name = native_name(key)
        if name in found:
            raise CheckpointError(f"{path}: {key} and {found[name].key} are the same tensor; give the weights once")
        if _UNUSED not in name:
            found[name] = tensor
    return found


def _recognised(path: Path, base: Mapping[str, Stored]) -> Preset:
    """The preset that has as many layers, as wide."""
    layers = {name.split(".")[1] for name in base if name.startswith("blocks.")}
    try:
        found = base["patch_embedding.weight"].shape[0], base["blocks.0.ffn.0.weight"].shape[0], len(layers)
    except KeyError as error:
        raise CheckpointError(
            f"{path}: these are no weights of a Wan transformer: {error.args[0]} is missing"
        ) from None
    known = {name: make().dit for name, make in PRESETS.items()}
    for name, dit in known.items():
        if dit.text and found == (dit.width, dit.ffn_width, dit.layers):
            return PRESETS[name]()
    have = ", ".join(f"{name} {dit.width}, {dit.ffn_width}, {dit.layers}" for name, dit in known.items() if dit.text)
    raise CheckpointError(
        f"{path}: no preset has width {found[0]}, feed-forward width {found[1]} and {found[2]} layers; known: {have}"
    )


def _of_text(path: Path, embedding: Shape, preset: Preset, from_text: bool) -> bool:
    """Whether these are text-to-video weights, and may be. embedding: shape of the patch embedding."""
    if embedding[1:2] != (preset.dit.latent_channels,):
        if from_text:
            raise CheckpointError(f"{path}: these are not text-to-video weights; leave out --from-text")
        return False
    if not from_text:
        raise CheckpointError(
            f"{path}: these are text-to-video weights ({embedding[1]} input channels), which cannot see a picture; "
            "give the image-to-video weights, or --from-text for new layers that must be trained first"
        )
    return True


def _check(path: Path, found: Mapping[str, Stored], given: Mapping[str, Shape], whole: str) -> None:
    """That all of `given` is found, and nothing else. audio_mode is ours alone: other people's files lack it.

    whole: the words for what the weights must be.
    """
    missing = sorted(given.keys() - found.keys() - {"audio_mode.weight"})
    if missing:
        raise CheckpointError(f"{path}: {_listed(missing)} missing; get all files of {whole}")
    extra = sorted(found.keys() - given.keys())
    if extra:
        raise CheckpointError(f"{path}: {_listed(extra)} not part of this model: the weights are of another one")
    for name in sorted(found):
        if found[name].shape != given[name]:
            raise CheckpointError(
                f"{path}: {name} is {list(found[name].shape)} and must be {list(given[name])}: of another model"
            )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
    return names[0] + more
