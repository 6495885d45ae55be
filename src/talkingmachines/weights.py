"""Weights on disk: safetensors, in shards small enough for a repository.

float16, or eight bits: a matrix, or the weights of a convolution, as int8 beside one float16 scale for each row.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from talkingmachines.encoders.gestures import Gestures
from talkingmachines.encoders.hearing import Hearing
from talkingmachines.errors import CheckpointError, ConfigError
from talkingmachines.framing.cut import Fit, fit_centre, fit_face
from talkingmachines.framing.finder import FaceFinder
from talkingmachines.media.files import reason, replacing
from talkingmachines.presets import PRESETS, Preset, preset
from talkingmachines.streaming.features import HearingStream, MakeFeatures

MAX_SHARD_BYTES = 15_000_000

SCALE = ".scale"
"""Ends the name of the scales [rows] of an eight-bit matrix."""


def save_weights(
    folder: Path, name: str, model: nn.Module, metadata: dict[str, object], *, eight_bits: bool = False
) -> None:
    """Write `model` to folder/name-1-of-n.safetensors ..., replacing those of an earlier save.

    metadata: how the weights were made and how good they are; kept as JSON in every shard's header.
    eight_bits: matrices and convolutions as int8, half the size; each weight is then off by 0.7% of a typical one of
    its row.

    Raises CheckpointError when they cannot be written; those of the earlier save then stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for key, tensor in model.state_dict().items():
        several = tensor.ndim > 1 and len(tensor) > 1 and tensor[0].numel() > 1
        stored = _stored(key, tensor.detach().cpu().float(), eight_bits and several)
        size = sum(part.nbytes for part in stored.values())
        if used and used + size > MAX_SHARD_BYTES:
            shards.append({})
            used = 0
        shards[-1] |= stored
        used += size
    header = shard_header(name, len(shards), metadata)
    written = {path: Path(f"{path}.partial") for path in new_shard_paths(folder, name, len(shards))}
    try:
        for partial_path, shard in zip(written.values(), shards, strict=True):
            _write(shard, partial_path, header)
        for path, partial_path in written.items():
            os.replace(partial_path, path)
    finally:
        for partial_path in written.values():
            partial_path.unlink(missing_ok=True)
    for old in shard_paths(folder, name):
        if old not in written:
            old.unlink()


