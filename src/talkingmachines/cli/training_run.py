"""What the stages of `train` and `distill` share: the run's folder, its speech and clips, and how a stage is run."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkingmachines.cli.console import progress_bar, training_bar
from talkingmachines.errors import CheckpointError, ConfigError, MissingPackageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from talkingmachines.data.latents import LatentClips
    from talkingmachines.data.synthetic.bank import SpeechBank
    from talkingmachines.encoders.hearing import Hearing, HearingConfig
    from talkingmachines.presets import Preset
    from talkingmachines.training.loop import Stage
    from talkingmachines.vae.config import VAEConfig
    from talkingmachines.vae.model import CausalVAE

CLIPS = 3000

_MADE_BY = {"teacher": "`train teacher`", "student": "`distill`"}
"""What was trained on one encoder and one hearing, and understands no other."""

_UTTERANCES = 6000
_CPU_BATCH, _GPU_BATCH = 5, 16

_GPU_CUTS = 4
"""Squares that a GPU's autoencoder and decoder learn from in each drawn clip: with one each they wait for most of the
time."""


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
    clips: int | None

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
        return _CPU_BATCH if self.device.type == "cpu" else _GPU_BATCH

    @property
    def cuts(self) -> int:
        return 1 if self.device.type == "cpu" else _GPU_CUTS

    @property
    def workers(self) -> int:
        from talkingmachines.evaluation.machine import cores

        return 2 if self.device.type == "cpu" else max(1, cores() - 1)

    def metadata(self, **more: object) -> dict[str, object]:
        return {"preset": self.preset.name, "seed": self.seed, "device": self.device.type, **more}


def seed_of(folder: Path, given: int | None, resumed: Sequence[str] = ()) -> int:
    """Of a run: as given, or that with which the first of the resumed stages began that has, or that of its clips."""
    from talkingmachines.data.latents import clips_begun
    from talkingmachines.training.checkpoint import seed_begun

    if given is not None:
        return given
    begun = (seed_begun(folder / stage) for stage in resumed)
    clips = clips_begun(folder / "latents").get("seed", 0)
    return next((seed for seed in begun if seed is not None), clips)


def hearing_config(job: Run) -> "HearingConfig":
    if job.preset.hearing is None:
        raise ConfigError(f"the speech encoder of {job.preset.name} is not trained here: bring wav2vec2")
    return job.preset.hearing


def trained_hearing(job: Run) -> "Hearing":
    from talkingmachines.encoders.hearing import Hearing

    hearing = Hearing(hearing_config(job))
    trained(job, "hearing", hearing)
    return hearing.to(job.device).eval().requires_grad_(False)


def vae_config(job: Run) -> "VAEConfig":
    from talkingmachines.vae.config import VAEConfig

    if not isinstance(job.preset.vae, VAEConfig):
        raise ConfigError(f"the autoencoder of {job.preset.name} is not trained here: bring it with `convert`")
    return job.preset.vae


def speech(job: Run) -> "SpeechBank":
    """The run's training speech, synthesised at its first use."""
    from talkingmachines.data.synthetic.bank import SpeechBank

    path = job.folder / "speech.npz"
    if not path.exists():
        with progress_bar("synthesising speech") as update:
            SpeechBank.build("train", _UTTERANCES, job.seed, update, job.workers).save(path)
    return SpeechBank.load(path)


def coded_clips(job: Run) -> "LatentClips":
    """The run's clips, drawn and coded at their first use. Raises ConfigError where there are others, or more."""
    from talkingmachines.data.latents import LatentClipsConfig, build_latents, clips_begun
    from talkingmachines.training.checkpoint import fingerprint

    folder, coder, hearing, sampling = (
        job.folder / "latents",
        trained_vae(job),
        trained_hearing(job),
        job.preset.sampling,
    )
    latents = sampling.window + sampling.history
    begun = clips_begun(folder)
    clips, seed = job.clips or begun.get("clips", CLIPS), begun.get("seed", job.seed)
    # Not of the decoder, whose stage comes after the clips.
    made_by = fingerprint(hearing), fingerprint(coder.coders)
    config = LatentClipsConfig(clips, latents, job.preset.size, seed, *made_by)
    with progress_bar("coding clips") as update:
        return build_latents(folder, coder, hearing, speech(job), config, job.device, job.workers, update)


def trained(job: Run, name: str, model: "nn.Module") -> dict[str, object]:
    """Fill a model from the run, or from the shipped weights where these fit the run. Returns what was said of it.

    Raises CheckpointError where there are none; and as check_known.
    """
    if name in _MADE_BY:
        check_known(job, name)
    return loaded(job, name, model)


def loaded(job: Run, name: str, model: "nn.Module") -> dict[str, object]:
    """The same of a model that may know another encoder or hearing: what learns on begins there."""
    from talkingmachines.weights import load_weights, read_metadata, shard_paths, weights_folder

    folder = job.weights if shard_paths(job.weights, name) else weights_folder(job.preset.name)
    load_weights(folder, name, model)
    return read_metadata(folder, name)


