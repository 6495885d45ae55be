"""Ways of distilling a student, compared: from one common start, for equal time on one core, measured alike.

    python studies/variants.py --clips RUN/latents --unseen OTHER/latents --out out/variants

--clips, --unseen: folders of coded clips, as `talkingmachines train teacher` makes them in a run that has no hearing
and no autoencoder of its own, for the shipped models know no other; the second of another seed. The start is the
shipped student, teacher and critic the shipped teacher. Rows that are in the results are not run again, so the study
can be stopped between rows and go on. See docs/distillation.md.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calls import call, check
from measure import Yardstick
from report import line
from torch import Tensor, nn
from torch.utils.data import Dataset

from talkingmachines.data.calls import CallBatches
from talkingmachines.data.latents import LatentClips
from talkingmachines.dit.model import DiT
from talkingmachines.encoders.hearing import Hearing
from talkingmachines.errors import ConfigError, TrainingError
from talkingmachines.evaluation.reader import load_reader
from talkingmachines.flow.chunk import ChunkConfig
from talkingmachines.media.files import replacing
from talkingmachines.presets import preset
from talkingmachines.training.checkpoint import fingerprint
from talkingmachines.training.config import LoopConfig
from talkingmachines.training.distill import DistillBatches, DistillRecipe, DistillStage
from talkingmachines.training.loop import Stage, Trainer
from talkingmachines.training.rollout import Batch, Scene
from talkingmachines.training.teacher import TeacherRecipe, TeacherStage
from talkingmachines.training.trajectories import (
    StartStage,
    TrajectoryBatches,
    build_trajectories,
)
from talkingmachines.training.watch import Watch
from talkingmachines.vae.config import VAEConfig
from talkingmachines.vae.model import CausalVAE
from talkingmachines.weights import load_weights, weights_folder

PRESET = preset("pocket")
CPU = torch.device("cpu")
BATCH, MATCHING_BATCH, RATE = 4, 2, 2e-4
TRAJECTORIES = 12
"""Batches of the teacher's clips, for matching; made before its time begins."""


@dataclass(frozen=True)
class Row:
    """own: share of steps that learn from the student's own calls; the others learn from windows of real clips.

    dmd: weight of distribution matching, which comes with its own recipe; None is the regression alone.
    """

    said: str
    steps: int = 2
    own: float = 0.0
    clean: bool = False
    dmd: float | None = None
    trained: bool = True

    @property
    def chunk(self) -> ChunkConfig:
        return replace(PRESET.chunk, steps=self.steps)


ROWS = {
    "start": Row("the start", trained=False),
    "real": Row("real windows only"),
    "mixed": Row("+ own rollouts, 0.75", own=0.75),
    "own": Row("full self-rollout", own=1.0),
    "matching": Row("with DMD", own=0.75, dmd=1.0),
    "one-step": Row("1 step", steps=1),
    "four-steps": Row("4 steps", steps=4),
    "clean": Row("clean history, full self-rollout", own=1.0, clean=True),
    "start-clean": Row("the start, clean history", clean=True, trained=False),
    "no-matching": Row("as with DMD, at weight 0", own=0.75, dmd=0.0),
}
"""The most important first."""


class Regression(StartStage):
    """The student learns clips: from windows of real ones, or from calls of its own.

    A call of its own hears the speech and gestures of a clip from its beginning, and they say nearly all; so what it
    should have shown is that clip, whatever its own past has become. It cannot be longer than the clip.
    """

    def __init__(self, model: DiT, row: Row, batches: Dataset[Batch], vae: CausalVAE) -> None:
        super().__init__(model, row.chunk, batches, vae, TeacherRecipe().motion_std)
        self.row = row

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(self.model, DiT)
        step = int(torch.randint(self.chunk.steps, (), generator=generator))
        if float(torch.rand((), generator=generator)) >= self.row.own:
            return {"loss": self.regression.real(batch, step, generator)}
        scene = scene_of(batch)
        chunks = scene.latents.shape[2] // self.chunk.frames
        _, made, moved = call(self.model, self.chunk, scene, chunks, generator, clean=self.row.clean, learn=step)
        return {"loss": self.regression.aim.loss(made, moved, scene.latents, batch["weight"])}


def scene_of(batch: Batch) -> Scene:
    assert PRESET.dit.audio is not None
    return Scene.of(batch, PRESET.dit.audio.window, PRESET.chunk.frames)


def shipped(name: str, learns: bool = False) -> DiT:
    """A shipped model; one that learns does not unlearn to hear."""
    model = DiT(PRESET.dit)
    load_weights(weights_folder("pocket"), name, model)
    model.eval().requires_grad_(learns).audio_proj.requires_grad_(False)
    return model


