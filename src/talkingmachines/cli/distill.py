"""`distill`: a bidirectional teacher of many steps into a causal student of few."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from talkingmachines.cli.avatar_options import DeviceOption
from talkingmachines.cli.console import make_folder, progress_bar
from talkingmachines.cli.training_run import (
    CLIPS,
    Run,
    check_known,
    coded_clips,
    loaded,
    run_stage,
    seed_of,
    trained,
    trained_vae,
)
from talkingmachines.errors import ConfigError

if TYPE_CHECKING:
    from talkingmachines.data.calls import CallBatches
    from talkingmachines.dit.model import DiT
    from talkingmachines.training.trajectories import TrajectoryBatches

CPU_TRAJECTORIES, GPU_TRAJECTORIES = 150, 40
"""Batches of clips that the teacher makes."""

_ROUNDED = 0.06
"""Minutes that what is said of a run may be off by."""


def distill(
    *,
    preset: Annotated[str, typer.Option(help="Whose numbers to train.")] = "pocket",
    run: Annotated[Path | None, typer.Option(help="Folder of the run; runs/PRESET unless given.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Train for so long, after the teacher's clips.")] = None,
    steps: Annotated[int | None, typer.Option(help="Train for so many steps.")] = None,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**31,
            help="Of order and noise, and of new clips; that of what is resumed, or of the run's clips, or 0.",
        ),
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help=f"Clips drawn and coded; those of the run, or {CLIPS}.")
    ] = None,
    trajectories: Annotated[
        int | None, typer.Option(min=0, help="Batches of clips that the teacher makes; 0: real clips alone.")
    ] = None,
    matching: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the minutes for distribution matching; 0 leaves it out.")
    ] = 0.4,
) -> None:
    """Distil a preset's teacher into its student: the teacher's clips, the causal start, distribution matching."""
    from talkingmachines.avatar import choose_device
    from talkingmachines.presets import preset as preset_of
    from talkingmachines.weights import shard_paths

    if matching and trajectories == 0:
        raise ConfigError("matching needs the teacher's clips: give --matching 0 as well, or more --trajectories")
    spec = preset_of(preset)
    folder = run or Path("runs") / preset
    make_folder(folder)
    stages = ["student", "student-start"] if matching else ["student-start"]
    seed = seed_of(folder, seed, stages if resume else [])
    job = Run(spec, folder, choose_device(device), minutes, steps, resume, seed, clips)
    if trajectories is None:
        trajectories = CPU_TRAJECTORIES if job.device.type == "cpu" else GPU_TRAJECTORIES
    if trajectories or not shard_paths(job.weights, "teacher"):
        check_known(job, "teacher")  # before clips are coded, which takes minutes
    calls = _calls(job)
    pairs = _trajectories(job, calls, trajectories) if trajectories else None
    _start(job, calls, pairs, 1 - matching)
    if pairs is not None and matching:
        _match(job, calls, pairs, matching)
    else:
        _keep_start(job)
    print(f"weights: {job.weights}")


def _calls(job: Run) -> "CallBatches":
    """Coded clips as calls, in the order of their own seed: the teacher's clips of them stay those with any --seed."""
    from talkingmachines.data.calls import CallBatches
    from talkingmachines.training.distill import DistillRecipe

    chunk, coded = job.preset.chunk, coded_clips(job)
    length = coded.arrays["latents"].shape[1] // chunk.frames * chunk.frames
    heard = DistillRecipe().chunks * chunk.frames
    return CallBatches(coded, length, heard, job.preset.dit.patch[1], batch=job.batch, seed=coded.config.seed)


def _trajectories(job: Run, calls: "CallBatches", count: int) -> "TrajectoryBatches":
    """What the teacher makes of them; kept in the run."""
    from talkingmachines.training.teacher import TeacherRecipe, TeacherStage
    from talkingmachines.training.trajectories import TrajectoryBatches, build_trajectories

    sampling = job.preset.sampling
    stage = TeacherStage(_model(job, "teacher"), TeacherRecipe(), calls, trained_vae(job))
    folder = job.folder / "trajectories"
    with progress_bar("the teacher's clips") as update:
        build_trajectories(
            folder,
            stage,
            calls,
            job.preset.chunk,
            origin=asdict(calls.clips.config) | {"batch": job.batch},
            steps=sampling.steps,
            guidance=sampling.guidance,
            batches=count,
            seed=calls.seed,
            device=job.device,
            progress=update,
        )
    return TrajectoryBatches(folder, calls, job.seed)


