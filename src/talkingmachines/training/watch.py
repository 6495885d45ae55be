"""What a distillation is watched for: a student that stands still, or drifts away from its picture."""

from dataclasses import dataclass

from torch import Tensor

from talkingmachines.errors import TrainingError
from talkingmachines.training.figures import correlation
from talkingmachines.training.rollout import Batch

MEMORY = 0.95
"""Share of the running averages that one step leaves."""


@dataclass
class Watch:
    """Running averages over the student's steps; they judge, and change nothing. A run that goes on begins them anew.

    motion: how much the student's latents change from frame to frame, over the teacher's. lips: r of the mouth's
    latents, without the reference, between the student's and the teacher's clip of the same speech and noise.
    drift: how far the mean picture of a window is from the reference, over the same of the teacher's first windows.
    """

    least_motion: float = 0.2
    after: int = 50
    motion: float = 1.0
    steps: int = 0

    def see(self, window: Batch, pair: Batch, made: Tensor) -> dict[str, Tensor]:
        """window: of the student. pair: trajectories; made: the student's latents [B, C, F, h, w] for them.

        Raises TrainingError when the student has collapsed to a still picture.
        """
        latents, reference, teacher = window["latents"], window["reference"], pair["points"][-1]
        ratio = _motion(latents) / _motion(teacher).clamp(min=1e-6)
        own, usual = (_distance(x, x0) for x, x0 in ((latents, reference), (teacher, teacher[:, :, 0])))
        self.motion = MEMORY * self.motion + (1 - MEMORY) * float(ratio)
        self.steps += 1
        if self.steps >= self.after and self.motion < self.least_motion:
            raise TrainingError(
                f"the student has collapsed to a still picture: it moves {self.motion:.2f} of what the teacher does; "
                "begin anew with a smaller --matching, or without it (0)"
            )
        lips = _lips(made.detach().float(), teacher, pair["weight"])
        return {"motion": ratio, "lips": lips, "drift": own / usual.clamp(min=1e-6)}


def _motion(latents: Tensor) -> Tensor:
    return latents.diff(dim=2).abs().mean()


def _distance(latents: Tensor, reference: Tensor) -> Tensor:
    return (latents.mean(2) - reference).square().mean().sqrt()


def _lips(made: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """weight: [B, F, h, w]; the mouth is where its least over time is greatest."""
    least = weight.amin(1)
    mouth = (least >= least.max())[:, None, None].expand_as(made[:, :, 1:])
    pair = [(x[:, :, 1:] - x[:, :, :1])[mouth] for x in (made, teacher)]
    return correlation(*pair)
