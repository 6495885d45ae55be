"""`train STAGE`: the recipe of the shipped weights, stage by stage."""

import math
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from talkingmachines.cli.avatar_options import DeviceOption
from talkingmachines.cli.console import make_folder
from talkingmachines.cli.training_run import (
    CLIPS,
    Run,
    check_known,
    coded_clips,
    first_batches,
    hearing_config,
    run_stage,
    seed_of,
    speech,
    trained,
    trained_hearing,
    trained_projection,
    trained_vae,
    vae_config,
)
from talkingmachines.errors import ConfigError

if TYPE_CHECKING:
    from talkingmachines.data.batches import VideoBatches

_GESTURE_FRAMES = 251
"""Of the tracks that gestures are learned from: several blinks long."""

_CALIBRATED = 8
"""Batches by which it is measured how far drawn gestures go."""

_PCA_CLIPS = 120
"""From which the autoencoder's linear start is computed."""

_SCALED = 16
"""Batches of whole pictures by whose latents the autoencoder's are scaled."""

_AFTER_VAE = {"encoder": "correction", "decoder": "decoder"}
"""Stages that go on with the autoencoder, and where it is said of it what they did."""

_READ_CLIPS = 40
"""By which it is measured how well faces are read."""


class StageName(StrEnum):
    """The stages, in the order of the recipe, with `distill` before `decoder`. `finder` needs no other, and `reader` is
    only for `eval`."""

    VAE = "vae"
    ENCODER = "encoder"
    AUDIO = "audio"
    GESTURES = "gestures"
    TEACHER = "teacher"
    DECODER = "decoder"
    FINDER = "finder"
    READER = "reader"


def train(
    *,
    stage: Annotated[
        StageName, typer.Argument(help="In this order, `distill` before decoder; the last three may be left out.")
    ],
    preset: Annotated[str, typer.Option(help="Whose numbers to train.")] = "pocket",
    run: Annotated[Path | None, typer.Option(help="Folder of the run; runs/PRESET unless given.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Train for so long.")] = None,
    steps: Annotated[int | None, typer.Option(help="Train for so many steps.")] = None,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**31,
            help="Of weights, order and noise, and of new clips; that of what is resumed, or of the run's clips, or 0.",
        ),
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help=f"Clips drawn and coded; those of the run, or {CLIPS}.")
    ] = None,
) -> None:
    """Train a preset from nothing, stage by stage."""
    from talkingmachines.avatar import choose_device
    from talkingmachines.presets import preset as preset_of
    from talkingmachines.weights import drop_figures

    spec = preset_of(preset)
    folder = run or Path("runs") / preset
    make_folder(folder)
    seed = seed_of(folder, seed, [stage] if resume else [])
    job = Run(spec, folder, choose_device(device), minutes, steps, resume, seed, clips)
    {
        StageName.VAE: _vae,
        StageName.ENCODER: _encoder,
        StageName.AUDIO: _audio,
        StageName.GESTURES: _gestures,
        StageName.TEACHER: _teacher,
        StageName.DECODER: _decoder,
        StageName.FINDER: _finder,
        StageName.READER: _reader,
    }[stage](job)
    if stage != StageName.READER:  # `eval` takes that of the package
        drop_figures(job.weights)
    print(f"weights: {job.weights}")


def _vae(job: Run) -> None:
    """Stage 1: the autoencoder, on freshly drawn clips."""
    import torch

    from talkingmachines.data.batches import VideoBatches
    from talkingmachines.training.autoencoder import AutoencoderRecipe, AutoencoderStage, calibrate
    from talkingmachines.vae.model import CausalVAE
    from talkingmachines.vae.pixels import to_unit
    from talkingmachines.weights import read_metadata, save_weights, shard_paths

    said = read_metadata(job.weights, "vae") if job.resume and shard_paths(job.weights, "vae") else {}
    if lost := [f"`train {stage}`" for stage, key in _AFTER_VAE.items() if key in said]:
        raise ConfigError(
            f"the autoencoder in {job.weights} has what {' and '.join(lost)} did, which would be lost: choose another "
            "--run, or remove it to go on all the same"
        )
    torch.manual_seed(job.seed)
    model, recipe = CausalVAE(vae_config(job)), AutoencoderRecipe()
    batches = _squares(job, job.seed)
    stage = AutoencoderStage(model, recipe, batches)
    if not job.resume:
        shown = first_batches(batches, math.ceil(_PCA_CLIPS * job.cuts / job.batch), job)
        stage.start(batch["video"] for batch in shown)
    coder, taken = run_stage(stage, job, learning_rate=1e-3, muon=False)
    assert isinstance(coder, CausalVAE)
    size = job.preset.size
    whole = VideoBatches(batches.bank, size, size, batch=4, seed=job.seed + 1)
    with torch.no_grad():
        latents = [coder.encode(to_unit(batch["video"])) for batch in first_batches(whole, _SCALED, job)]
    calibrate(coder, torch.cat(latents))
    save_weights(job.weights, "vae", coder, job.metadata(recipe=asdict(recipe), **taken))


