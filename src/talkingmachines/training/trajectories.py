"""The first stage of distillation: clips of the teacher, kept, and the student's causal start on them and on real ones.

Regression on the teacher's own trajectories (CausVid, arXiv 2412.07772, section 4.3): the way from noise to picture is
given, so the student learns a function and not an average. On real clips it would learn an average, but where speech
and gestures say nearly all, there is little to average over; and real clips are sharper than a small teacher's.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from talkingmachines.dit.model import DiT
from talkingmachines.errors import ConfigError
from talkingmachines.flow.chunk import ChunkConfig
from talkingmachines.flow.path import x0_from_velocity
from talkingmachines.flow.sampler import sample
from talkingmachines.flow.schedule import sampling_sigmas
from talkingmachines.media.files import replacing
from talkingmachines.precision import fast_autocast, picked, sent
from talkingmachines.training.checkpoint import fingerprint
from talkingmachines.training.passes import Passes, plain_passes
from talkingmachines.training.randomness import normal, step_generator
from talkingmachines.training.rollout import Scene, call_grid, heard_ahead, real_window, uncertain, window_call
from talkingmachines.training.teacher import WARP, TeacherStage
from talkingmachines.vae.config import TEMPORAL_STRIDE
from talkingmachines.vae.model import CausalVAE

CHANGE = 10.0
"""What an error of the change from frame to frame inside a latent frame counts: little in latents, much to the eye."""


TOLERANCE = 0.1
"""Error of a latent cell from which on it counts itself, not its square. Where speech leaves open if lips shut, the
least square is a mouth half open, the least error one or the other."""


class TrajectoryBatches(Dataset[dict[str, Tensor]]):
    """Batches of `clips` with what the teacher made of them, over and over in a new order each time.

    As CallBatches, and points [K, B, C, F, h, w]: the teacher's latents at each sigma of the student, noise first,
    and its clip last.
    """

    def __init__(self, folder: Path, clips: Dataset[dict[str, Tensor]], seed: int = 0) -> None:
        self.clips, self.seed = clips, seed
        self.paths = sorted(folder.glob("[0-9]*.safetensors"))

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        epoch, place = divmod(step, len(self.paths))
        index = int(np.random.default_rng([self.seed, epoch]).permutation(len(self.paths))[place])
        points = load_file(self.paths[index])["points"].float()
        return self.clips[index] | {"points": points}


@torch.no_grad()
def build_trajectories(
    folder: Path,
    stage: TeacherStage,
    clips: Dataset[dict[str, Tensor]],
    chunk: ChunkConfig,
    *,
    origin: dict[str, object],
    steps: int,
    guidance: float,
    batches: int,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> None:
    """Let the teacher make the batches of `clips` that are not in `folder` yet, `batches` in all.

    origin: what tells `clips` from others. steps: of the teacher, a multiple of the student's, so that it visits the
    student's sigmas. Raises ConfigError for a folder of another teacher, or of other clips or settings.
    """
    assert steps % chunk.steps == 0, (steps, chunk.steps)
    folder.mkdir(parents=True, exist_ok=True)
    teacher = stage.model
    assert isinstance(teacher, DiT)
    made_by = {"teacher": fingerprint(teacher), "teacher_steps": steps, "guidance": guidance, "seed": seed}
    made_by |= asdict(chunk)
    _check_origin(folder, origin | made_by)
    sigmas, stride = sampling_sigmas(steps, chunk.shift), steps // chunk.steps
    for index in range(batches):
        path = folder / f"{index:06}.safetensors"
        if not path.exists():
            batch = {name: tensor.to(device) for name, tensor in teacher_window(clips[index], chunk).items()}
            latents = batch["latents"]
            points = [normal(latents.shape, latents, step_generator(seed, index))]
            with fast_autocast(device):
                heard = teacher.prepare(stage.conditioning(batch, None))
                free = teacher.prepare(
                    stage.conditioning(batch, torch.zeros(len(latents), dtype=torch.bool, device=device))
                )
                for first in range(0, steps, stride):
                    part = sigmas[first : first + stride + 1]
                    points.append(sample(teacher, points[-1], part, heard, free, guidance))
            with replacing(path) as partial:
                save_file({"points": torch.stack(points).half().cpu()}, partial)
        progress(index + 1, batches)


def _check_origin(folder: Path, origin: dict[str, object]) -> None:
    path, said = folder / "origin.json", json.dumps(origin, sort_keys=True)
    if not path.exists():
        with replacing(path) as partial:
            partial.write_text(said)
    elif path.read_text() != said:
        raise ConfigError(f"{folder} holds clips of another teacher, or of other batches; remove it to make them anew")


def teacher_window(batch: dict[str, Tensor], chunk: ChunkConfig) -> dict[str, Tensor]:
    """The first window of a call as TeacherStage wants it."""
    return cut_window(batch, batch["latents"][:, :, : chunk.frames * chunk.window], 0, 1)


def cut_window(batch: dict[str, Tensor], latents: Tensor, start: int, known: int) -> dict[str, Tensor]:
    """A batch for TeacherStage: `latents` [B, C, F, h, w] sit at latent frame `start` of the call of `batch`.

    known: how many of them are given.
    """
    frames = latents.shape[2]
    first = 4 * start
    return {
        "latents": latents,
        "reference": batch["reference"],
        "known": torch.full((len(latents),), known, device=latents.device),
        "features": batch["features"][:, first : first + 1 + 4 * (frames - 1)],
        "modes": batch["modes"][:, start : start + frames],
        "weight": batch["weight"][:, start : start + frames],
    }


class StartBatches(Dataset[dict[str, Tensor]]):
    """One batch of the teacher's clips (TrajectoryBatches), then three of real ones (CallBatches), and so on."""

    def __init__(self, trajectories: Dataset[dict[str, Tensor]], calls: Dataset[dict[str, Tensor]]) -> None:
        self.trajectories, self.calls = trajectories, calls

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self.calls[step] if step % 4 else self.trajectories[step // 4]


class StartStage:
    """The student, which starts as the teacher, learns to see only the past. Batches: see StartBatches."""

    name = "student-start"

    def __init__(
        self,
        model: DiT,
        chunk: ChunkConfig,
        batches: Dataset[dict[str, Tensor]],
        vae: CausalVAE,
        motion_std: float,
        passes: Passes = plain_passes,
    ) -> None:
        self.model: nn.Module = model
        self.chunk, self.batches, self.vae = chunk, batches, vae
        self.regression = Regression(model, chunk, Aim(motion_std, change_inside(vae)), passes)

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        step = int(torch.randint(self.chunk.steps, (), generator=generator))
        if "points" in batch:
            return {"loss": self.regression.teachers(batch, step, generator)[0]}
        return {"loss": self.regression.real(batch, step, generator)}

    def sample_grid(self, model: nn.Module) -> np.ndarray:
        assert isinstance(model, DiT)
        return call_grid(model, self.chunk, self.batches[0], self.vae)


@torch.no_grad()
def change_inside(vae: CausalVAE) -> Tensor:
    """[C, C]: times a latent cell [C] as large as what changes from frame to frame inside it, where the whole of its
    four frames is as large as itself; by the autoencoder's linear path."""
    linear = vae.decoder.linear.weight.flatten(1) * vae.latent_std
    frames = linear.unflatten(0, (TEMPORAL_STRIDE, -1))
    return torch.linalg.qr(frames.diff(dim=0).flatten(0, 1)).R / linear.square().sum(0).mean().sqrt()


@dataclass(frozen=True)
class Aim:
    """How far x0 is from what it should be, in units of motion_std; change: of change_inside."""

    motion_std: float
    change: Tensor

    def loss(self, made: Tensor, moved: Tensor | None, true: Tensor, weight: Tensor) -> Tensor:
        """Of x0 as made, and as moved alone, [B, C, F, h, w]; weight [B, F, h, w]. Frame 0 is given and not counted."""
        error, weight = (made.float() - true)[:, :, 1:], weight[:, 1:]
        changed = torch.einsum("kc,bcfhw->bkfhw", self.change.to(error), error)
        loss = weighted_robust(error.square().mean(1) + CHANGE * changed.square().mean(1), weight)
        if moved is not None:
            loss = loss + WARP * weighted_robust((moved.float() - true)[:, :, 1:].square().mean(1), weight)
        return loss / self.motion_std**2


@dataclass(frozen=True)
class Regression:
    """The error of a student's x0 at one step, made as in a call. aim: what counts how much; passes: how it is run."""

    model: DiT
    chunk: ChunkConfig
    aim: Aim
    passes: Passes = plain_passes

    def teachers(self, batch: dict[str, Tensor], step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Against the teacher's clip, all chunks of a window at once under the sparse mask; and x0."""
        scene, chunk = self._scene(batch, generator), self.chunk
        points = batch["points"]
        sigma = sent(chunk.sigmas[step].to(points.dtype), points.device).view(1)
        frames = range(points.shape[3])
        before = uncertain(points[-1], generator)
        cond = scene.conditioning(self.model.config.mask_channels, frames, chunk.frames, before)
        velocity, moved = self.passes(self.model, cond, chunk.frames)(points[step], sigma)
        made = x0_from_velocity(points[step], velocity.float(), sigma)
        return self.aim.loss(made, moved, points[-1], batch["weight"][:, : len(frames)]), made

    def real(self, batch: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
        """Against a real clip: chunk 0 and chunks from anywhere later."""
        scene = self._scene(batch, generator)
        shown = real_window(scene, self.chunk, generator)
        made, moved = window_call(self.model, self.chunk, scene, shown, step, generator, self.passes)
        aim, weight = picked(scene.latents, 2, shown), picked(batch["weight"], 1, shown)
        return self.aim.loss(made, moved, aim, weight)

    def _scene(self, batch: dict[str, Tensor], generator: torch.Generator) -> Scene:
        assert self.model.config.audio is not None
        return Scene.of(batch, self.model.config.audio.window, self.chunk.frames, heard_ahead(generator))


def weighted_square(error: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of error^2 [B, C, F, h, w], weight [B, F, h, w]."""
    return (weight[:, None] * error.square()).mean() / weight.mean()


def weighted_robust(square: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over cells [B, F, h, w] of errors whose squares are `square`, by their pseudo-Huber norm (as for
    consistency models: Song and Dhariwal 2023, arXiv 2310.14189): the square of a small one, a large one itself."""
    robust = 2 * TOLERANCE * ((square + TOLERANCE**2).sqrt() - TOLERANCE)
    return (weight * robust).mean() / weight.mean()
