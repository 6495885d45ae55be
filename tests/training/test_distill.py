"""Distillation: turns, gradients, the watch."""

from pathlib import Path

import pytest
import torch
from distill_models import CHUNK, PRESET, Calls, model, vae

from talkingmachines.errors import ConfigError, TrainingError
from talkingmachines.flow.sampler import sample
from talkingmachines.flow.schedule import sampling_sigmas
from talkingmachines.precision import fast_autocast
from talkingmachines.training.distill import DistillBatches, DistillRecipe, DistillStage
from talkingmachines.training.teacher import WARP, TeacherRecipe, TeacherStage
from talkingmachines.training.trajectories import (
    TOLERANCE,
    Aim,
    StartBatches,
    StartStage,
    TrajectoryBatches,
    build_trajectories,
    change_inside,
    cut_window,
)
from talkingmachines.training.watch import Watch


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory: pytest.TempPathFactory) -> TrajectoryBatches:
    folder = tmp_path_factory.mktemp("trajectories")
    build(folder, 2)
    return TrajectoryBatches(folder, Calls())


def teacher_stage(seed: int = 1) -> TeacherStage:
    return TeacherStage(model(seed).requires_grad_(False), TeacherRecipe(), Calls(), vae())


def build(
    folder: Path, batches: int, guidance: float = 2.0, teacher: int = 1, clips: str = "these", steps: int = 4
) -> None:
    build_trajectories(
        folder,
        teacher_stage(teacher),
        Calls(),
        CHUNK,
        origin={"clips": clips},
        steps=steps,
        guidance=guidance,
        batches=batches,
        seed=0,
        device=torch.device("cpu"),
        progress=lambda done, total: None,
    )


def stage(trajectories: TrajectoryBatches, **recipe: float) -> DistillStage:
    made = DistillRecipe(**recipe)  # type: ignore[arg-type]
    batches = DistillBatches(Calls(), trajectories, made.critic_steps)
    frozen = model(1).requires_grad_(False)
    return DistillStage(model(1), model(1), frozen, CHUNK, made, TeacherRecipe(), batches, vae(), Watch())


def test_trajectories_end_in_the_teachers_clip_and_are_made_once(tmp_path: Path) -> None:
    build(tmp_path, 1, guidance=1.0)
    kept = (tmp_path / "000000.safetensors").stat().st_mtime_ns
    build(tmp_path, 2, guidance=1.0)
    assert (tmp_path / "000000.safetensors").stat().st_mtime_ns == kept
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["000000.safetensors", "000001.safetensors", "origin.json"]
    made = TrajectoryBatches(tmp_path, Calls())
    batch = next(made[step] for step in range(2) if torch.equal(made[step]["reference"], Calls()[0]["reference"]))
    points = batch["points"]
    teacher = teacher_stage()
    cond = teacher.conditioning(cut_window(batch, batch["latents"][:, :, : points.shape[3]], 0, 1), None)
    with torch.no_grad(), fast_autocast(torch.device("cpu")):
        noise = torch.randn(points[0].shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(points[0], noise, atol=2e-3, rtol=2e-3)
        clip = sample(teacher.model, noise, sampling_sigmas(4, CHUNK.shift), cond)  # type: ignore[arg-type]
    assert len(points) == CHUNK.steps + 1
    torch.testing.assert_close(points[-1], clip, atol=0.02, rtol=0.02)


def test_clips_of_another_teacher_are_refused(tmp_path: Path) -> None:
    build(tmp_path, 1)
    with pytest.raises(ConfigError, match="another teacher"):
        build(tmp_path, 1, teacher=2)
    with pytest.raises(ConfigError, match="another teacher"):
        build(tmp_path, 1, clips="others")
    with pytest.raises(ConfigError, match="another teacher"):
        build(tmp_path, 2, guidance=1.0)
    with pytest.raises(ConfigError, match="another teacher"):
        build(tmp_path, 1, steps=8)
    build(tmp_path, 1)


def test_a_student_that_is_its_teachers_equal_gets_no_gradient_from_matching(trajectories: TrajectoryBatches) -> None:
    """Where critic and teacher agree, there is nowhere to go."""
    equal = stage(trajectories, guidance=1.0)
    window, learnt = equal._student_window(Calls()[0], 0, torch.Generator().manual_seed(0))
    equal._matching(window, learnt, torch.Generator().manual_seed(0)).backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-5 for p in equal.student.parameters())


def test_matching_moves_towards_the_teacher_and_away_from_the_critic(trajectories: TrajectoryBatches) -> None:
    moved = stage(trajectories, guidance=1.0)
    with torch.no_grad():
        moved.critic.head.head.bias += 0.5
    window, learnt = moved._student_window(Calls()[0], 0, torch.Generator().manual_seed(0))
    learnt.retain_grad()
    moved._matching(window, learnt, torch.Generator().manual_seed(0)).backward()
    assert learnt.grad is not None and learnt.grad.mean() > 0  # the critic is higher, so x0 should fall


