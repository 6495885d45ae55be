"""Tensors in other people's safetensors files: what is there, and one of them at a time."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from talkingmachines.errors import CheckpointError

Shape = tuple[int, ...]

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PICKLES = (".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, called `key` there; its values begin at the byte `start`."""

    path: Path
    key: str
    shape: Shape
    dtype: torch.dtype
    start: int

    def read(self) -> Tensor:
        """In the dtype of the file. Raises CheckpointError if the file cannot be read any more."""
        # Read and not mapped: the whole of a file that is mapped counts as memory asked for, and may be refused.
        data = bytearray(math.prod(self.shape) * self.dtype.itemsize)
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                count = file.readinto(data)
        except OSError as error:
            raise _damaged(self.path) from error
        if count != len(data):
            raise _damaged(self.path)
        return torch.frombuffer(data, dtype=self.dtype).view(self.shape)


def stored_tensors(path: Path) -> dict[str, Stored]:
    """All tensors of a file, or of a folder: the files its index names, or else all that end in .safetensors.

    By their names in the files. Raises CheckpointError for a path without weights, files that are missing or damaged,
    pickles, and tensors that are there twice or not of float32, float16 or bfloat16.
    """
    tensors: dict[str, Stored] = {}
    for file in weight_files(path):
        for key, stored in _tensors_in(file).items():
            if key in tensors:
                raise CheckpointError(f"{key} is both in {tensors[key].path} and in {file}; take one of them away")
            tensors[key] = stored
    return tensors


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a file or folder, in order. A pipeline's folder has them in its folder transformer."""
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such file or folder; give one with safetensors weights")
    if path.is_file():
        if path.suffix in PICKLES:
            raise CheckpointError(_pickled(path))
        return [path]
    folder = path / "transformer" if (path / "transformer").is_dir() else path
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if indexes:
        return _indexed(indexes[0])
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [file for file in sorted(folder.iterdir()) if file.suffix in PICKLES]
        raise CheckpointError(_pickled(pickles[0]) if pickles else f"{folder}: no .safetensors files in this folder")
    return files


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        files = [index.parent / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: this is not an index of safetensors files; get it again") from error
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file} is missing, which {index.name} names; get it")
    return files


def _tensors_in(path: Path) -> dict[str, Stored]:
    try:
        # Opening checks the header against the length of the file, and that the tensors fill it.
        with safe_open(path, "np"), path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, OSError) as error:
        raise _damaged(path) from error
    found = {}
    for key, tensor in header.items():
        if key == "__metadata__":
            continue
        if tensor["dtype"] not in DTYPES:
            raise CheckpointError(
                f"{path}: {key} is {tensor['dtype']}; get weights in {', '.join(DTYPES)}, not quantised ones"
            )
        start = 8 + length + tensor["data_offsets"][0]
        found[key] = Stored(path, key, tuple(tensor["shape"]), DTYPES[tensor["dtype"]], start)
    return found


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is damaged, cut short or not a safetensors file; get it again")


def _pickled(path: Path) -> str:
    return f"{path}: loading a {path.suffix} file runs code that is in it; convert it to safetensors and give that"
