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
[[ "$*" != *"train $FAIL "* ]] || exit 1
if [[ "$*" == *"train $SLOW "* ]]; then
    trap 'mkdir -p "$RUN/$SLOW"; touch "$RUN/$SLOW/state.pt"; exit 0' INT
    touch "$NOTES.slow"
    for _ in {1..300}; do sleep 0.1; done
fi
"""


class Night:
    def __init__(self, folder: Path) -> None:
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
        return subprocess.Popen(
            [SCRIPT, "night", self.run], env=environment, start_new_session=True, stdout=subprocess.PIPE
        )

    def stages(self) -> list[str]:
        return [" ".join(line.split()[:2]).removesuffix(" --matching") for line in self.notes.read_text().splitlines()]


ALL = ["train vae", "train audio", "train gestures", "train teacher", "distill", "train decoder"]


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def test_all_stages_in_order_and_what_they_took(night: Night) -> None:
    out, _ = night.start().communicate(timeout=60)
    assert night.stages() == ALL
    assert "--minutes 170" in night.notes.read_text() and "--resume" not in night.notes.read_text()
    assert out.decode() == (night.run / "took.txt").read_text()
    assert [line.split()[0] for line in out.decode().splitlines()] == [stage.split()[-1] for stage in ALL[:4]] + [
        "student",
        "decoder",
    ]


def test_it_goes_on_where_it_failed(night: Night) -> None:
    assert night.start(FAIL="gestures").wait(60) == 1
    assert night.stages() == ALL[:3]
    assert night.start().wait(60) == 0
    assert night.stages() == ALL[2:]


def test_a_stage_that_was_stopped_is_not_done(night: Night) -> None:
    """It ends well, with a checkpoint."""
    process = night.start(SLOW="audio")
    slow, until = night.notes.with_suffix(".slow"), time.monotonic() + 60
    while not slow.exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert night.start().wait(60) == 0
    assert night.stages() == ALL[1:]
    assert next(line for line in night.notes.read_text().splitlines() if "--resume" in line).startswith("train audio")


def test_how_it_is_used() -> None:
    said = subprocess.run([SCRIPT], check=False, capture_output=True, text=True)
    assert said.returncode == 2 and "night [RUN]" in said.stderr and "#" not in said.stderr
