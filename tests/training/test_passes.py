"""Recorded passes: the same losses and gradients, recorded once for each shape."""

from collections.abc import Callable

import pytest
import torch
from distill_models import CHUNK, Calls, model, vae
from recordable import Recordable, without_autocast
from torch import Tensor, nn

from talkingmachines.dit.model import DiT
from talkingmachines.training.passes import Passes, RecordedPasses, plain_passes
from talkingmachines.training.teacher import TeacherRecipe, TeacherStage
from talkingmachines.training.trajectories import StartStage, teacher_window

VAE = vae()


class Recorder:
    """A record that runs the module itself, and counts."""

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
        assert torch.is_grad_enabled()
        self.shapes.append(inputs[0].shape)
        return module


def loss_and_gradients(learning: DiT, passes: Passes, student: bool, seed: int) -> list[Tensor]:
    learning.zero_grad()
    if student:
        stage = StartStage(learning, CHUNK, Calls(), VAE, 0.3, passes)
        loss = stage.losses(Calls()[0], torch.Generator().manual_seed(seed))["loss"]
    else:
        teacher = TeacherStage(learning, TeacherRecipe(), Calls(), VAE, passes)
        loss = teacher.losses(teacher_window(Calls()[0], CHUNK), torch.Generator().manual_seed(seed))["loss"]
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in learning.parameters() if p.grad is not None)]


@pytest.mark.parametrize("student", [False, True], ids=["teacher", "student"])
def test_losses_and_gradients_are_the_same(student: bool) -> None:
    recorder, learning = Recorder(), model()
    recorded = RecordedPasses(recorder)
    for seed in range(4):
        wanted = loss_and_gradients(learning, plain_passes, student, seed)
        made = loss_and_gradients(learning, recorded, student, seed)
        assert len(made) == len(wanted) > 50
        for one, other in zip(made, wanted, strict=True):
            torch.testing.assert_close(one, other)
    assert len(recorder.shapes) == 1


def test_each_shape_is_recorded() -> None:
    recorder, learning = Recorder(), model()
    stage = TeacherStage(learning, TeacherRecipe(), Calls(), VAE, RecordedPasses(recorder))
    window = teacher_window(Calls()[0], CHUNK)
    half = {name: tensor[:1] for name, tensor in window.items()}
    for batch in (window, half, window, half):
        stage.losses(batch, torch.Generator().manual_seed(0))
    assert recorder.shapes == [window["latents"].shape, half["latents"].shape]


@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "backward"])
def test_what_is_recorded_takes_nothing_from_the_processor(gradients: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    without_autocast(monkeypatch)

    def on_the_device_alone(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            with Recordable():
                made = module(*inputs)
                if gradients:
                    sum(tensor.float().sum() for tensor in made).backward()  # type: ignore[union-attr]
                return made

        return run

    there = {name: tensor.to("meta") for name, tensor in teacher_window(Calls()[0], CHUNK).items()}
    learning = model().to("meta")
    stage = TeacherStage(learning, TeacherRecipe(), Calls(), VAE)
    for chunk in (None, CHUNK.frames):
        passes = RecordedPasses(on_the_device_alone)(learning, stage.conditioning(there, None), chunk)
        velocity, moved = passes(there["latents"], torch.ones(len(there["latents"]), device="meta"))
        assert velocity.is_meta and moved is not None and moved.is_meta
