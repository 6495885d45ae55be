"""The recipe from nothing to a clip, at the tiny preset's size."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from stopped_runs import same_weights, stop_after
from tiny_runs import save_knowing

from talkingmachines.cli.main import main
from talkingmachines.cli.training_run import Run, seed_of, trained, trained_hearing, trained_projection
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.dit.model import DiT
from talkingmachines.errors import CheckpointError
from talkingmachines.evaluation.reader import load_reader
from talkingmachines.presets import pocket, tiny
from talkingmachines.weights import load_finder, read_metadata, save_weights

pytest.importorskip("skia")
pytest.importorskip("onnxruntime")


MEASURED = {"evaluation": {"lips": {"r": 0.8}}}


@pytest.fixture(scope="module")
def bank() -> SpeechBank:
    return SpeechBank.build("train", 4, 0)


@pytest.fixture
def run(tmp_path: Path, bank: SpeechBank) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    bank.save(folder / "speech.npz")
    return folder


@pytest.fixture(autouse=True)
def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """At this size it takes longest to make what is measured before and after training."""
    for name, count in (("_PCA_CLIPS", 10), ("_SCALED", 2), ("_CALIBRATED", 4), ("_GESTURE_FRAMES", 60)):
        monkeypatch.setattr(f"talkingmachines.cli.train.{name}", count)


def train(stage: str, run: Path, *more: str) -> int:
    return main(["train", stage, "--preset", "tiny", "--device", "cpu", "--run", str(run), *more])


def test_from_nothing_to_a_clip(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("vae", run, "--steps", "2") == 0
    assert train("encoder", run, "--steps", "3") == 0
    assert train("audio", run, "--steps", "2") == 0
    assert train("gestures", run, "--steps", "2") == 0
    save_knowing(run, "student", **MEASURED)
    assert train("teacher", run, "--steps", "2", "--clips", "3", "--seed", "5") == 0
    assert "evaluation" not in read_metadata(run / "weights", "student"), "measured against another teacher"
    before = (run / "weights" / "vae-1-of-1.safetensors").read_bytes()
    save_knowing(run, "student", **MEASURED)
    assert train("decoder", run, "--steps", "2", "--clips", "4") == 2
    assert "clips=3, not 4" in capsys.readouterr().err
    assert train("decoder", run, "--steps", "2", "--seed", "6") == 0, "with the clips that the run has"
    assert (run / "weights" / "vae-1-of-1.safetensors").read_bytes() != before
    coder = read_metadata(run / "weights", "vae")
    assert [said["steps"] for said in (coder, coder["correction"], coder["decoder"])] == [2, 3, 2]
    assert "evaluation" not in read_metadata(run / "weights", "student"), "measured with another decoder"
    assert coder["decoder"]["seed"] == 6 and seed_of(run, None) == 5
    said = read_metadata(run / "weights", "teacher")
    assert said["preset"] == "tiny" and said["steps"] == 2 and said["clips"] == 3 and "recipe" in said

    from talkingmachines.teacher import load_teacher

    clip = load_teacher(str(run / "weights"), device="cpu").generate(
        np.zeros((64, 64, 3), np.uint8), np.zeros(3000, np.float32)
    )
    assert clip.shape == (5, 64, 64, 3)
    assert list((run / "teacher").glob("events*")), "TensorBoard logs"


def test_what_a_stage_learned_from_must_be_what_it_was(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(stage: str) -> str:
        capsys.readouterr()
        assert train(stage, run, "--steps", "4", "--clips", "3", "--resume") == 2
        return capsys.readouterr().err

    assert train("vae", run, "--steps", "2") == 0
    assert train("audio", run, "--steps", "2") == 0
    assert train("gestures", run, "--steps", "1") == 0
    assert train("teacher", run, "--steps", "1", "--clips", "3") == 0
    save_knowing(run, "student")
    assert train("decoder", run, "--steps", "2") == 0
    with monkeypatch.context() as strict:
        strict.setattr("talkingmachines.data.calls._SAME", -1.0)
        assert train("decoder", run, "--steps", "3", "--resume") == 0, "clips stay good when the decoder goes on"
    save_knowing(run, "student")
    assert "with another student" in refused("decoder")
    shutil.rmtree(run / "decoder")
    with monkeypatch.context() as strict:
        strict.setattr("talkingmachines.data.calls._SAME", -1.0)
        assert train("decoder", run, "--steps", "1") == 0, "begun anew, as it was told"
    assert train("encoder", run, "--steps", "1") == 0
    assert "has what `train encoder` and `train decoder` did" in refused("vae")
    assert "encoder=" in refused("teacher")
    shutil.rmtree(run / "latents")
    assert "with another encoder" in refused("teacher")
    assert train("audio", run, "--steps", "3", "--resume") == 0
    assert "with another hearing" in refused("gestures")


def test_the_reader_is_trained_and_measured(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heldout = SpeechBank.build("heldout", 4, 0)
    monkeypatch.setattr("talkingmachines.cli.eval.heldout_speech", lambda bank: heldout)
    monkeypatch.setattr("talkingmachines.cli.train._READ_CLIPS", 2)
    save_weights(run / "weights", "student", DiT(tiny().dit), MEASURED)
    assert train("reader", run, "--steps", "2") == 0
    assert "evaluation" in read_metadata(run / "weights", "student"), "measured with the package's"
    said = read_metadata(run / "weights", "reader")
    assert said["steps"] == 2 and said["seed"] == 0 and np.isfinite(list(said["heldout"].values())).all()
    frames = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    assert all(np.isfinite(track).all() for track in load_reader(run / "weights").read(frames).values())


def test_the_finder_is_trained_and_measured(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talkingmachines.evaluation.finding._BATCHES", 1)
    save_weights(run / "weights", "student", DiT(tiny().dit), MEASURED)
    assert train("finder", run, "--steps", "2") == 0
    assert "evaluation" not in read_metadata(run / "weights", "student"), "of pictures that another one cut"
    said = read_metadata(run / "weights", "finder")
    assert said["steps"] == 2 and said["heldout"]["pictures"] == 32
    assert 0 <= said["heldout"]["found"] <= 1 and load_finder(run / "weights").out.weight.isfinite().all()


def test_stopped_in_every_stage_it_goes_on_to_the_same_weights_and_overwrites_nothing(
    run: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(run, whole)
    student = DiT(tiny().dit)
    for seed, stage in enumerate(("vae", "encoder", "audio", "gestures", "teacher", "decoder"), 5):
        more, seeded = ("--steps", "4", "--clips", "3"), ("--seed", str(seed))
        if stage == "decoder":
            for folder in (run, whole):
                save_knowing(folder, "student", student)
        assert train(stage, whole, *more, *seeded) == 0
        with monkeypatch.context() as stopping:
            stop_after(stopping, 2)
            assert train(stage, run, *more, *seeded) == 0
        assert train(stage, run, *more) == 2 and "--resume" in capsys.readouterr().err
        assert train(stage, run, *more, "--resume") == 0
        made = {"encoder": "vae", "decoder": "vae"}.get(stage, stage)
        assert read_metadata(run / "weights", made)["steps"] == 4
        same_weights(run / "weights", whole / "weights", made)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "giant", "--steps", "1"], "no preset"),
        (["--steps", "1", "--resume"], "nothing to resume"),
        ([], "steps and minutes"),
        (["--steps", "1", "--minutes", "1"], "steps and minutes"),
        (["--steps", "-1"], "positive"),
        (["--steps", "1", "--device", "quantum"], "quantum"),
    ],
)
def test_bad_settings(run: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "vae", "--run", str(run), "--preset", "tiny", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("preset", ["wan_14b", "wan_1_3b"])
@pytest.mark.parametrize("stage", ["audio", "gestures", "teacher", "decoder", "distill"])
def test_a_preset_without_hearing_of_its_own(
    run: Path, stage: str, preset: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before a model is made, which at this size takes tens of gigabytes."""
    monkeypatch.setattr(DiT, "__init__", lambda *_: pytest.fail("made a model"))
    command = ["distill"] if stage == "distill" else ["train", stage]
    assert main([*command, "--preset", preset, "--run", str(run), "--steps", "1"]) == 2
    said = "bring wav2vec2" if stage in ("audio", "gestures", "teacher") else "bring it with `convert`"
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("command", [["train", "vae"], ["distill"]])
def test_a_length_that_is_none_is_said_before_anything_is_made(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--run", str(tmp_path), "--preset", "tiny", "--minutes", "nan"]) == 2
    assert "finite" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_teacher_needs_what_hears_and_an_autoencoder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("teacher", run, "--steps", "1", "--clips", "1") == 2
    assert "run `train audio` first" in capsys.readouterr().err and not (run / "latents").exists()
    assert train("audio", run, "--steps", "1") == 0
    assert train("teacher", run, "--steps", "1", "--clips", "1") == 2
    assert "no vae weights" in capsys.readouterr().err


def test_a_run_with_the_shipped_hearing_has_the_shipped_projection(tmp_path: Path) -> None:
    job = Run(pocket(), tmp_path, torch.device("cpu"), None, 1, False, 0, None)
    teacher = DiT(job.preset.dit)
    trained(job, "teacher", teacher)
    own, shipped = trained_projection(job), teacher.audio_proj.state_dict()
    assert own.keys() == shipped.keys() and all(torch.equal(own[name], shipped[name]) for name in own)
    hearing = trained_hearing(job)
    next(hearing.parameters()).data += 0.1
    save_weights(job.weights, "hearing", hearing, {"preset": "pocket"})
    with pytest.raises(CheckpointError, match="run `train audio` first"):
        trained_projection(job)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_a_checkpoint_that_goes_on(run: Path, sent: signal.Signals) -> None:
    """Sent to the whole group, as a terminal and a machine that goes down do: the workers that draw get it too."""
    arguments = ["train", "vae", "--preset", "tiny", "--device", "cpu", "--run", str(run)]
    command = [sys.executable, "-c", "import sys; from talkingmachines.cli.main import main; sys.exit(main())"]
    process = subprocess.Popen([*command, *arguments, "--minutes", "10"], start_new_session=True)
    while not list((run / "vae").glob("events*")):
        assert process.poll() is None
        time.sleep(0.2)
    time.sleep(2)
    os.killpg(process.pid, sent)
    assert process.wait(timeout=60) == 0
    steps = read_metadata(run / "weights", "vae")["steps"]
    assert isinstance(steps, int) and steps > 0
    assert main([*arguments, "--steps", str(steps + 1), "--resume"]) == 0
    assert read_metadata(run / "weights", "vae")["steps"] == steps + 1
