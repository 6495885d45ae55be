"""Weights on disk: safetensors in float16, in shards small enough for a repository."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from talkingmachines.errors import CheckpointError

MAX_SHARD_BYTES = 15_000_000


def save_weights(folder: Path, name: str, model: nn.Module, metadata: dict[str, object]) -> None:
    """Write `model` to folder/name-1-of-n.safetensors ..., replacing those of an earlier save.

    metadata: how the weights were made and how good they are; kept as JSON in every shard's header.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for key, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().half().contiguous()
        if used and used + tensor.nbytes > MAX_SHARD_BYTES:
            shards.append({})
            used = 0
        shards[-1][key] = tensor
        used += tensor.nbytes
    header = {"talkingmachines": json.dumps({"model": name, "shards": len(shards), **metadata}, sort_keys=True)}
    written = []
    for index, shard in enumerate(shards):
        path = folder / f"{name}-{index + 1}-of-{len(shards)}.safetensors"
        save_file(shard, f"{path}.partial", header)
        written.append(path)
    for old in shard_paths(folder, name):
        old.unlink()
    for path in written:
        os.replace(f"{path}.partial", path)


def shard_paths(folder: Path, name: str) -> list[Path]:
    """The files of a model in `folder`, in order; none when it has not been trained."""
    return sorted(folder.glob(f"{name}-*-of-*.safetensors"))


def read_metadata(folder: Path, name: str) -> dict[str, object]:
    """What was said of a model when it was saved. Raises CheckpointError if it is missing or not ours."""
    paths = shard_paths(folder, name)
    if not paths:
        raise CheckpointError(f"no {name} weights in {folder}; train them, or name a folder that has them")
    try:
        with safe_open(paths[0], "pt") as file:
            header = (file.metadata() or {}).get("talkingmachines")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{paths[0]} is damaged or not a safetensors file; get it again") from error
    if header is None:
        raise CheckpointError(f"{paths[0]} was not written by talkingmachines")
    return json.loads(header)


def load_weights(folder: Path, name: str, model: nn.Module) -> None:
    """Fill `model` in place. Raises CheckpointError if weights are missing, damaged or of another model."""
    paths = shard_paths(folder, name)
    expected = read_metadata(folder, name)["shards"]
    if len(paths) != expected:
        raise CheckpointError(f"{folder} has {len(paths)} of {expected} files of the {name} weights; get the rest")
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged or not a safetensors file; get it again") from error
    wanted = model.state_dict()
    for key in wanted.keys() | tensors.keys():
        if key not in tensors:
            raise CheckpointError(f"the {name} weights in {folder} lack {key}: they belong to another preset")
        if key not in wanted or wanted[key].shape != tensors[key].shape:
            shape = list(tensors[key].shape)
            raise CheckpointError(f"the {name} weights in {folder} have {key} {shape}: they belong to another preset")
    if any(not torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise CheckpointError(f"the {name} weights in {folder} have values that are not finite; get them again")
    model.load_state_dict(tensors)
