"""`train STAGE`: the recipe of the shipped weights, stage by stage."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from talkingmachines.cli.console import make_folder, progress_bar
from talkingmachines.errors import ConfigError, MissingPackageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from talkingmachines.data.latents import LatentClips
    from talkingmachines.data.synthetic.bank import SpeechBank
    from talkingmachines.encoders.hearing import Hearing, HearingConfig
    from talkingmachines.presets import Preset
    from talkingmachines.training.config import LoopConfig
    from talkingmachines.training.loop import Report, Stage
    from talkingmachines.vae.config import VAEConfig
    from talkingmachines.vae.model import CausalVAE

UTTERANCES = 6000
GESTURE_FRAMES = 251
"""Of the tracks that gestures are learned from: several blinks long."""

_CALIBRATED = 8
"""Batches by which it is measured how far drawn gestures go."""

CPU_BATCH, GPU_BATCH = 5, 16

_GPU_CUTS = 4
"""Squares that a GPU's autoencoder and decoder learn from in each drawn clip: with one each they wait for most of the
time."""

_PCA_CLIPS = 120
"""From which the autoencoder's linear start is computed."""


@dataclass(frozen=True)
class Run:
    """One run: its preset, folder, device, length and seed. Raises ConfigError for a length that is none."""

    preset: "Preset"
    folder: Path
    device: "torch.device"
    minutes: float | None
    steps: int | None
    resume: bool
    seed: int
    clips: int

    def __post_init__(self) -> None:
        from talkingmachines.training.config import LoopConfig

        # Before speech and clips are made, which takes minutes.
        LoopConfig(steps=self.steps, minutes=self.minutes)

    @property
    def weights(self) -> Path:
        """Where finished stages leave their weights; a folder that `generate --preset` takes."""
        return self.folder / "weights"

    @property
    def batch(self) -> int:
        return CPU_BATCH if self.device.type == "cpu" else GPU_BATCH

    @property
    def cuts(self) -> int:
        return 1 if self.device.type == "cpu" else _GPU_CUTS

    @property
    def workers(self) -> int:
        from talkingmachines.evaluation.machine import cores

        return 2 if self.device.type == "cpu" else max(1, cores() - 1)

    def metadata(self, **more: object) -> dict[str, object]:
        return {"preset": self.preset.name, "seed": self.seed, "device": self.device.type, **more}


class StageName(StrEnum):
    """The stages, in the order of the recipe; `reader` is only for `eval`."""

    VAE = "vae"
    AUDIO = "audio"
    GESTURES = "gestures"
    TEACHER = "teacher"
    DECODER = "decoder"
    READER = "reader"


def train(
    *,
    stage: Annotated[StageName, typer.Argument(help="In this order; decoder and reader may be left out.")],
    preset: Annotated[str, typer.Option(help="Whose numbers to train.")] = "pocket",
    run: Annotated[Path | None, typer.Option(help="Folder of the run; runs/PRESET unless given.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Train for so long.")] = None,
    steps: Annotated[int | None, typer.Option(help="Train for so many steps.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of weights, data and noise.")] = 0,
    clips: Annotated[int, typer.Option(min=1, help="Clips drawn and coded before the teacher trains.")] = 3000,
) -> None:
    """Train a preset from nothing, stage by stage."""
    from talkingmachines.avatar import choose_device
    from talkingmachines.presets import preset as preset_of

    spec = preset_of(preset)
    folder = run or Path("runs") / preset
    make_folder(folder)
    job = Run(spec, folder, choose_device(device), minutes, steps, resume, seed, clips)
    {
        StageName.VAE: _vae,
        StageName.AUDIO: _audio,
        StageName.GESTURES: _gestures,
        StageName.TEACHER: _teacher,
        StageName.DECODER: _decoder,
        StageName.READER: _reader,
    }[stage](job)
    print(f"weights: {job.weights}")


