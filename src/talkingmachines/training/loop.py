"""The loop that every stage of training runs in."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from talkingmachines.errors import TrainingError
from talkingmachines.precision import fast_autocast
from talkingmachines.training.checkpoint import load_state, save_state
from talkingmachines.training.config import LoopConfig
from talkingmachines.training.ema import EMA
from talkingmachines.training.loading import load
from talkingmachines.training.optimizer import build_optimizers
from talkingmachines.training.randomness import step_generator

Report = Callable[[int, float, dict[str, float]], None]
"""Called after each step with the step, the progress 0..1, and the metrics (loss, speed, time left)."""


class Stage(Protocol):
    """What is trained. `batches[step]` is the data of a step, a function of the step alone."""

    name: str
    model: nn.Module
    batches: Dataset[dict[str, Tensor]]

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars to report; "loss" is the one that is minimised."""

    def sample_grid(self, model: nn.Module) -> np.ndarray:
        """A picture [H, W, 3] uint8 of what `model` makes now."""


class Writer(Protocol):
    """The part of TensorBoard's SummaryWriter that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def add_image(self, tag: str, img_tensor: np.ndarray, global_step: int, dataformats: str) -> None: ...


class _Figures:
    """Scalars of a step on their way from the device. Who waits for them at once leaves a GPU without its next step."""

    def __init__(self, step: int, scalars: dict[str, Tensor]) -> None:
        self.step, self.names = step, tuple(scalars)
        values = torch.stack([value.detach().float() for value in scalars.values()])
        self._values = values.to("cpu", non_blocking=True)
        self._arrived = None
        if values.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(values.device))

    def read(self) -> dict[str, float]:
        """Waits for them. Raises TrainingError where the step went wrong."""
        if self._arrived is not None:
            self._arrived.synchronize()
        figures = dict(zip(self.names, self._values.tolist(), strict=True))
        if not math.isfinite(figures["grad_norm"]):
            raise TrainingError(
                f"the loss of step {self.step - 1} is not finite; resume from the last checkpoint, and if it comes "
                "again begin the stage anew with another --seed"
            )
        return figures


class Trainer:
    """One run of one stage. Stopped anywhere and resumed from its last checkpoint, it computes the same steps.

    beside: fingerprints, by name, of what it learns from that is no part of its model.
    """

    def __init__(
        self,
        stage: Stage,
        config: LoopConfig,
        run_dir: Path,
        device: torch.device,
        beside: Mapping[str, str] = {},
    ) -> None:
        self.stage, self.config, self.run_dir, self.device = stage, config, run_dir, device
        self.beside = dict(beside)
        self.model = stage.model.to(device)
        self.ema = EMA(self.model, config.ema_decay)
        self.optimizers = build_optimizers(self.model, config)
        self.step = 0
        self.elapsed = 0.0

    def save(self) -> None:
        state: dict[str, Any] = {
            "stage": self.stage.name,
            "beside": self.beside,
            "seed": self.config.seed,
            "step": self.step,
            "elapsed": self.elapsed,
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        save_state(self.run_dir, state)

    def resume(self) -> None:
        """Load the last checkpoint. Raises TrainingError when it is missing, damaged, of another stage or seed, or when
        what this one does not train, or learns from, has become another since."""
        state = load_state(self.run_dir)
        if state["stage"] != self.stage.name:
            raise TrainingError(f"{self.run_dir} holds a run of {state['stage']!r}, not of {self.stage.name!r}")
        # Checkpoints of before say neither seed nor what was beside.
        if (seed := state.get("seed", self.config.seed)) != self.config.seed:
            raise TrainingError(
                f"{self.run_dir} was begun with --seed {seed}, not {self.config.seed}: leave --seed out to go on, or "
                "remove it, and begin this stage anew"
            )
        beside = state.get("beside", self.beside)
        if changed := [name for name, known in self.beside.items() if beside.get(name) != known]:
            raise TrainingError(
                f"{self.run_dir} was trained with another {' and '.join(changed)} than the run has now: remove it, and "
                "begin this stage anew"
            )
        fixed = {name: p.detach().cpu().clone() for name, p in self.model.named_parameters() if not p.requires_grad}
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise TrainingError(f"{self.run_dir} holds a model of another shape; use the same preset") from error
        if not all(torch.equal(value, state["model"][name]) for name, value in fixed.items()):
            raise TrainingError(
                f"{self.run_dir} was trained on weights of an earlier stage that have gone on since: remove it, and "
                "begin this stage anew"
            )
        self.ema.model.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.elapsed = state["step"], state["elapsed"]

    def train_step(self, batch: dict[str, Tensor]) -> "_Figures":
        """batch: on the device. What it leaves is to be kept only after its figures were read."""
        progress = self.config.progress(self.step, self.elapsed)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate * self.config.rate(self.step, progress)
        generator = step_generator(self.config.seed, self.step)
        with fast_autocast(self.device):
            losses = self.stage.losses(batch, generator)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.ema.update(self.model, self.step)
        return _Figures(self.step, losses | {"grad_norm": norm})

    def run(self, workers: int, report: Report, writer: Writer, stopped: Callable[[], bool]) -> nn.Module:
        """Train to the end or until `stopped()`, saving on the way. Returns the averaged model."""
        last = saved = sampled = time.monotonic()
        steps = range(self.step, self.config.steps or 2**31)
        untold: list[_Figures] = []

        def tell(figures: _Figures) -> None:
            metrics = figures.read()
            report(figures.step, self.config.progress(figures.step, self.elapsed), metrics)
            for name, value in metrics.items():
                writer.add_scalar(f"{self.stage.name}/{name}", value, figures.step)

        with load(self.stage.batches, steps, workers, self.device) as batches:
            for batch in batches:
                untold.append(self.train_step(batch))
                now = time.monotonic()
                self.elapsed, last = self.elapsed + now - last, now
                ended = self.config.progress(self.step, self.elapsed) >= 1 or stopped()
                due = ended or now - saved > 60 * self.config.checkpoint_minutes
                # The last step's are read while this one runs, but nothing is kept before its own are.
                while len(untold) > (0 if due else 1):
                    tell(untold.pop(0))
                if now - sampled > 60 * self.config.sample_minutes:
                    self.sample(writer)
                    sampled = now
                if due:
                    self.save()
                    saved = now
                if ended:
                    break
        self.sample(writer)
        return self.ema.model

    def sample(self, writer: Writer) -> None:
        with torch.inference_mode(), fast_autocast(self.device):
            grid = self.stage.sample_grid(self.ema.model)
        writer.add_image(f"{self.stage.name}/samples", grid, self.step, dataformats="HWC")
