"""The same things on a CUDA device: `pytest -m gpu`."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import talkingmachines
from talkingmachines.attention.attention import fused, products
from talkingmachines.attention.backends import LIMITS, attention_error, choose_attention, present_backends
from talkingmachines.avatar import Avatar, load
from talkingmachines.cli.main import main
from talkingmachines.dit.conditioning import still_conditioning
from talkingmachines.dit.fp8 import LAYER_LIMIT, Float8Linear, check_fp8, layer_error, relative_error, to_float8
from talkingmachines.dit.model import DiT
from talkingmachines.evaluation.random_avatar import random_avatar as filled_avatar
from talkingmachines.evaluation.random_avatar import random_features
from talkingmachines.media.image import read_image
from talkingmachines.presets import PRESETS, tiny, wan_14b
from talkingmachines.training.passes import Passes, passes_for, plain_passes
from talkingmachines.training.randomness import normal, step_generator
from talkingmachines.training.teacher import TeacherRecipe, TeacherStage
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
    return Avatar(spec, vae, student, torch.device(device), torch.float32, features=random_features(spec))


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


@pytest.mark.parametrize("seed", range(2))
def test_recorded_passes_of_training_are_the_same(seed: int) -> None:
    """Losses and gradients of a teacher, in float32; before, a batch of the shape that is recorded."""
    torch.manual_seed(0)
    spec = tiny()
    model, vae = DiT(spec.dit), CausalVAE(spec.vae)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    model, vae = model.cuda(), vae.cuda().requires_grad_(False)

    def learnt(passes: Passes, seed: int) -> list[torch.Tensor]:
        stage = TeacherStage(model, TeacherRecipe(), Windows(), vae, passes)
        batch = {name: tensor.cuda() for name, tensor in Windows()[seed].items()}
        loss = stage.losses(batch, torch.Generator().manual_seed(seed))["loss"]
        loss.backward()
        found = [loss.detach().cpu(), *(p.grad.cpu() for p in model.parameters() if p.grad is not None)]
        model.zero_grad()
        return found

    wanted, recorded = learnt(plain_passes, seed), passes_for(CUDA)
    learnt(recorded, 5)
    for made, one in zip(learnt(recorded, seed), wanted, strict=True):
        torch.testing.assert_close(made, one, atol=1e-3 * float(one.abs().max()), rtol=1e-3)


class Windows(Dataset[dict[str, torch.Tensor]]):
    """Random clips as TeacherStage wants them."""

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        spec, g = tiny(), torch.Generator().manual_seed(step)
        assert spec.dit.audio
        latents = torch.randn(2, spec.dit.latent_channels, 5, 8, 8, generator=g)
        return {
            "latents": latents,
            "reference": latents[:, :, 0],
            "known": torch.ones(2, dtype=torch.long),
            "features": torch.randn(2, 17, spec.dit.audio.feature_dim, generator=g),
            "modes": torch.ones(2, 5, dtype=torch.long),
            "weight": torch.ones(2, 5, 8, 8),
        }


def test_noise_is_that_of_its_step() -> None:
    made = [normal((1000, 50), torch.zeros(1, device=CUDA), step_generator(0, step)) for step in (3, 3, 4)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert abs(made[0].mean()) < 0.02 and abs(made[0].std() - 1) < 0.02


CUDA = torch.device("cuda")
WAN_SIZES = [(3072, 9216), (3072, 512), (3072, 257), (1024, 32)]


def test_the_attention_that_is_chosen_is_right() -> None:
    chosen = choose_attention(present_backends(CUDA, torch.bfloat16), CUDA, torch.bfloat16, 128, WAN_SIZES)
    q, k, v = (torch.randn(1, size, 40, 128, device="cuda", dtype=torch.bfloat16) for size in (3072, 9216, 9216))
    wanted = products(q.float(), k.float(), v.float())
    assert relative_error(chosen(q, k, v), wanted) < LIMITS[torch.bfloat16]


def test_plain_attention_is_right() -> None:
    """What is fallen back to."""
    for kernel in (fused, products):
        assert attention_error(kernel, CUDA, torch.bfloat16, 128, 1024, 3072) < LIMITS[torch.bfloat16]


def test_attention_of_other_models_goes_on_beside_it() -> None:
    """As the autoencoder's and the speech encoder's, on other threads, by kernels that take what cuDNN does not."""
    chosen = choose_attention(present_backends(CUDA, torch.bfloat16), CUDA, torch.bfloat16, 128, WAN_SIZES)
    q = torch.randn(1, 512, 4, 128, device="cuda", dtype=torch.bfloat16)
    other = torch.randn(1, 1, 256, 384, device="cuda")
    with ThreadPoolExecutor(2) as threads:
        denoising = [threads.submit(lambda: [chosen(q, q, q) for _ in range(500)]) for _ in range(2)]
        for _ in range(500):
            torch.nn.functional.scaled_dot_product_attention(other, other, other)
        assert all(len(one.result()) == 500 for one in denoising)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(3072, 5120, 13824), (96, 768, 10240), (7, 32, 64)])
def test_eight_bits_equal_their_emulation(rows: int, inputs: int, outputs: int) -> None:
    check_fp8(CUDA)
    torch.manual_seed(0)
    linear = nn.Linear(inputs, outputs, device="cuda", dtype=torch.bfloat16).requires_grad_(False)
    layer, x = Float8Linear(linear), torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16)
    eights, scale = to_float8(x)
    assert relative_error(layer(x), layer._emulated(eights, scale, torch.float32)) < 5e-3
    assert layer_error(linear, layer) < LAYER_LIMIT


def clip(device: torch.device = CUDA, **options: Any) -> np.ndarray:
    """Ten chunks, through the pipeline: frames are decoded while passes are recorded."""
    avatar, _ = filled_avatar("tiny", device, torch.float32, **options)
    speech = np.random.default_rng(0).normal(0, 0.1, 640 * 77).astype(np.float32)
    return avatar.generate(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8), speech)


def test_replayed_passes_make_the_same_video(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = clip()
    monkeypatch.setattr("talkingmachines.streaming.engine.compile_model", lambda model: None)
    monkeypatch.setattr("talkingmachines.vae.model.CausalVAE.compile_decoder", lambda self: None)
    assert np.array_equal(clip(compile=True), plain)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("compile", [False, True])
def test_decoded_on_another_device(compile: bool) -> None:
    made = clip(vae_device="cuda:1", compile=compile)
    assert np.abs(made.astype(int) - clip()).max() <= 2


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_replayed_passes_on_a_device_that_is_not_the_current_one() -> None:
    second = torch.device("cuda:1")
    assert np.abs(clip(second, compile=True).astype(int) - clip(second)).max() <= 2


def test_compiled_and_replayed_passes_make_the_same_video() -> None:
    """Of trained weights: random ones make whole grey levels, and more with every chunk, of a millionth of noise."""
    speech = np.random.default_rng(0).normal(0, 0.1, 640 * 77).astype(np.float32)
    picture = read_image(Path(talkingmachines.__file__).parent / "assets" / "demo.png")
    plain, compiled = (
        load("pocket", device="cuda", dtype=torch.float32, compile=compile).generate(picture, speech)
        for compile in (False, True)
    )
    assert np.abs(compiled.astype(int) - plain).max() <= 2


def test_two_calls_that_are_replayed_do_not_mix() -> None:
    avatar, _ = filled_avatar("tiny", CUDA, torch.float32, compile=True)
    speech = np.random.default_rng(0).normal(0, 0.1, 640 * 77).astype(np.float32)
    pictures = [np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8) for seed in range(2)]
    alone = [np.stack([frame.pixels for frame in avatar.session(one).push_audio(speech)]) for one in pictures]
    sessions, shown = [avatar.session(one) for one in pictures], ([], [])
    for piece in np.array_split(speech, 9):
        for session, frames in zip(sessions, shown, strict=True):
            frames.extend(frame.pixels for frame in session.push_audio(piece))
    for frames, wanted in zip(shown, alone, strict=True):
        assert np.abs(np.stack(frames).astype(int) - wanted[: len(frames)]).max() <= 2


@pytest.mark.parametrize("more", [[], ["--compile"], ["--compile", "--fp8"]], ids=" ".join)
def test_bench(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--preset", "tiny", "--random-weights", "--device", "cuda", "--seconds", "2", "--json"]
    assert main(["bench", *options, *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["arithmetic"]["peak_tflops"] > 1 and found["machine"]["gpu"]
    assert ("--fp8" in more) == bool(found["fp8_error"])


def test_wan_in_its_own_shape_of_one_layer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Width, heads, tokens and autoencoder of the 14 B, which no processor runs."""
    spec = wan_14b()
    monkeypatch.setitem(PRESETS, "wan_14b", lambda: replace(spec, dit=replace(spec.dit, layers=1)))
    options = ["--preset", "wan_14b", "--random-weights", "--device", "cuda", "--seconds", "2", "--json"]
    assert main(["bench", *options, "--size", "512x512"]) == 0
    assert json.loads(capsys.readouterr().out)["fps"] > 0