def check_known(job: Run, name: str) -> None:
    """Raises CheckpointError where a run has no such teacher or student, or one of another encoder or hearing than it
    has now."""
    from talkingmachines.weights import read_metadata, shard_paths, weights_folder

    now, shipped = known_by(job.weights, job), weights_folder(job.preset.name)
    # The shipped ones do not say what they know, and neither do copies of them.
    unsaid = known_by(shipped, job) if shard_paths(shipped, name) else None
    if not shard_paths(job.weights, name):
        if unsaid != now:
            raise CheckpointError(
                f"no {name} weights in {job.weights}, and none are shipped that know its encoder and hearing: "
                f"run {_MADE_BY[name]} first"
            )
    elif (read_metadata(job.weights, name).get("knows") or unsaid) != now:
        raise CheckpointError(
            f"the {name} weights in {job.weights} know another encoder or hearing than are there now: "
            f"run {_MADE_BY[name]} anew"
        )


def trained_projection(job: Run) -> "dict[str, Tensor]":
    """The audio projection as `train audio` has taught it: the run's, or the shipped one, where its hearing is.

    Raises ConfigError for a preset that is not trained here, CheckpointError where there is none for what the run
    hears with.
    """
    from talkingmachines.dit.model import DiT
    from talkingmachines.weights import load_weights, shard_paths, weights_folder

    hearing_config(job)  # before a model of 14 B is made for nothing
    shipped = weights_folder(job.preset.name)
    if shard_paths(job.weights, "audio"):
        model = DiT(job.preset.dit)
        load_weights(job.weights, "audio", model.audio_proj)
    elif shard_paths(shipped, "teacher") and known_by(job.weights, job)["hearing"] == known_by(shipped, job)["hearing"]:
        model = DiT(job.preset.dit)
        load_weights(shipped, "teacher", model)
    else:
        raise CheckpointError(
            f"no audio weights in {job.weights}, and none are shipped that know its hearing: run `train audio` first"
        )
    return model.audio_proj.state_dict()


def known_by(folder: Path, job: Run) -> dict[str, str]:
    """Fingerprints of what teacher and student of a folder know, encoder and hearing; the shipped ones where it has
    none. The decoder goes on under them."""
    from talkingmachines.encoders.hearing import Hearing
    from talkingmachines.training.checkpoint import fingerprint
    from talkingmachines.vae.model import CausalVAE
    from talkingmachines.weights import load_weights, shard_paths, weights_folder

    vae, hearing = CausalVAE(vae_config(job)), Hearing(hearing_config(job))
    for name, model in (("vae", vae), ("hearing", hearing)):
        load_weights(folder if shard_paths(folder, name) else weights_folder(job.preset.name), name, model)
    return {"hearing": fingerprint(hearing), "encoder": fingerprint(vae.coders)}


def trained_vae(job: Run) -> "CausalVAE":
    from talkingmachines.vae.model import CausalVAE

    coder = CausalVAE(vae_config(job))
    trained(job, "vae", coder)
    return coder.to(job.device).eval().requires_grad_(False)


def first_batches(batches: "Dataset[dict[str, Tensor]]", count: int, job: Run) -> "list[dict[str, Tensor]]":
    """On the run's device."""
    from talkingmachines.training.loading import load

    with load(batches, range(count), job.workers, job.device) as made:
        return list(made)


def run_stage(
    stage: "Stage",
    job: Run,
    *,
    learning_rate: float,
    muon: bool,
    to_its_end: bool = False,
    beside: Mapping[str, str] = {},
) -> tuple["nn.Module", dict[str, object]]:
    """Run the loop with a progress bar and TensorBoard logs. Returns the averaged model and what was done.

    to_its_end: a run that is stopped before raises KeyboardInterrupt, with its checkpoint written, for stages whose
    next one begins by itself. beside: as of Trainer. Raises ConfigError for a folder with a run that is not resumed.
    """
    from talkingmachines.training.config import LoopConfig
    from talkingmachines.training.loop import Trainer

    folder = job.folder / stage.name
    if not job.resume and (folder / "state.pt").exists():
        raise ConfigError(f"{folder} holds a run already: add --resume to go on, or choose another --run")
    config = LoopConfig(steps=job.steps, minutes=job.minutes, learning_rate=learning_rate, muon=muon, seed=job.seed)
    trainer = Trainer(stage, config, folder, job.device, beside)
    if job.resume:
        trainer.resume()
    with _logs(folder) as writer, _stop_signal() as stopped, training_bar(stage.name) as report:
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
    """Ctrl-C, SIGTERM and a terminal that is closed end the run after the step that is on, with a checkpoint."""
    event = threading.Event()
    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        wanted.append(signal.SIGHUP)
    before = [signal.signal(number, lambda *_: event.set()) for number in wanted]
    try:
        yield event.is_set
    finally:
        for number, handler in zip(wanted, before, strict=True):
            signal.signal(number, handler)