@pytest.mark.parametrize("rollouts", [0.0, 1.0])
def test_turns_touch_only_whose_turn_it_is(trajectories: TrajectoryBatches, rollouts: float) -> None:
    turns = stage(trajectories, critic_steps=2, rollouts=rollouts, grow_steps=0)
    for step in range(6):
        turns.model.zero_grad()
        metrics = turns.losses(turns.batches[step], torch.Generator().manual_seed(step))
        metrics["loss"].backward()
        student, critic = (
            any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
            for part in (turns.student, turns.critic)
        )
        assert (student, critic) == ((True, False) if step % 3 == 0 else (False, True))
        assert all(p.grad is None for p in turns.real.model.parameters())
        assert ("dmd" in metrics) == (step % 3 == 0)
        assert all(torch.isfinite(value) for value in metrics.values())


def test_change_inside_is_that_of_the_decoded_frames() -> None:
    """Of latents that the linear path alone decodes."""
    coder = vae()
    for name, parameter in coder.decoder.named_parameters():
        if not name.startswith("linear"):
            torch.nn.init.zeros_(parameter)
    coder.latent_std.uniform_(0.5, 2)
    one, other = torch.randn(2, 1, PRESET.dit.latent_channels, 3, 4, 4)
    one, other = (latents.expand(-1, -1, 3, -1, -1) for latents in (one[None, 0], other[None, 0]))
    frames = (coder.decode(one) - coder.decode(other))[:, :, 1:5]
    changed = torch.einsum("kc,bcfhw->bkfhw", change_inside(coder), one - other)[:, :, 1]
    unit = coder.decoder.linear.weight.flatten(1).mul(coder.latent_std).square().sum(0).mean()
    expected = frames.diff(dim=2).square().sum() / unit
    torch.testing.assert_close(changed.square().sum(), expected, atol=1e-3, rtol=1e-3)


def test_small_errors_count_their_square_and_large_ones_themselves() -> None:
    aim, still = Aim(1.0, torch.zeros(4, 4)), torch.zeros(1, 4, 3, 2, 2)
    weight = torch.ones(1, 3, 2, 2)
    for error, expected in ((1e-3, 1e-6), (10.0, 2 * TOLERANCE * 10)):
        assert float(aim.loss(still + error, None, still, weight)) == pytest.approx(expected, rel=0.02)
        moved = aim.loss(still, still + error, still, weight)
        assert float(moved) == pytest.approx(WARP * expected, rel=0.02)


def test_regression_alone_learns_the_teachers_clips(trajectories: TrajectoryBatches) -> None:
    torch.manual_seed(0)
    start = StartStage(model(1), CHUNK, StartBatches(trajectories, Calls()), vae(), 0.3)
    optimizer = torch.optim.AdamW(start.model.parameters(), lr=2e-3)
    losses = []
    for step in range(30):
        loss = start.regression.teachers(trajectories[0], step % 2, torch.Generator())[0]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert start.sample_grid(start.model).shape[-1] == 3


def test_the_start_learns_from_the_teachers_clips_and_from_real_ones(trajectories: TrajectoryBatches) -> None:
    start = StartStage(model(1), CHUNK, StartBatches(trajectories, Calls()), vae(), 0.3)
    assert ["points" in start.batches[step] for step in range(5)] == [True, False, False, False, True]
    optimizer = torch.optim.AdamW(start.model.parameters(), lr=2e-3)
    losses = []
    for step in range(40):
        loss = start.losses(Calls()[0], torch.Generator().manual_seed(step % 2))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    assert torch.isfinite(start.losses(start.batches[0], torch.Generator())["loss"])


def test_a_still_student_stops_the_run(trajectories: TrajectoryBatches) -> None:
    pair = trajectories[0]
    still = pair["reference"][:, :, None].expand_as(pair["points"][-1])
    watch = Watch(after=5)
    with pytest.raises(TrainingError, match="still picture"):
        for _ in range(100):
            watch.see({"latents": still, "reference": pair["reference"]}, pair, pair["points"][-1])
    moving = Watch(after=1)
    seen = moving.see({"latents": pair["points"][-1], "reference": pair["reference"]}, pair, pair["points"][-1])
    assert seen["motion"] == 1 and seen["lips"] > 0.999 and seen["drift"] == pytest.approx(1, abs=0.05)


def test_recipes_that_cannot_work() -> None:
    for wrong in ({"critic_steps": 0}, {"rollouts": 1.5}, {"dmd": 0.0, "regression": 0.0}):
        with pytest.raises(ConfigError, match="cannot distil"):
            DistillRecipe(**wrong)  # type: ignore[arg-type]


def test_preset_fits_its_teacher() -> None:
    assert PRESET.chunk.frames * PRESET.chunk.window <= PRESET.sampling.window