def _write(shard: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
    try:
        save_file(shard, path, header)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written ({reason(error)}); make room, then go on") from error


def _stored(key: str, tensor: Tensor, eight_bits: bool) -> dict[str, Tensor]:
    if not eight_bits:
        return {key: tensor.half().contiguous()}
    scale = (tensor.flatten(1).abs().amax(1).clamp(min=1e-4) / 127).half()
    rounded = (tensor / _of_rows(scale, tensor)).round().clamp(-127, 127).to(torch.int8)
    return {key: rounded.contiguous(), key + SCALE: scale}


def _of_rows(scale: Tensor, tensor: Tensor) -> Tensor:
    """Scales [rows] as they multiply the rows of `tensor`."""
    return scale.float().view(-1, *[1] * (tensor.ndim - 1))


def _restored(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of _stored for all of a model. Tensors of eight bits that lack their scales stay as they are."""
    tensors = {key: tensor for key, tensor in stored.items() if not key.endswith(SCALE)}
    for key, tensor in stored.items():
        if key.endswith(SCALE) and key.removesuffix(SCALE) in tensors:
            whole = tensors[key.removesuffix(SCALE)]
            tensors[key.removesuffix(SCALE)] = whole.float() * _of_rows(tensor, whole)
    return tensors


def new_shard_paths(folder: Path, name: str, shards: int) -> list[Path]:
    """What the files of a model in so many shards are called."""
    return [folder / f"{name}-{index + 1}-of-{shards}.safetensors" for index in range(shards)]


def shard_header(name: str, shards: int, metadata: dict[str, object]) -> dict[str, str]:
    """What read_metadata reads, for the header of every shard."""
    return {"talkingmachines": json.dumps({"model": name, "shards": shards, **metadata}, sort_keys=True)}


def shard_paths(folder: Path, name: str) -> list[Path]:
    """The files of a model in `folder`; none when it has not been trained."""
    # A name may begin another one: student, student-start.
    shard = re.compile(re.escape(name) + r"-\d+-of-\d+\.safetensors")
    return sorted(path for path in folder.glob(f"{name}-*.safetensors") if shard.fullmatch(path.name))


def read_metadata(folder: Path, name: str) -> dict[str, object]:
    """What was said of a model when it was saved. Raises CheckpointError if it is missing or not ours."""
    paths = shard_paths(folder, name)
    if not paths:
        raise CheckpointError(f"no {name} weights in {folder}; train or convert them, or name a folder that has them")
    with _opened(paths[0]) as file:
        header = (file.metadata() or {}).get("talkingmachines", "")
    try:
        said = json.loads(header)
    except ValueError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("shards"), int):
        raise CheckpointError(f"{paths[0]} was not written by talkingmachines")
    return said


def add_metadata(folder: Path, name: str, more: dict[str, object]) -> None:
    """Say more of a model that is saved already, such as how good it is."""
    _say(folder, name, read_metadata(folder, name) | more)


def drop_figures(folder: Path) -> None:
    """Of `eval --stamp`, where they are there: what teacher and student were measured with has become another."""
    for name in ("teacher", "student"):
        if shard_paths(folder, name) and "evaluation" in (said := read_metadata(folder, name)):
            _say(folder, name, {key: value for key, value in said.items() if key != "evaluation"})


def _say(folder: Path, name: str, said: dict[str, object]) -> None:
    header = {"talkingmachines": json.dumps(said, sort_keys=True)}
    for path in shard_paths(folder, name):
        with _opened(path) as file:
            shard = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        with replacing(path) as partial:
            _write(shard, partial, header)


def load_weights(folder: Path, name: str, model: nn.Module) -> None:
    """Fill `model` in place, file by file, in the dtypes and on the devices that it has.

    Raises CheckpointError if weights are missing, damaged or of another model.
    """
    paths = shard_paths(folder, name)
    expected = read_metadata(folder, name)["shards"]
    if len(paths) != expected:
        raise CheckpointError(f"{folder} has {len(paths)} of {expected} files of the {name} weights; get the rest")
    wanted = model.state_dict()
    shapes = {key: shape for path in paths for key, shape in _shapes(path).items()}
    for key in sorted(wanted.keys() | shapes.keys()):
        if key not in shapes:
            raise CheckpointError(
                f"the {name} weights in {folder} lack {key}: they belong to another preset or version"
            )
        if key not in wanted or list(wanted[key].shape) != shapes[key]:
            raise CheckpointError(
                f"the {name} weights in {folder} have {key} {shapes[key]}: they belong to another preset or version"
            )
    for path in paths:
        with _opened(path) as file:
            tensors = _restored({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
            if not all(all_finite(tensor) for tensor in tensors.values()):
                raise CheckpointError(f"the {name} weights in {folder} have values that are not finite; get them again")
            for key, tensor in tensors.items():
                wanted[key].copy_(tensor)


def load_features(folder: Path, spec: Preset) -> MakeFeatures | None:
    """What makes the features of a preset with hearing and gestures of its own; None for others."""
    if spec.hearing is None or spec.gestures is None:
        return None
    hearing, gestures = Hearing(spec.hearing), Gestures(spec.gestures)
    load_weights(folder, "hearing", hearing)
    load_weights(folder, "gestures", gestures)
    return HearingStream.maker(hearing.eval(), gestures.eval())


def load_fit(folder: Path, spec: Preset, shape: tuple[int, int]) -> Fit:
    """What cuts pictures for a preset: to its faces, where it has learned with some and the video is as wide as high.

    folder: of the preset's weights; its finder of faces, or the shipped one where it has none. shape: height and width
    of the video. Raises CheckpointError where the finder is missing or damaged.
    """
    if spec.faces is None or shape[0] != shape[1]:
        return partial(fit_centre, size=shape)
    finder = load_finder(folder if shard_paths(folder, "finder") else None)
    return partial(fit_face, finder=finder, wanted=spec.faces, size=shape[0])


def load_finder(folder: Path | None = None) -> FaceFinder:
    """The shipped one, or the one saved in `folder`. Raises CheckpointError if it is missing or damaged."""
    finder = FaceFinder()
    load_weights(folder or Path(str(files("talkingmachines") / "assets" / "weights" / "finder")), "finder", finder)
    return finder.eval().requires_grad_(False)


def all_finite(tensor: Tensor) -> bool:
    """Whether there is no NaN and no infinity; a hundred times faster than asking each value."""
    return all(math.isfinite(end) for end in torch.stack(tensor.aminmax()).tolist())


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file; get it again") from error


def _shapes(path: Path) -> dict[str, list[int]]:
    """Of the weights in a file."""
    with _opened(path) as file:
        return {key: file.get_slice(key).get_shape() for key in file.keys() if not key.endswith(SCALE)}  # noqa: SIM118


def weights_folder(name_or_path: str) -> Path:
    """Where the weights of a shipped preset are, or a folder of the user's own."""
    if name_or_path in PRESETS:
        return Path(str(files("talkingmachines") / "assets" / "weights" / name_or_path))
    path = Path(name_or_path)
    if not path.is_dir():
        raise ConfigError(
            f"{name_or_path!r} is neither a preset ({', '.join(sorted(PRESETS))}) nor a folder with weights"
        )
    return path


def read_preset(folder: Path, name: str) -> Preset:
    """Of a model that was saved. Raises CheckpointError if it is missing, or of a preset that does not exist."""
    named = read_metadata(folder, name).get("preset")
    if not isinstance(named, str) or named not in PRESETS:
        raise CheckpointError(f"the weights in {folder} are of preset {named!r}, which this version does not know")
    return preset(named)
