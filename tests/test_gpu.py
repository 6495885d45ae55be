"""The same things on a CUDA device: `pytest -m gpu`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from talkingmachines.avatar import Avatar
from talkingmachines.cli.main import main
from talkingmachines.dit.conditioning import still_conditioning
from talkingmachines.dit.model import DiT
from talkingmachines.presets import tiny
from talkingmachines.vae.model import CausalVAE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def random_avatar(device: str) -> Avatar:
    torch.manual_seed(0)
    spec = tiny()
    vae, student = CausalVAE(spec.vae), DiT(spec.dit)
    for parameter in [*vae.parameters(), *student.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    return Avatar(spec, vae, student, torch.device(device))


def test_models_agree_with_the_processor_in_float32() -> None:
    cpu, gpu = random_avatar("cpu"), random_avatar("cuda")
    x, sigma = torch.randn(2, 4, 5, 8, 8), torch.tensor([0.3, 0.9])
    with torch.no_grad():
        made = cpu.student(x, sigma, still_conditioning(x[:, :, 0], 5, 4))
        same = gpu.student(x.cuda(), sigma.cuda(), still_conditioning(x[:, :, 0].cuda(), 5, 4)).cpu()
        torch.testing.assert_close(same, made, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(gpu.vae.decode(x.cuda()).cpu(), cpu.vae.decode(x), atol=1e-3, rtol=1e-3)


def test_generate_is_repeatable() -> None:
    avatar = random_avatar("cuda")
    speech = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(avatar.generate(picture, speech), avatar.generate(picture, speech))


def test_recipe(tmp_path: Path) -> None:
    from talkingmachines.data.synthetic.bank import SpeechBank

    SpeechBank.build("train", 4, 0).save(tmp_path / "speech.npz")
    common = ["--preset", "tiny", "--device", "cuda", "--run", str(tmp_path)]
    assert main(["train", "vae", "--steps", "2", *common]) == 0
    assert main(["train", "teacher", "--steps", "2", "--clips", "2", *common]) == 0