class Study:
    def __init__(self, clips: LatentClips, unseen: LatentClips, measured: int, out: Path, minutes: float) -> None:
        assert PRESET.dit.audio and PRESET.hearing and isinstance(PRESET.vae, VAEConfig)
        self.clips, self.out, self.minutes = clips, out, minutes
        self.vae = CausalVAE(PRESET.vae)
        load_weights(weights_folder("pocket"), "vae", self.vae)
        self.vae.eval().requires_grad_(False)
        hearing = Hearing(PRESET.hearing)
        load_weights(weights_folder("pocket"), "hearing", hearing)
        knows = {"hearing": fingerprint(hearing), "encoder": fingerprint(self.vae.coders)}
        if not clips.config.known == unseen.config.known == knows:
            raise ConfigError("--clips and --unseen must be of the shipped hearing and encoder: no row knows another")
        self.yardstick = Yardstick(
            unseen,
            measured,
            self.vae,
            load_reader(),
            PRESET.chunk.frames,
            PRESET.dit.audio.window,
            TeacherRecipe().motion_std,
        )
        few = {
            name: tensor[:1, ..., 4:20, 8:24] for name, tensor in self.yardstick.batches[0].items() if tensor.ndim > 3
        }
        told = {name: self.yardstick.batches[0][name][:1] for name in ("features", "modes")}
        check(shipped("student"), PRESET.chunk, scene_of(few | told))

    def calls(self, heard: int, batch: int, seed: int = 0) -> CallBatches:
        length = self.clips.arrays["latents"].shape[1] // PRESET.chunk.frames * PRESET.chunk.frames
        return CallBatches(self.clips, length, max(heard, length), PRESET.dit.patch[1], batch=batch, seed=seed)

    def run(self, name: str, row: Row) -> dict[str, Any]:
        """Train a row, and measure it. One that fails is measured as it was then."""
        student = shipped("student", learns=True)
        said: dict[str, Any] = {}
        if row.trained:
            averaged, said = self._train(self._stage(student, row))
            best = averaged["student"] if isinstance(averaged, nn.ModuleDict) else averaged
            assert isinstance(best, DiT)
            student = best
        torch.save(student.state_dict(), self.out / f"{name}.pt")
        return asdict(row) | said | self.yardstick.measure(student, row.chunk, row.clean)

    def _stage(self, student: DiT, row: Row) -> Stage:
        if row.dmd is None:
            return Regression(student, row, self.calls(0, BATCH), self.vae)
        return self._matching(student, row, row.dmd)

    def _matching(self, student: DiT, row: Row, dmd: float) -> Stage:
        """As `distill` does it, but that own calls have their full share from the beginning."""
        teacher, sampling = shipped("teacher"), PRESET.sampling
        recipe = DistillRecipe(guidance=sampling.guidance, dmd=dmd, rollouts=row.own, grow_steps=0)
        pairs, folder = self.calls(0, BATCH), self.out / "trajectories"
        build_trajectories(
            folder,
            TeacherStage(teacher, TeacherRecipe(), pairs, self.vae),
            pairs,
            row.chunk,
            origin=asdict(self.clips.config) | {"batch": BATCH},
            steps=sampling.steps,
            guidance=sampling.guidance,
            batches=TRAJECTORIES,
            seed=0,
            device=CPU,
            progress=lambda done, total: None,
        )
        calls = self.calls(recipe.chunks * row.chunk.frames, MATCHING_BATCH, seed=1)
        batches = DistillBatches(calls, TrajectoryBatches(folder, pairs), recipe.critic_steps)
        critic = shipped("teacher", learns=True)
        return DistillStage(student, critic, teacher, row.chunk, recipe, TeacherRecipe(), batches, self.vae, Watch())

    def _train(self, stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
        """For so many minutes of one core, whatever else runs on the machine; the rate falls all the while."""
        config = LoopConfig(minutes=self.minutes, learning_rate=RATE, muon=True, warmup=10, decay=1.0)
        trainer, began, failed = Trainer(stage, config, self.out, CPU), time.process_time(), None
        losses: list[dict[str, float]] = []
        for step in count():
            try:
                losses.append(trainer.train_step(stage.batches[step]).read())
            except TrainingError as error:
                failed = str(error)
                break
            trainer.elapsed = time.process_time() - began
            if config.progress(trainer.step, trainer.elapsed) >= 1:
                break
        end = losses[len(losses) * 3 // 4 :]
        watched = sorted({name for metrics in end for name in metrics} - {"grad_norm"})
        return trainer.ema.model, {
            "updates": trainer.step,
            "minutes": trainer.elapsed / 60,
            "failed": failed,
            "end": {name: float(np.mean([m[name] for m in end if name in m])) for name in watched},
        }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--unseen", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0, help="of one core, for each row")
    parser.add_argument("--measured", type=int, default=40, help="clips of --unseen")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    kept = given.out / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    study = Study(LatentClips(given.clips), LatentClips(given.unseen), given.measured, given.out, given.minutes)
    for name in given.rows:
        if name in results:
            continue
        results[name] = study.run(name, ROWS[name])
        with replacing(kept) as partial:
            partial.write_text(json.dumps(results, indent=1))
        with (given.out / "progress.txt").open("a") as lines:
            lines.write(f"{name}: {line(results[name])}\n")


if __name__ == "__main__":
    main()