def _encoder(job: Run) -> None:
    """The autoencoder's encoder, told what the decoder misses: the decoder stays as it is."""
    import torch

    from talkingmachines.training.autoencoder import AutoencoderRecipe, EncoderStage
    from talkingmachines.vae.model import CausalVAE
    from talkingmachines.weights import save_weights

    torch.manual_seed(job.seed)
    model, recipe = CausalVAE(vae_config(job)), AutoencoderRecipe()
    before = trained(job, "vae", model)
    batches = _squares(job, job.seed + 3)
    coder, taken = run_stage(EncoderStage(model, recipe, batches), job, learning_rate=1.5e-3, muon=False)
    save_weights(job.weights, "vae", coder, before | {"correction": job.metadata(recipe=asdict(recipe), **taken)})


def _squares(job: Run, seed: int) -> "VideoBatches":
    """Of freshly drawn clips, those that an autoencoder learns from."""
    from talkingmachines.data.batches import VideoBatches

    size = job.preset.size
    return VideoBatches(speech(job), size, min(size, 128), batch=job.batch, seed=seed, cuts=job.cuts)


def _decoder(job: Run) -> None:
    """The autoencoder's decoder alone, on what the student makes: what was trained on its latents stays good."""
    from talkingmachines.data.calls import DrawnCalls
    from talkingmachines.dit.model import DiT
    from talkingmachines.training.autoencoder import AutoencoderRecipe
    from talkingmachines.training.checkpoint import fingerprint
    from talkingmachines.training.decoder import DecoderStage
    from talkingmachines.vae.model import CausalVAE
    from talkingmachines.weights import save_weights

    check_known(job, "student")  # before clips are coded, which takes minutes
    chunk, patch = job.preset.chunk, job.preset.dit.patch[1]
    frames = chunk.frames * chunk.window
    # A GPU makes the student's calls of twice as many in the same time.
    batch = job.batch // 2 if job.device.type == "cpu" else job.batch
    batches = DrawnCalls(
        coded_clips(job),
        frames,
        frames,
        patch,
        batch=batch,
        seed=job.seed + 2,
        bank=speech(job),
        cuts=job.cuts,
    )
    student, coder = DiT(job.preset.dit), CausalVAE(vae_config(job))
    # What moves inside a latent frame is what the decoder loses most of.
    recipe = AutoencoderRecipe(motion=4.0, spread=18.0)
    trained(job, "student", student)
    before = trained(job, "vae", coder)
    student = student.to(job.device).eval().requires_grad_(False)
    if not job.resume:  # earlier clips do not say of which decoder they are: now it would be another
        batches.check(coder.to(job.device))
    stage = DecoderStage(coder, student, chunk, recipe, batches)
    beside = {"student": fingerprint(student)}
    further, taken = run_stage(stage, job, learning_rate=5e-4, muon=False, beside=beside)
    save_weights(job.weights, "vae", further, before | {"decoder": job.metadata(recipe=asdict(recipe), **taken)})


def _audio(job: Run) -> None:
    """Stage 2: hearing and the audio projection, on speech and the mouths that speak it, without pictures."""
    import torch

    from talkingmachines.data.batches import MOUTH, SpeechBatches
    from talkingmachines.training.audio import AudioStage, MouthReader
    from talkingmachines.weights import save_weights

    torch.manual_seed(job.seed)
    assert job.preset.dit.audio is not None
    model = MouthReader(hearing_config(job), job.preset.dit.audio, len(MOUTH))
    stage = AudioStage(model, SpeechBatches(speech(job), seed=job.seed), job.preset.chunk.frames)
    reader, taken = run_stage(stage, job, learning_rate=1e-3, muon=False)
    assert isinstance(reader, MouthReader)
    save_weights(job.weights, "hearing", reader.hearing, job.metadata(**taken))
    save_weights(job.weights, "audio", reader.projection, job.metadata(**taken))


