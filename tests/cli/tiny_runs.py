"""Models of a run of the tiny preset, without training."""

from pathlib import Path

import torch

from talkingmachines.cli.training_run import Run, known_by
from talkingmachines.dit.model import DiT
from talkingmachines.presets import tiny
from talkingmachines.weights import save_weights


def save_knowing(run: Path, name: str, model: DiT | None = None, **more: object) -> None:
    """As if it were trained on what the run hears and codes with now."""
    job = Run(tiny(), run, torch.device("cpu"), None, 1, False, 0, None)
    said = {"preset": "tiny", "knows": known_by(job.weights, job)}
    save_weights(job.weights, name, model or DiT(job.preset.dit), said | more)
