"""`distill`: from a teacher to a student, stopped and gone on with."""

import shutil
from pathlib import Path

import pytest
import torch
from random_weights import save_features
from stopped_runs import same_weights, stop_after
from tiny_runs import save_knowing

from talkingmachines.cli.main import main
from talkingmachines.cli.training_run import Run, known_by, trained, trained_hearing, trained_vae
from talkingmachines.data.latents import LatentClips
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.dit.model import DiT
from talkingmachines.errors import CheckpointError
from talkingmachines.presets import pocket, tiny
from talkingmachines.vae.model import CausalVAE
from talkingmachines.weights import load_weights, read_metadata, save_weights, shard_paths, weights_folder

pytest.importorskip("skia")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def bank() -> SpeechBank:
    return SpeechBank.build("train", 4, 0)


@pytest.fixture
def run(tmp_path: Path, bank: SpeechBank) -> Path:
    """A run with an autoencoder and a teacher."""
    torch.manual_seed(0)
    preset = tiny()
    bank.save(tmp_path / "speech.npz")
    save_weights(tmp_path / "weights", "vae", CausalVAE(preset.vae), {"preset": "tiny"})
    teacher = DiT(preset.dit)
    torch.nn.init.normal_(teacher.head.head.weight, std=0.1)
    save_features(tmp_path / "weights")
    save_knowing(tmp_path, "teacher", teacher)
    return tmp_path


def distill(run: Path, *more: str) -> int:
    fixed = ["--preset", "tiny", "--device", "cpu", "--clips", "3", "--trajectories", "2"]
    return main(["distill", *fixed, "--run", str(run), *more])


def student(run: Path) -> bytes:
    return (run / "weights" / "student-1-of-1.safetensors").read_bytes()