def _vae(job: Run) -> None:
    """Stage 1: the autoencoder, on freshly drawn clips."""
    import torch

    from talkingmachines.data.batches import VideoBatches
    from talkingmachines.training.autoencoder import AutoencoderRecipe, AutoencoderStage, calibrate
    from talkingmachines.vae.model import CausalVAE
    from talkingmachines.vae.pixels import to_unit
    from talkingmachines.weights import save_weights

    size = job.preset.size
    bank = _speech(job)
    batches = VideoBatches(bank, size, min(size, 128), batch=job.batch, seed=job.seed, cuts=job.cuts)
    torch.manual_seed(job.seed)
    model = CausalVAE(_vae_config(job))
    recipe = AutoencoderRecipe()
    stage = AutoencoderStage(model, recipe, batches)
    if not job.resume:
        stage.start(math.ceil(_PCA_CLIPS * job.cuts / job.batch))
    coder, taken = run_stage(stage, job, learning_rate=1e-3, muon=False)
    assert isinstance(coder, CausalVAE)
    whole = VideoBatches(bank, size, size, batch=4, seed=job.seed + 1)
    with torch.no_grad():
        latents = [coder.encode(to_unit(whole[step]["video"]).to(job.device)) for step in range(16)]
    calibrate(coder, torch.cat(latents))
    save_weights(job.weights, "vae", coder, job.metadata(recipe=asdict(recipe), **taken))


