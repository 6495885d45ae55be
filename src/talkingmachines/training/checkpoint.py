"""Training state on disk: written whole or not at all."""

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from talkingmachines.errors import TrainingError

STATE_FILE = "state.pt"


def save_state(run_dir: Path, state: dict[str, Any]) -> None:
    """Replace the run's state file atomically: a crash leaves the one before it."""
    run_dir.mkdir(parents=True, exist_ok=True)
    partial = run_dir / f"{STATE_FILE}.partial"
    torch.save(state, partial)
    os.replace(partial, run_dir / STATE_FILE)


def load_state(run_dir: Path, device: torch.device) -> dict[str, Any]:
    """The last state written to `run_dir`. Raises TrainingError when there is none or it cannot be read."""
    path = run_dir / STATE_FILE
    if not path.exists():
        raise TrainingError(f"nothing to resume in {run_dir}: no {STATE_FILE} there; start without --resume")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        raise TrainingError(f"cannot resume from {path}: the file is damaged ({type(error).__name__})") from error


def fingerprint(model: nn.Module) -> str:
    """Of the weights themselves: what is said of them may grow."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().float().numpy().tobytes())
    return digest.hexdigest()
