"""examples/train_pocket.sh with a stand-in for the command, which notes what it is called with."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "train_pocket.sh"

STAND_IN = """#!/usr/bin/env bash
echo "$*" >> "$NOTES"
[[ "$*" != *"train vae "* ]] || touch "$RUN/speech.npz"
if [[ "$*" == *"train $FAIL "* ]]; then
    until [[ $SLOW = none || -e "$NOTES.slow" ]]; do sleep 0.05; done
    exit 1
fi
if [[ "$*" == *"train $SLOW "* ]]; then
    trap 'mkdir -p "$RUN/$SLOW"; touch "$RUN/$SLOW/state.pt"; exit 0' INT TERM
    touch "$NOTES.slow"
    for _ in {1..300}; do sleep 0.1; done
fi
"""


class Recipe:
    """The script, run as `mode`."""

    def __init__(self, mode: str, folder: Path) -> None:
        self.mode = mode
        self.run, self.notes = folder / "run", folder / "notes"
        command = folder / "bin" / "talkingmachines"
        command.parent.mkdir()
        command.write_text(STAND_IN)
        command.chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "NOTES": str(self.notes),
            "RUN": str(self.run),
        }

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        self.notes.write_text("")
        environment = self.environment | {"FAIL": "none", "SLOW": "none"} | more
        # Tests in a shell's background have SIGINT ignored, which bash does not undo.
        command = ["env", "--default-signal=INT", SCRIPT, self.mode, self.run]
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.PIPE)

    def wait_until_slow(self) -> None:
        slow, until = self.notes.with_suffix(".slow"), time.monotonic() + 60
        while not slow.exists() and time.monotonic() < until:
            time.sleep(0.05)

    def stages(self) -> list[str]:
        return [" ".join(line.split()[:2]).removesuffix(" --matching") for line in self.notes.read_text().splitlines()]


ALL = ["train vae", "train encoder", "train audio", "train gestures", "train teacher", "distill", "train decoder"]


@pytest.fixture
def night(tmp_path: Path) -> Recipe:
    return Recipe("night", tmp_path)


@pytest.fixture
def gpu(tmp_path: Path) -> Recipe:
    return Recipe("gpu", tmp_path)


def test_all_stages_in_order_and_what_they_took(night: Recipe) -> None:
    out, _ = night.start().communicate(timeout=60)
    assert night.stages() == ALL
    assert "--minutes 64" in night.notes.read_text() and "--resume" not in night.notes.read_text()
    assert out.decode() == (night.run / "took.txt").read_text()
    assert [line.split()[0] for line in out.decode().splitlines()] == [stage.split()[-1] for stage in ALL[:5]] + [
        "student",
        "decoder",
    ]


def test_it_goes_on_where_it_failed(night: Recipe) -> None:
    assert night.start(FAIL="gestures").wait(60) == 1
    assert night.stages() == ALL[:4]
    assert night.start().wait(60) == 0
    assert night.stages() == ALL[3:]


def test_a_stage_that_was_stopped_is_not_done(night: Recipe) -> None:
    """It ends well, with a checkpoint."""
    process = night.start(SLOW="audio")
    night.wait_until_slow()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert night.start().wait(60) == 0
    assert night.stages() == ALL[2:]
    assert next(line for line in night.notes.read_text().splitlines() if "--resume" in line).startswith("train audio")


def test_on_a_gpu_audio_runs_beside_the_autoencoder_and_gestures_beside_the_student(gpu: Recipe) -> None:
    process = gpu.start(SLOW="gestures")
    gpu.wait_until_slow()
    took, until = gpu.run / "took.txt", time.monotonic() + 60
    while "decoder" not in took.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert process.poll() is None and sorted(gpu.stages()) == sorted(ALL)
    assert set(gpu.stages()[:2]) == {"train vae", "train audio"}
    assert gpu.stages()[2:4] == ["train encoder", "train teacher"]
    assert [stage for stage in gpu.stages() if stage not in ALL[:4]] == ALL[4:]
    process.terminate()
    assert process.wait(60) == 130
    assert "gestures" not in took.read_text()
    assert gpu.start().wait(60) == 0
    assert gpu.stages() == ["train gestures"] and "--resume" in gpu.notes.read_text()


def test_on_a_gpu_a_stage_that_fails_stops_what_runs_beside_it(gpu: Recipe) -> None:
    assert gpu.start(FAIL="decoder", SLOW="gestures").wait(20) == 1
    assert gpu.start().wait(60) == 0
    assert sorted(gpu.stages()) == ["train decoder", "train gestures"]
    assert next(line for line in gpu.notes.read_text().splitlines() if "gestures" in line).endswith("--resume")


def test_how_it_is_used() -> None:
    said = subprocess.run([SCRIPT], check=False, capture_output=True, text=True)
    assert said.returncode == 2 and "night [RUN]" in said.stderr and "#" not in said.stderr