def _gestures(job: Run) -> None:
    """Stage 3: what a character does beside speaking, on motion tracks and what is heard with them."""
    import torch

    from talkingmachines.data.batches import SpeechBatches
    from talkingmachines.encoders.gestures import Gestures
    from talkingmachines.training.checkpoint import fingerprint
    from talkingmachines.training.gestures import GesturesStage
    from talkingmachines.weights import save_weights

    hearing = trained_hearing(job)
    torch.manual_seed(job.seed)
    assert job.preset.gestures is not None
    batches = SpeechBatches(speech(job), frames=_GESTURE_FRAMES, seed=job.seed)
    model = Gestures(job.preset.gestures)
    shown = first_batches(batches, _CALIBRATED, job)
    model.measure(torch.cat([batch["gestures"] for batch in shown[:4]]).cpu())
    stage, beside = GesturesStage(model, hearing, batches), {"hearing": fingerprint(hearing)}
    gestures, taken = run_stage(stage, job, learning_rate=1e-3, muon=False, beside=beside)
    assert isinstance(gestures, Gestures)
    tracks = torch.cat([batch["gestures"] for batch in shown])
    with torch.no_grad():
        heard = hearing.of_mel(torch.cat([batch["mel"] for batch in shown]))
    gestures.calibrate(heard, tracks, torch.Generator(job.device).manual_seed(job.seed))
    save_weights(job.weights, "gestures", gestures, job.metadata(**taken))


def _teacher(job: Run) -> None:
    """Stage 4: the bidirectional teacher, on clips coded once by the autoencoder."""
    import torch

    from talkingmachines.data.windows import TeacherBatches
    from talkingmachines.dit.model import DiT
    from talkingmachines.training.passes import passes_for
    from talkingmachines.training.teacher import TeacherRecipe, TeacherStage, start_warp
    from talkingmachines.weights import save_weights

    sampling = job.preset.sampling
    projection = trained_projection(job)
    coded = coded_clips(job)
    patch = job.preset.dit.patch[1]
    batches = TeacherBatches(coded, sampling.window, sampling.history, patch, batch=job.batch, seed=job.seed)
    torch.manual_seed(job.seed)
    recipe = TeacherRecipe()
    model = DiT(job.preset.dit)
    # It stays as it was taught: errors of pictures would make it forget the lips.
    model.audio_proj.requires_grad_(False).load_state_dict(projection)
    vae = trained_vae(job)
    start_warp(model, vae)
    stage = TeacherStage(model, recipe, batches, vae, passes_for(job.device))
    knows = coded.config.known
    teacher, taken = run_stage(stage, job, learning_rate=1.5e-3, muon=True, beside=knows)
    said = job.metadata(recipe=asdict(recipe), clips=coded.clips, knows=knows, **taken)
    save_weights(job.weights, "teacher", teacher, said, eight_bits=True)


def _finder(job: Run) -> None:
    """What finds eyes and mouth in a picture, so that it can be cut as the preset wants it."""
    import torch

    from talkingmachines.data.faces import FaceBatches
    from talkingmachines.evaluation.finding import finding_accuracy
    from talkingmachines.framing.finder import FaceFinder
    from talkingmachines.training.finder import FinderStage
    from talkingmachines.weights import save_weights

    torch.manual_seed(job.seed)
    stage = FinderStage(FaceFinder(), FaceBatches(seed=job.seed))
    finder, taken = run_stage(stage, job, learning_rate=2e-3, muon=False)
    assert isinstance(finder, FaceFinder)
    heldout = finding_accuracy(finder.cpu().eval())
    save_weights(job.weights, "finder", finder, job.metadata(heldout=heldout, **taken))
    print(f"held-out accuracy: {heldout}")


def _reader(job: Run) -> None:
    """The instrument of `eval`: reads mouth, eyes and head from a picture of a drawn face."""
    import torch

    from talkingmachines.cli.eval import heldout_speech
    from talkingmachines.evaluation.reader import FaceReader
    from talkingmachines.evaluation.reader_stage import ReaderBatches, ReaderRecipe, ReaderStage, drawn_accuracy
    from talkingmachines.weights import save_weights

    torch.manual_seed(job.seed)
    recipe = ReaderRecipe()
    stage = ReaderStage(FaceReader(), recipe, ReaderBatches(speech(job), recipe, job.seed))
    reader, taken = run_stage(stage, job, learning_rate=2e-3, muon=False)
    assert isinstance(reader, FaceReader)
    heldout = drawn_accuracy(reader.cpu().eval(), heldout_speech(None), _READ_CLIPS)
    save_weights(job.weights, "reader", reader, job.metadata(recipe=asdict(recipe), heldout=heldout, **taken))
    print(f"held-out accuracy: {heldout}")
