"""Training state on disk: written whole or not at all."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from talkingmachines.errors import TrainingError
from talkingmachines.media.files import reason, remove_partial, replacing

STATE_FILE = "state.pt"


def save_state(run_dir: Path, state: dict[str, Any]) -> None:
    """Replace the run's state file atomically: a crash leaves the one before it.

    Raises TrainingError when it cannot be written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        remove_partial(run_dir)
        with replacing(run_dir / STATE_FILE) as partial:
            torch.save(state, partial)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError of a disk that is full
        raise TrainingError(
            f"{run_dir}: the checkpoint cannot be written ({reason(error)}); make room, then --resume from the last one"
        ) from error


def load_state(run_dir: Path) -> dict[str, Any]:
    """The last state written to `run_dir`, in the processor's memory.

    Raises TrainingError when there is none or it cannot be read.
    """
    path = run_dir / STATE_FILE
    if not path.exists():
        raise TrainingError(f"nothing to resume in {run_dir}: no {STATE_FILE} there; start without --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
        raise TrainingError(f"cannot resume from {path}: the file is damaged ({type(error).__name__})") from error
    if not isinstance(state, dict) or "stage" not in state:
        raise TrainingError(f"cannot resume from {path}: it was not written by talkingmachines")
    return state


def seed_begun(run_dir: Path) -> int | None:
    """Of the run with a state in `run_dir`; None where there is none, or one of before, which does not say it."""
    return load_state(run_dir).get("seed") if (run_dir / STATE_FILE).exists() else None


def fingerprint(model: nn.Module) -> str:
    """Of the weights themselves: what is said of them may grow."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().float().numpy().tobytes())
    return digest.hexdigest()