def test_a_finished_distillation_goes_on_from_its_student(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(run, "--steps", "2") == 0
    said = read_metadata(run / "weights", "student")
    assert said["preset"] == "tiny" and said["steps"] == 2 and "recipe" in said
    assert list((run / "student").glob("events*")) and list((run / "student-start").glob("events*"))
    assert distill(run, "--steps", "2") == 2
    assert "--resume" in capsys.readouterr().err
    before = student(run)
    assert distill(run, "--steps", "5", "--resume") == 0
    assert student(run) != before and read_metadata(run / "weights", "student")["steps"] == 5


def test_without_matching_the_start_is_the_student(run: Path) -> None:
    assert distill(run, "--steps", "2", "--matching", "0") == 0
    start, made = DiT(tiny().dit), DiT(tiny().dit)
    load_weights(run / "weights", "student-start", start)
    load_weights(run / "weights", "student", made)
    assert all(torch.equal(one, other) for one, other in zip(start.parameters(), made.parameters(), strict=True))
    assert read_metadata(run / "weights", "student")["start"] == read_metadata(run / "weights", "student-start")
    assert not (run / "student").exists()


def test_the_start_goes_on_for_longer_but_not_under_matching(run: Path) -> None:
    alone = ("--matching", "0", "--resume")
    assert distill(run, "--steps", "2", "--matching", "0") == 0
    before = student(run)
    assert distill(run, "--steps", "2", *alone) == 0 and student(run) == before
    assert distill(run, "--steps", "4", *alone) == 0 and student(run) != before
    assert read_metadata(run / "weights", "student-start")["steps"] == 4
    assert distill(run, "--steps", "4", "--resume") == 0
    assert distill(run, "--steps", "5", "--resume") == 0
    assert read_metadata(run / "weights", "student-start")["steps"] == 4
    assert read_metadata(run / "weights", "student")["steps"] == 5
    assert distill(run, "--steps", "6", *alone) == 0
    assert read_metadata(run / "weights", "student-start")["steps"] == 6


def test_another_seed_goes_on_with_the_teachers_clips_and_stays(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a run is told to begin anew whose loss is not finite."""
    alone = ("--steps", "2", "--matching", "0")
    assert distill(run, *alone) == 0
    before, made = student(run), {path.name: path.read_bytes() for path in (run / "trajectories").iterdir()}
    shutil.rmtree(run / "student-start")
    assert distill(run, *alone, "--seed", "5") == 0
    assert student(run) != before and read_metadata(run / "weights", "student")["seed"] == 5
    assert {path.name: path.read_bytes() for path in (run / "trajectories").iterdir()} == made
    further = ("--steps", "3", "--matching", "0", "--resume")
    assert distill(run, *further) == 0 and read_metadata(run / "weights", "student")["seed"] == 5
    assert distill(run, *further, "--steps", "4", "--seed", "6") == 2
    assert "begun with --seed 5, not 6" in capsys.readouterr().err


def test_real_clips_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped student's way. Matching compares with clips of the teacher, so it cannot do without."""
    assert distill(run, "--steps", "2", "--trajectories", "0") == 2
    assert "--matching 0" in capsys.readouterr().err and not (run / "student-start").exists()
    assert distill(run, "--steps", "2", "--trajectories", "0", "--matching", "0") == 0
    assert not (run / "trajectories").exists() and shard_paths(run / "weights", "student")


def test_stopped_anywhere_it_goes_on_to_the_same_student(
    run: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the causal start, then in matching. A start that is not finished is no start: matching waits for the rest."""
    whole = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(run, whole)
    assert distill(whole, "--steps", "4") == 0
    with monkeypatch.context() as stopping:
        stop_after(stopping, 2)
        assert distill(run, "--steps", "4") == 130
        assert not shard_paths(run / "weights", "student-start") and not (run / "student").exists()
    with monkeypatch.context() as stopping:
        stop_after(stopping, 2)
        assert distill(run, "--steps", "4", "--resume") == 0
    assert read_metadata(run / "weights", "student")["steps"] == 2
    assert distill(run, "--steps", "4", "--resume") == 0
    for name in ("student-start", "student"):
        same_weights(run / "weights", whole / "weights", name)


def test_distillation_needs_a_teacher(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (run / "weights").glob("teacher*"):
        path.unlink()
    assert distill(run, "--steps", "1") == 2
    error = capsys.readouterr().err
    assert "no teacher weights" in error and "run `train teacher` first" in error


def test_a_start_of_another_teacher_is_not_gone_on_with(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = ("--trajectories", "0", "--matching", "0")
    assert distill(run, "--steps", "2", *alone) == 0
    start, said = (read_metadata(run / "weights", name) for name in ("student-start", "student"))
    assert start["knows"] == said["knows"] == LatentClips(run / "latents").config.known
    save_knowing(run, "teacher")
    assert distill(run, "--steps", "2", *alone, "--resume") == 2
    assert "with another teacher" in capsys.readouterr().err
    shutil.rmtree(run / "student-start")
    assert distill(run, "--steps", "2", *alone, "--resume") == 0
    assert read_metadata(run / "weights", "student-start")["started_from"] != start["started_from"]


def test_what_knows_another_hearing_or_encoder_is_refused(run: Path) -> None:
    job = Run(tiny(), run, torch.device("cpu"), None, 1, True, 0, None)
    model, known = DiT(tiny().dit), known_by(job.weights, job)
    for changed in known:
        for name, command in (("student", "distill"), ("teacher", "train teacher")):
            save_weights(job.weights, name, model, {"preset": "tiny", "knows": known})
            assert trained(job, name, model)["knows"] == known
            save_weights(job.weights, name, model, {"preset": "tiny", "knows": known | {changed: "another"}})
            with pytest.raises(CheckpointError, match=f"than are there now: run `{command}` anew"):
                trained(job, name, model)


def test_a_copy_of_the_shipped_weights_knows_what_they_know(tmp_path: Path) -> None:
    """They do not say it."""
    job = Run(pocket(), tmp_path, torch.device("cpu"), None, 1, False, 0, None)
    shutil.copytree(weights_folder("pocket"), job.weights)
    model = DiT(job.preset.dit)
    for path in shard_paths(job.weights, "student"):
        shutil.copy(path, job.weights / f"teacher{path.name.removeprefix('student')}")
    coder, hearing = trained_vae(job), trained_hearing(job)
    coder.decoder.linear.weight.data += 0.1
    save_weights(job.weights, "vae", coder, {"preset": "pocket"})
    for name in ("student", "teacher"):
        assert trained(job, name, model)["preset"] == "pocket", "the decoder alone has gone on"
    next(hearing.parameters()).data += 0.1
    save_weights(job.weights, "hearing", hearing, {"preset": "pocket"})
    for name, command in (("student", "distill"), ("teacher", "train teacher")):
        with pytest.raises(CheckpointError, match=f"than are there now: run `{command}` anew"):
            trained(job, name, model)


def test_what_knows_another_encoder_is_refused_before_clips_are_coded(run: Path) -> None:
    coder = CausalVAE(tiny().vae)
    save_knowing(run, "student")
    save_weights(run / "weights", "vae", coder, {"preset": "tiny"})
    for command in (["distill"], ["train", "decoder"]):
        assert main([*command, "--preset", "tiny", "--run", str(run), "--steps", "1"]) == 2
        assert not (run / "latents").exists()
    real = ["distill", "--preset", "tiny", "--run", str(run), "--steps", "1", "--matching", "0", "--trajectories", "0"]
    assert main([*real, "--clips", "6"]) == 0, "nothing is learned from the teacher: the student begins there"


def test_shipped_weights_stand_in_only_where_they_fit(tmp_path: Path) -> None:
    job = Run(pocket(), tmp_path, torch.device("cpu"), None, 1, False, 0, None)
    model = DiT(job.preset.dit)
    assert trained(job, "student", model)["preset"] == "pocket", "of a run that has nothing of its own"
    coder = trained_vae(job)
    coder.decoder.linear.weight.data += 0.1
    save_weights(job.weights, "vae", coder, {"preset": "pocket"})
    assert trained(job, "student", model)["preset"] == "pocket", "the decoder alone has gone on"
    coder.correction.linear.weight.data += 0.1
    save_weights(job.weights, "vae", coder, {"preset": "pocket"})
    for name, command in (("student", "distill"), ("teacher", "train teacher")):
        with pytest.raises(CheckpointError, match=f"know its encoder and hearing: run `{command}`"):
            trained(job, name, model)
    assert trained(job, "hearing", trained_hearing(job))["preset"] == "pocket"
