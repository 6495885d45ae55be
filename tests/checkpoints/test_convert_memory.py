"""A conversion holds one file of what it writes, never the model: measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from talkingmachines.dit.config import DiTConfig, ImageConfig, TextConfig
from talkingmachines.dit.model import DiT

NUMBERS = {"width": 256, "ffn_width": 1024, "heads": 2, "layers": 36}
MEGABYTE = 1_000_000

PROGRAM = """
import sys
from pathlib import Path
import torch
from talkingmachines import presets
from talkingmachines.checkpoints import convert, plan
from talkingmachines.dit.config import AudioConfig, DiTConfig, ImageConfig, TextConfig
from talkingmachines.vae.wan_config import WanVAEConfig

folder, numbers = Path(sys.argv[1]), eval(sys.argv[2])
audio = AudioConfig(feature_dim=6, hidden=16, context_tokens=2, width=12)
dit = DiTConfig(**numbers, text=TextConfig(8, 4), image=ImageConfig(8, 4), audio=audio)
presets.PRESETS["long"] = lambda: presets.Preset("long", 32, dit, WanVAEConfig())
convert.SHARD_BYTES = 8_000_000
made = plan.make_plan(folder / "wan.safetensors", lora=folder / "lora.safetensors")
torch.zeros(256, 256) @ torch.zeros(256, 256)


def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


Path("/proc/self/clear_refs").write_text("5")  # The peak is counted from here.
before = status("VmRSS")
convert.convert(made, "teacher", folder / "out")
print(made.nbytes, status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read as Linux tells it")
def test_memory_is_that_of_one_file(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = DiT(DiTConfig(**NUMBERS, text=TextConfig(8, 4), image=ImageConfig(8, 4)))  # type: ignore[arg-type]
    save_file(
        {name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items()}, tmp_path / "wan.safetensors"
    )
    pairs = {f"blocks.{layer}.ffn.0.lora_A.weight": torch.ones(4, 256) for layer in range(36)}
    pairs |= {f"blocks.{layer}.ffn.0.lora_B.weight": torch.ones(1024, 4) for layer in range(36)}
    save_file(pairs, tmp_path / "lora.safetensors")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), repr(NUMBERS)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    written, grown = map(int, result.stdout.split())
    read = (tmp_path / "wan.safetensors").stat().st_size
    assert read > 150 * MEGABYTE and written > 90 * MEGABYTE
    # A file of 8 MB, a matrix of 1 MB several times over, and what the libraries take on first use.
    assert grown < 32 * MEGABYTE, f"grew by {grown / MEGABYTE:.0f} MB while writing {written / MEGABYTE:.0f} MB"