def _start(job: Run, calls: "CallBatches", pairs: "TrajectoryBatches | None", share: float) -> None:
    """The causal start, unless it has had its share or matching has begun from it."""
    from talkingmachines.training.checkpoint import fingerprint
    from talkingmachines.training.passes import passes_for
    from talkingmachines.training.teacher import TeacherRecipe
    from talkingmachines.training.trajectories import StartBatches, StartStage
    from talkingmachines.weights import save_weights

    # From real clips alone it learns another encoder or hearing anew, if need be, and the teacher is where it begins.
    model, knows = _learning(job, "teacher", loaded if pairs is None else trained), calls.clips.config.known
    teacher = fingerprint(model)
    if job.resume and _start_is_done(job, share, teacher):
        return
    calls = replace(calls, seed=job.seed + 1)
    batches = calls if pairs is None else StartBatches(pairs, calls)
    stage = StartStage(
        model, job.preset.chunk, batches, trained_vae(job), TeacherRecipe().motion_std, passes_for(job.device)
    )
    part, beside = _part(job, stage.name, share), knows | {"teacher": teacher}
    started, taken = run_stage(stage, part, learning_rate=5e-4, muon=True, to_its_end=True, beside=beside)
    said = job.metadata(knows=knows, started_from=teacher, **taken)
    save_weights(job.weights, "student-start", started, said, eight_bits=True)


def _start_is_done(job: Run, share: float, teacher: str) -> bool:
    """teacher: the fingerprint of the one that there is now."""
    from talkingmachines.training.distill import DistillStage
    from talkingmachines.weights import read_metadata, shard_paths

    if not shard_paths(job.weights, "student-start"):
        return False
    said: Any = read_metadata(job.weights, "student-start")
    if said.get("started_from", teacher) != teacher:
        return False
    if share < 1 and (job.folder / DistillStage.name / "state.pt").exists():
        return True
    if job.steps is not None:
        return said["steps"] >= job.steps
    return said["minutes"] + _ROUNDED > share * (job.minutes or 0)


def _keep_start(job: Run) -> None:
    """The causal start is the student."""
    from talkingmachines.weights import read_metadata, save_weights

    start = read_metadata(job.weights, "student-start")
    said = job.metadata(start=start, knows=start.get("knows"))
    save_weights(job.weights, "student", _model(job, "student-start"), said, eight_bits=True)


def _match(job: Run, calls: "CallBatches", pairs: "TrajectoryBatches", share: float) -> None:
    """Distribution matching."""
    from torch import nn

    from talkingmachines.training.checkpoint import fingerprint
    from talkingmachines.training.distill import DistillBatches, DistillRecipe, DistillStage
    from talkingmachines.training.teacher import TeacherRecipe
    from talkingmachines.training.watch import Watch
    from talkingmachines.weights import save_weights

    recipe = DistillRecipe(guidance=job.preset.sampling.guidance)
    # A student's turn is many passes, so what it is judged on is a smaller batch.
    calls = replace(calls, seed=job.seed + 1, batch=job.batch // 2)
    student, teacher, knows = _learning(job, "student-start"), _model(job, "teacher"), calls.clips.config.known
    stage = DistillStage(
        student,
        _learning(job, "teacher"),
        teacher,
        job.preset.chunk,
        recipe,
        TeacherRecipe(),
        DistillBatches(calls, pairs, recipe.critic_steps),
        trained_vae(job),
        Watch(),
    )
    beside = knows | {"student-start": fingerprint(student), "teacher": fingerprint(teacher)}
    both, taken = run_stage(stage, _part(job, stage.name, share), learning_rate=2e-4, muon=True, beside=beside)
    assert isinstance(both, nn.ModuleDict)
    said = job.metadata(recipe=asdict(recipe), knows=knows, **taken)
    save_weights(job.weights, "student", both["student"], said, eight_bits=True)


def _part(job: Run, stage: str, share: float) -> Run:
    """The run of one stage: its share of the minutes, resumed if it had begun."""
    begun = (job.folder / stage / "state.pt").exists()
    return replace(job, minutes=job.minutes and share * job.minutes, resume=job.resume and begun)


def _learning(job: Run, name: str, load: Callable[..., dict[str, object]] = trained) -> "DiT":
    """A model of the run that learns, but for what it hears with: errors of pictures would make it forget the lips."""
    model = _model(job, name, load).requires_grad_(True)
    model.audio_proj.requires_grad_(False)
    return model


def _model(job: Run, name: str, load: Callable[..., dict[str, object]] = trained) -> "DiT":
    """A model of the run, frozen."""
    from talkingmachines.dit.model import DiT

    model = DiT(job.preset.dit)
    load(job, name, model)
    return model.to(job.device).eval().requires_grad_(False)
