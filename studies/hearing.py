"""Hearing goes on under a teacher and a student that have ended: what the shipped weights had last.

    python studies/hearing.py --run RUN --minutes 15

RUN: a folder as of `talkingmachines train`, whose speech is made unless it is there. Hearing and projection begin as
shipped, or as in RUN, and learn what `train audio` teaches; what the transformer is told is held near what it was, so
that teacher and student know it. RUN/weights then has both models with the projection, and hearing and projection.
Their gestures stay as they are. See docs/LOG.md, 2026-11-28.
"""

import argparse
import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from talkingmachines.cli.training_run import Run, first_batches, hearing_config, known_by, run_stage, speech, trained
from talkingmachines.data.batches import MOUTH, SpeechBatches
from talkingmachines.dit.model import DiT
from talkingmachines.presets import preset
from talkingmachines.training.audio import AudioStage, MouthReader, by_latent_frame, changes
from talkingmachines.weights import save_weights

NEAR = 0.02
"""Weight of the tokens' squared difference, over their mean square."""

FITTED = 80
"""Batches from which the linear layer, which is not kept with the weights, is fitted anew."""


class NearStage(AudioStage):
    """As AudioStage, with tokens held near those of the model that it began as."""

    name = "hearing"

    def __init__(self, model: MouthReader, shown: list[dict[str, Tensor]], batches: SpeechBatches, chunk: int) -> None:
        super().__init__(model, batches, chunk)
        self.before = copy.deepcopy(model).eval().requires_grad_(False)
        self.scale = torch.stack([_tokens(self.before, batch).square().mean() for batch in shown]).mean()

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        losses = super().losses(batch, generator)
        far = (_tokens(self.model, batch) - _tokens(self.before, batch)).square().mean() / self.scale
        return losses | {"loss": losses["loss"] + NEAR * far, "far": far.detach()}


def _tokens(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    assert isinstance(model, MouthReader)
    return model.tokens(batch["mel"], changes(batch["gestures"]))


@torch.no_grad()
def fit(model: MouthReader, shown: list[dict[str, Tensor]]) -> None:
    """Set the linear layer by least squares."""
    size = model.out.in_features + 1
    squares, products = torch.zeros(size, size).double(), torch.zeros(size, model.out.out_features).double()
    for batch in shown:
        x = _tokens(model, batch).flatten(2).flatten(0, 1)
        x = torch.cat([x, torch.ones(len(x), 1)], 1).double()
        wanted = torch.cat([batch["mouth"], changes(batch["gestures"])], 2)
        squares += x.T @ x
        products += x.T @ by_latent_frame(wanted).flatten(2).flatten(0, 1).double()
    solved = torch.linalg.solve(squares + 1e-3 * squares.diagonal().mean() * torch.eye(size), products).float()
    model.out.weight.copy_(solved[:-1].T)
    model.out.bias.copy_(solved[-1])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args(argv)
    if (given.run / NearStage.name / "state.pt").exists():
        begun = given.run / NearStage.name
        parser.error(f"{begun} holds a run already; remove it for hearing to go on anew from what is in {given.run}")
    spec = preset("pocket")
    job = Run(spec, given.run, torch.device("cpu"), given.minutes, None, False, given.seed, None)
    given.run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(job.seed)
    models = {name: DiT(spec.dit) for name in ("student", "teacher")}
    said = {name: trained(job, name, model) for name, model in models.items()}
    assert spec.dit.audio is not None
    reader = MouthReader(hearing_config(job), spec.dit.audio, len(MOUTH))
    heard_before = trained(job, "hearing", reader.hearing)
    reader.projection.load_state_dict(models["student"].audio_proj.state_dict())
    bank = speech(job)
    shown = first_batches(SpeechBatches(bank, seed=job.seed + 1), FITTED, job)
    fit(reader, shown)
    stage = NearStage(reader, shown, SpeechBatches(bank, seed=job.seed), spec.chunk.frames)
    further, taken = run_stage(stage, job, learning_rate=5e-4, muon=False)
    assert isinstance(further, MouthReader)
    further_said = job.metadata(**taken, before=heard_before)
    save_weights(job.weights, "hearing", further.hearing, further_said)
    save_weights(job.weights, "audio", further.projection, further_said)
    for name, model in models.items():
        model.audio_proj.load_state_dict(further.projection.state_dict())
        # What was measured of it was not with this hearing.
        kept = {key: value for key, value in said[name].items() if key != "evaluation"}
        kept |= {"hearing": further_said, "knows": known_by(job.weights, job)}
        save_weights(job.weights, name, model, kept, eight_bits=True)


if __name__ == "__main__":
    main()
