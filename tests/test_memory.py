"""What the large presets need, and what is said where it is not there."""

from pathlib import Path

import pytest
import torch

from talkingmachines import memory
from talkingmachines.cli.main import main
from talkingmachines.errors import ConfigError
from talkingmachines.memory import check_memory, free_memory, memory_needed
from talkingmachines.presets import Preset, pocket, wan_1_3b, wan_14b

CPU, GPU = torch.device("cpu"), torch.device("cuda")
WHOLE = (512, 512)


def test_memory_of_the_full_size() -> None:
    """As docs/full-size.md has it: 37.8 GB of weights, 19.5 in eight bits, and 10.1 GB for a call."""
    spec = wan_14b()
    assert memory_needed(spec, WHOLE, fp8=False) == pytest.approx(47.8e9, rel=0.01)
    assert memory_needed(spec, WHOLE, fp8=True) == pytest.approx(37.8e9, rel=0.01)
    assert memory_needed(spec, (512, 256), fp8=False) == pytest.approx(42.8e9, rel=0.01)
    assert memory_needed(spec, WHOLE, fp8=False, kept=torch.float32) == pytest.approx(85.6e9, rel=0.01)


@pytest.mark.parametrize(
    ("make", "device", "free_gb", "fp8", "words"),
    [
        (wan_14b, GPU, 24, False, "48 GB of GPU memory, 24 are free; fp8 needs 38 GB, and a smaller size less"),
        (wan_14b, GPU, 24, True, "38 GB of GPU memory, 24 are free; take a larger one"),
        (wan_14b, CPU, 64, False, "86 GB of memory without a GPU, 64 are free; .* needs 48 GB, or 38 GB with fp8"),
        (wan_14b, GPU, 50, False, None),
        (wan_1_3b, CPU, 16, False, None),
        (pocket, CPU, 1, False, None),
    ],
)
def test_too_little_is_said(
    monkeypatch: pytest.MonkeyPatch,
    make,  # type: ignore[no-untyped-def]
    device: torch.device,
    free_gb: int,
    fp8: bool,
    words: str | None,
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: free_gb * 10**9)
    spec: Preset = make()
    dtype = torch.bfloat16
    if words is None:
        check_memory(spec, device, WHOLE, fp8, dtype)
        return
    with pytest.raises(ConfigError, match=f"{spec.name} needs more than {words}"):
        check_memory(spec, device, WHOLE, fp8, dtype)


def test_where_nobody_says_how_much_is_free_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    check_memory(wan_14b(), CPU, WHOLE, fp8=False, dtype=None)
    assert free_memory(torch.device("meta")) is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="memory is read as Linux tells it")
def test_what_is_free_here() -> None:
    free = free_memory(CPU)
    assert free is not None and 10**8 < free < 10**14


def test_the_full_size_without_a_gpu_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before gigabytes are filled with random values."""
    monkeypatch.setattr(memory, "free_memory", lambda device: 32 * 10**9)
    command = ["bench", "--preset", "wan_14b", "--random-weights", "--device", "cpu"]
    for more, words in (([], "needs more than 86 GB"), (["--size", "500x512"], "multiples of 16")):
        assert main([*command, *more]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