def _decoder(job: Run) -> None:
    """The autoencoder's decoder alone, on what the student makes: what was trained on its latents stays good."""
    from talkingmachines.data.calls import DrawnCalls
    from talkingmachines.dit.model import DiT
    from talkingmachines.training.autoencoder import AutoencoderRecipe
    from talkingmachines.training.decoder import DecoderStage
    from talkingmachines.vae.model import CausalVAE
    from talkingmachines.weights import save_weights

    chunk, patch = job.preset.chunk, job.preset.dit.patch[1]
    frames = chunk.frames * chunk.window
    batches = DrawnCalls(
        coded_clips(job),
        frames,
        frames,
        patch,
        batch=max(1, job.batch // 2),
        seed=job.seed + 2,
        bank=_speech(job),
        cuts=job.cuts,
    )
    student, coder = DiT(job.preset.dit), CausalVAE(_vae_config(job))
    # What moves inside a latent frame is what the decoder loses most of.
    recipe = AutoencoderRecipe(motion=4.0, spread=18.0)
    trained(job, "student", student)
    before = trained(job, "vae", coder)
    student = student.to(job.device).eval().requires_grad_(False)
    stage = DecoderStage(coder.to(job.device), student, chunk, recipe, batches)
    further, taken = run_stage(stage, job, learning_rate=5e-4, muon=False)
    said = job.metadata(recipe=asdict(recipe), **taken, before=before)
    save_weights(job.weights, "vae", further, said)


def _audio(job: Run) -> None:
    """Stage 2: hearing and the audio projection, on speech and the mouths that speak it, without pictures."""
    import torch

    from talkingmachines.data.batches import MOUTH, SpeechBatches
    from talkingmachines.training.audio import AudioStage, MouthReader
    from talkingmachines.weights import save_weights

    torch.manual_seed(job.seed)
    assert job.preset.dit.audio is not None
    model = MouthReader(_hearing_config(job), job.preset.dit.audio, len(MOUTH))
    stage = AudioStage(model, SpeechBatches(_speech(job), seed=job.seed), job.preset.chunk.frames)
    reader, taken = run_stage(stage, job, learning_rate=1e-3, muon=False)
    assert isinstance(reader, MouthReader)
    save_weights(job.weights, "hearing", reader.hearing, job.metadata(**taken))
    save_weights(job.weights, "audio", reader.projection, job.metadata(**taken))


def _gestures(job: Run) -> None:
    """Stage 3: what a character does beside speaking, on motion tracks and what is heard with them."""
    import torch

    from talkingmachines.data.batches import SpeechBatches
    from talkingmachines.encoders.gestures import Gestures
    from talkingmachines.training.gestures import GesturesStage
    from talkingmachines.weights import save_weights

    torch.manual_seed(job.seed)
    assert job.preset.gestures is not None
    batches = SpeechBatches(_speech(job), frames=GESTURE_FRAMES, seed=job.seed)
    model = Gestures(job.preset.gestures)
    model.measure(torch.cat([batches[step]["gestures"] for step in range(4)]))
    hearing = _hearing(job)
    gestures, taken = run_stage(GesturesStage(model, hearing, batches), job, learning_rate=1e-3, muon=False)
    assert isinstance(gestures, Gestures)
    shown = [{name: tensor.to(job.device) for name, tensor in batches[step].items()} for step in range(_CALIBRATED)]
    tracks = torch.cat([batch["gestures"] for batch in shown])
    with torch.no_grad():
        heard = hearing.of_mel(torch.cat([batch["mel"] for batch in shown]))
    gestures.calibrate(heard, tracks, torch.Generator(job.device).manual_seed(job.seed))
    save_weights(job.weights, "gestures", gestures, job.metadata(**taken))


def _teacher(job: Run) -> None:
    """Stage 4: the bidirectional teacher, on clips coded once by the autoencoder."""
    import torch

    from talkingmachines.data.latents import TeacherBatches
    from talkingmachines.dit.model import DiT
    from talkingmachines.training.passes import passes_for
    from talkingmachines.training.teacher import TeacherRecipe, TeacherStage, start_warp
    from talkingmachines.weights import load_weights, save_weights, shard_paths

    sampling = job.preset.sampling
    coded = coded_clips(job)
    patch = job.preset.dit.patch[1]
    batches = TeacherBatches(coded, sampling.window, sampling.history, patch, batch=job.batch, seed=job.seed)
    torch.manual_seed(job.seed)
    recipe = TeacherRecipe()
    model = DiT(job.preset.dit)
    if shard_paths(job.weights, "audio"):
        # It stays as it was taught: errors of pictures would make it forget the lips.
        load_weights(job.weights, "audio", model.audio_proj.requires_grad_(False))
    vae = trained_vae(job)
    start_warp(model, vae)
    stage = TeacherStage(model, recipe, batches, vae, passes_for(job.device))
    teacher, taken = run_stage(stage, job, learning_rate=1.5e-3, muon=True)
    said = job.metadata(recipe=asdict(recipe), clips=job.clips, **taken)
    save_weights(job.weights, "teacher", teacher, said, eight_bits=True)


def _reader(job: Run) -> None:
    """The instrument of `eval`: reads mouth, eyes and head from a picture of a drawn face."""
    from talkingmachines.cli.eval import heldout_speech
    from talkingmachines.evaluation.reader_stage import train_reader

    config, folder = _loop(job, "reader", learning_rate=2e-3, muon=False)
    with _logs(folder) as writer, _stop_signal() as stopped, _training_bar("reader") as report:
        said = train_reader(
            _speech(job),
            heldout_speech(None),
            config,
            folder,
            report=report,
            writer=writer,
            stopped=stopped,
            device=job.device,
            workers=job.workers,
            resume=job.resume,
            folder=job.weights,
        )
    print(f"held-out accuracy: {said['heldout']}")


def _hearing_config(job: Run) -> "HearingConfig":
    if job.preset.hearing is None:
        raise ConfigError(f"the speech encoder of {job.preset.name} is not trained here: bring wav2vec2")
    return job.preset.hearing


def _hearing(job: Run) -> "Hearing":
    from talkingmachines.encoders.hearing import Hearing

    hearing = Hearing(_hearing_config(job))
    trained(job, "hearing", hearing)
    return hearing.to(job.device).eval().requires_grad_(False)


def _vae_config(job: Run) -> "VAEConfig":
    from talkingmachines.vae.config import VAEConfig

    if not isinstance(job.preset.vae, VAEConfig):
        raise ConfigError(f"the autoencoder of {job.preset.name} is not trained here: bring it with `convert`")
    return job.preset.vae


def _speech(job: Run) -> "SpeechBank":
    """The run's training speech, synthesised at its first use."""
    from talkingmachines.data.synthetic.bank import SpeechBank

    path = job.folder / "speech.npz"
    if not path.exists():
        with progress_bar("synthesising speech") as update:
            SpeechBank.build("train", UTTERANCES, job.seed, update, job.workers).save(path)
    return SpeechBank.load(path)


def coded_clips(job: Run) -> "LatentClips":
    """The run's clips, drawn and coded at their first use."""
    from talkingmachines.data.latents import LatentClipsConfig, build_latents
    from talkingmachines.training.checkpoint import fingerprint

    folder, coder, hearing, sampling = job.folder / "latents", trained_vae(job), _hearing(job), job.preset.sampling
    latents = sampling.window + sampling.history
    config = LatentClipsConfig(job.clips, latents, job.preset.size, job.seed, fingerprint(hearing))
    with progress_bar("coding clips") as update:
        return build_latents(folder, coder, hearing, _speech(job), config, job.device, job.workers, update)


def trained(job: Run, name: str, model: "nn.Module") -> dict[str, object]:
    """Fill a model from the run, or from the shipped weights. Returns what was said of it."""
    from talkingmachines.avatar import weights_folder
    from talkingmachines.weights import load_weights, read_metadata, shard_paths

    folder = job.weights if shard_paths(job.weights, name) else weights_folder(job.preset.name)
    load_weights(folder, name, model)
    return read_metadata(folder, name)


def trained_vae(job: Run) -> "CausalVAE":
    from talkingmachines.vae.model import CausalVAE

    coder = CausalVAE(_vae_config(job))
    trained(job, "vae", coder)
    return coder.to(job.device).eval().requires_grad_(False)


def _loop(job: Run, stage: str, *, learning_rate: float, muon: bool) -> tuple["LoopConfig", Path]:
    """The loop's numbers and the stage's folder. Raises ConfigError for a folder with a run that is not resumed."""
    from talkingmachines.training.config import LoopConfig

    folder = job.folder / stage
    if not job.resume and (folder / "state.pt").exists():
        raise ConfigError(f"{folder} holds a run already: add --resume to go on, or choose another --run")
    config = LoopConfig(steps=job.steps, minutes=job.minutes, learning_rate=learning_rate, muon=muon, seed=job.seed)
    return config, folder


def run_stage(
    stage: "Stage", job: Run, *, learning_rate: float, muon: bool, to_its_end: bool = False
) -> tuple["nn.Module", dict[str, object]]:
    """Run the loop with a progress bar and TensorBoard logs. Returns the averaged model and what was done.

    to_its_end: a run that is stopped before raises KeyboardInterrupt, with its checkpoint written, for stages whose
    next one begins by itself.
    """
    from talkingmachines.training.loop import Trainer

    config, folder = _loop(job, stage.name, learning_rate=learning_rate, muon=muon)
    trainer = Trainer(stage, config, folder, job.device)
    if job.resume:
        trainer.resume()
    with _logs(folder) as writer, _stop_signal() as stopped, _training_bar(stage.name) as report:
        model = trainer.run(job.workers, report, writer, stopped)
    if to_its_end and config.progress(trainer.step, trainer.elapsed) < 1:
        raise KeyboardInterrupt
    return model, {"steps": trainer.step, "minutes": round(trainer.elapsed / 60, 1), "loop": asdict(config)}


@contextmanager
def _logs(folder: Path) -> Iterator[Any]:
    """A TensorBoard writer. Raises MissingPackageError without tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingPackageError("training logs need tensorboard: pip install 'talkingmachines[data]'") from error
    with SummaryWriter(str(folder)) as writer:
        yield writer


@contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM end the run after the step that is on, with a checkpoint."""
    event = threading.Event()
    wanted = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: event.set()) for number in wanted]
    try:
        yield event.is_set
    finally:
        for number, handler in zip(wanted, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _training_bar(label: str) -> Iterator["Report"]:
    """A bar on stderr with the loss (averaged over about 50 steps), the speed and the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("step {task.fields[step]}  loss {task.fields[loss]:.4f}  {task.fields[rate]:.2f} steps/s"),
        TextColumn("left {task.fields[left]}"),
    )
    begun, first, loss = time.monotonic(), (0, 0.0), 0.0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=1.0, step=0, loss=0.0, rate=0.0, left="?")

        def report(step: int, progress: float, metrics: dict[str, float]) -> None:
            nonlocal first, loss
            if not first[0]:
                first, loss = (step, progress), metrics["loss"]
            loss += 0.02 * (metrics["loss"] - loss)
            elapsed = time.monotonic() - begun
            left = elapsed * (1 - progress) / max(progress - first[1], 1e-6)
            minutes, seconds = divmod(round(left), 60)
            bar.update(
                task,
                completed=progress,
                step=step,
                loss=loss,
                rate=(step - first[0] + 1) / elapsed,
                left=f"{minutes}:{seconds:02}",
            )

        yield report
