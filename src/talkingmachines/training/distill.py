"""The last stage of distillation: the student's clips are moved to where the teacher finds them likely.

Distribution matching (DMD2, arXiv 2405.14867), from a bidirectional teacher to a causal student (CausVid,
arXiv 2412.07772), on windows of real clips and on the student's own calls (TalkingMachines, arXiv 2506.03099).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from talkingmachines.dit.model import DiT
from talkingmachines.errors import ConfigError
from talkingmachines.flow.chunk import ChunkConfig
from talkingmachines.flow.path import add_noise, x0_from_velocity
from talkingmachines.flow.schedule import training_sigmas
from talkingmachines.training.randomness import normal
from talkingmachines.training.rollout import Batch, Scene, call_grid, heard_ahead, real_window, rollout, window_call
from talkingmachines.training.teacher import TeacherRecipe, TeacherStage
from talkingmachines.training.trajectories import (
    Aim,
    Regression,
    change_inside,
    cut_window,
    weighted_square,
)
from talkingmachines.training.watch import Watch
from talkingmachines.vae.model import CausalVAE


@dataclass(frozen=True)
class DistillRecipe:
    """guidance: scale on the teacher's audio, so that the student needs none.

    critic_steps: updates of the critic for each of the student. dmd, regression: weights of the two losses.
    rollouts: share of the student's updates that learn from its own calls at the end, growing from 0 over the first
    `grow_steps` steps; chunks: how long such a call is at most.
    """

    guidance: float = 2.5
    critic_steps: int = 3
    dmd: float = 1.0
    regression: float = 0.25
    rollouts: float = 0.75
    grow_steps: int = 1000
    chunks: int = 12

    def __post_init__(self) -> None:
        if self.critic_steps < 1 or not 0 <= self.rollouts <= 1 or max(self.dmd, self.regression) <= 0:
            raise ConfigError(f"this recipe cannot distil: {self}")


class DistillBatches(Dataset[Batch]):
    """Batches of calls, each with its step; those of the student's turns with a batch of trajectories, named pair_*."""

    def __init__(self, calls: Dataset[Batch], trajectories: Dataset[Batch], critic_steps: int) -> None:
        self.calls, self.trajectories, self.cycle = calls, trajectories, critic_steps + 1

    def __getitem__(self, step: int) -> Batch:
        batch = self.calls[step] | {"step": torch.tensor(step)}
        if step % self.cycle:
            return batch
        return batch | {f"pair_{name}": tensor for name, tensor in self.trajectories[step // self.cycle].items()}


class DistillStage:
    """Student and critic take turns: one step of the student, then `critic_steps` of the critic.

    The critic learns, by flow matching, what the student makes; the student moves along the difference of what the
    teacher and the critic would make of its noisy clips. Both begin as given. Batches: see DistillBatches.
    """

    name = "student"

    def __init__(
        self,
        student: DiT,
        critic: DiT,
        teacher: DiT,
        chunk: ChunkConfig,
        recipe: DistillRecipe,
        teacher_recipe: TeacherRecipe,
        batches: Dataset[Batch],
        vae: CausalVAE,
        watch: Watch,
    ) -> None:
        self.model: nn.Module = nn.ModuleDict({"student": student, "critic": critic})
        self.student, self.critic = student, critic
        self.chunk, self.recipe, self.batches, self.vae, self.watch = chunk, recipe, batches, vae, watch
        self.regression = Regression(student, chunk, Aim(teacher_recipe.motion_std, change_inside(vae)))
        self.real = TeacherStage(teacher, teacher_recipe, batches, vae)
        self.fake = TeacherStage(critic, teacher_recipe, batches, vae)

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        step = int(batch["step"])
        if step % (self.recipe.critic_steps + 1):
            with torch.no_grad():
                window, _ = self._student_window(batch, step, generator)
            return {"loss": self.fake.losses(window, generator)["loss"]}
        window, learnt = self._student_window(batch, step, generator)
        dmd = self._matching(window, learnt, generator)
        pair = {name.removeprefix("pair_"): tensor for name, tensor in batch.items() if name.startswith("pair_")}
        at = int(torch.randint(self.chunk.steps, (), generator=generator))
        again, made = self.regression.teachers(pair, at, generator)
        real = self.regression.real(batch, at, generator)
        loss = self.recipe.dmd * dmd + self.recipe.regression * (again + real) / 2
        return {"loss": loss, "dmd": dmd, "regression": again, "real": real} | self.watch.see(window, pair, made)

    def _student_window(self, batch: Batch, step: int, generator: torch.Generator) -> tuple[Batch, Tensor]:
        """A window that the teacher can judge, and x0 of its frames that are not given, with gradients.

        The teacher has not seen windows with a jump after chunk 0, so it is shown contiguous ones: from the call's
        beginning, or after a given chunk.
        """
        share = self.recipe.rollouts * min(1.0, step / max(self.recipe.grow_steps, 1))
        at = int(torch.randint(self.chunk.steps, (), generator=generator))
        assert self.student.config.audio is not None
        scene = Scene.of(batch, self.student.config.audio.window, self.chunk.frames, heard_ahead(generator))
        own = float(torch.rand((), generator=generator)) < share
        make = self._from_call if own else self._from_real
        return make(batch, scene, at, generator)

    def _from_real(self, batch: Batch, scene: Scene, at: int, generator: torch.Generator) -> tuple[Batch, Tensor]:
        """C_0 and window - 1 chunks in a row of a real clip, from anywhere in it."""
        frames = self.chunk.frames
        shown = real_window(scene, self.chunk, generator)
        made, _ = window_call(self.student, self.chunk, scene, shown, at, generator)
        if shown[frames] == frames:
            return cut_window(batch, made.detach(), 0, 1), made[:, :, 1:]
        made = made[:, :, frames:]
        return cut_window(batch, made.detach(), shown[frames], frames), made[:, :, frames:]

    def _from_call(self, batch: Batch, scene: Scene, at: int, generator: torch.Generator) -> tuple[Batch, Tensor]:
        """The last chunks of a call of the student's own, of any length."""
        frames, learn = self.chunk.frames, self.chunk.window - 1
        longest = min(self.recipe.chunks, scene.modes.shape[1] // frames)
        chunks = int(torch.randint(learn + 1, longest + 1, (), generator=generator))
        call, learnt = rollout(self.student, self.chunk, scene, chunks, at, learn, generator)
        start = (chunks - learn - 1) * frames
        given = call[:, :, start : start + frames]
        window = cut_window(batch, torch.cat([given, learnt.detach()], 2), start, frames)
        return window, learnt

    def _matching(self, window: Batch, learnt: Tensor, generator: torch.Generator) -> Tensor:
        """0.5 mse to where the difference of the two scores points (DMD2, equation 3; CausVid, equation 4)."""
        known = int(window["known"][0])
        latents = window["latents"]
        with torch.no_grad():
            sigma = training_sigmas(len(latents), self.real.recipe.shift, generator).clamp(0.05, 0.98).to(latents)
            x = add_noise(latents, normal(latents.shape, latents, generator), sigma)
            real = self._real_x0(x, sigma, window)[:, :, known:]
            fake = self._x0(self.critic, self.fake, x, sigma, window, None)[:, :, known:]
            scale = (learnt - real).abs().mean(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1e-4)
            target = learnt - (fake - real) / scale
        return 0.5 * weighted_square(learnt.float() - target.float(), window["weight"][:, known:])

    def _real_x0(self, x: Tensor, sigma: Tensor, window: Batch) -> Tensor:
        assert isinstance(self.real.model, DiT)
        heard = self._x0(self.real.model, self.real, x, sigma, window, None)
        nothing = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        free = self._x0(self.real.model, self.real, x, sigma, window, nothing)
        return free + self.recipe.guidance * (heard - free)

    @staticmethod
    def _x0(model: DiT, stage: TeacherStage, x: Tensor, sigma: Tensor, window: Batch, heard: Tensor | None) -> Tensor:
        return x0_from_velocity(x, model(x, sigma, stage.conditioning(window, heard)).float(), sigma)

    def sample_grid(self, model: nn.Module) -> np.ndarray:
        assert isinstance(model, nn.ModuleDict)
        student = model["student"]
        assert isinstance(student, DiT)
        return call_grid(student, self.chunk, self.batches[0], self.vae)
