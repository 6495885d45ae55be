"""The whole DiT: against Wan2.1 written out, and what its conditioning promises."""

from dataclasses import replace

import pytest
import torch
from dit_models import SMALL, WAN, conditioning, noisy, random_model
from wan_reference import audio_tokens, wan

from talkingmachines.dit.conditioning import Conditioning, box_mask, still_conditioning
from talkingmachines.dit.model import MIN_SIGMA, DiT, sinusoidal_embedding
from talkingmachines.flow.path import x0_from_velocity
from talkingmachines.flow.sampler import sample
from talkingmachines.flow.schedule import sampling_sigmas


@torch.no_grad()
def test_equals_wan_with_multitalk_layers() -> None:
    model, cond = random_model(WAN).double(), conditioning(WAN, B=1)
    x, sigma = noisy(cond)
    parts = {name: getattr(cond, name).double() for name in ("latents", "mask", "text", "image")}
    windows = replace(cond.audio, first=cond.audio.first.double(), rest=cond.audio.rest.double())
    out = model(x.double(), sigma, replace(cond, audio=windows, **parts))[0]
    weights = dict(model.named_parameters())
    tokens = audio_tokens(weights, windows.first[0, 0], windows.rest[0], cond.mode[0], 3)
    pixels = torch.cat([x[0].double(), parts["mask"][0], parts["latents"][0]])
    expected = wan(weights, pixels, sigma.item(), parts["text"][0], parts["image"][0], tokens, 2, 32)
    assert expected.std() > 0.1
    torch.testing.assert_close(out, expected, atol=2e-4, rtol=2e-4)


def test_sinusoidal_embedding() -> None:
    row = sinusoidal_embedding(torch.tensor([500.0]), 4)[0]
    angles = torch.tensor([500.0, 500.0 / 100], dtype=torch.float64)
    torch.testing.assert_close(row, torch.cat([angles.cos(), angles.sin()]).float())


@pytest.mark.parametrize("config", [SMALL, WAN], ids=["x0", "velocity"])
@torch.no_grad()
def test_fresh_model_predicts_the_still_reference_and_hears_nothing(config: type[SMALL]) -> None:
    torch.manual_seed(0)
    model, cond = DiT(config), conditioning(config)
    x, sigma = noisy(cond)
    out = model(x, sigma, cond)
    expected = (x - cond.latents) / sigma.view(-1, 1, 1, 1, 1) if config is SMALL else torch.zeros_like(x)
    torch.testing.assert_close(out, expected)
    if config is SMALL:  # bounded where there is no noise
        torch.testing.assert_close(model(x, 0 * sigma, cond), (x - cond.latents) / MIN_SIGMA)
    model.head.head.weight.normal_()
    assert torch.equal(model(x, sigma, cond), model(x, sigma, replace(cond, audio=None)))
    assert torch.equal(model.audio_mode.weight, torch.zeros_like(model.audio_mode.weight))


@torch.no_grad()
def test_given_frames_come_back() -> None:
    model, cond = random_model(SMALL), conditioning(SMALL, F=4)
    x, sigma = noisy(cond)
    x0 = x0_from_velocity(x, model(x, sigma, cond), sigma)
    torch.testing.assert_close(x0[:, :, 0], cond.latents[:, :, 0], atol=1e-5, rtol=1e-5)
    assert (x0[:, :, 1:] - cond.latents[:, :, 1:]).abs().mean() > 0.1
    free = model.prepare(replace(cond, audio=None))
    clip = sample(model, x, sampling_sigmas(4, 3.0), model.prepare(cond), free, 3.0)
    torch.testing.assert_close(clip[:, :, 0], cond.latents[:, :, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [SMALL, WAN], ids=["small", "wan"])
@torch.no_grad()
def test_prepared_conditioning_changes_nothing(config: type[SMALL]) -> None:
    model, cond = random_model(config), conditioning(config)
    x, sigma = noisy(cond)
    assert torch.equal(model(x, sigma, cond), model(x, sigma, model.prepare(cond)))


@torch.no_grad()
def test_every_input_matters() -> None:
    model, cond = random_model(WAN), conditioning(WAN)
    x, sigma = noisy(cond)
    before, other = model(x, sigma, cond), conditioning(WAN, seed=9)
    for name in ("latents", "text", "image", "audio"):
        after = model(x, sigma, replace(cond, **{name: getattr(other, name)}))
        assert (after - before).abs().mean() > 1e-2, name
    flipped = model(x, sigma, replace(cond, mode=1 - cond.mode))
    assert (flipped - before).abs().mean() > 1e-3
    assert (model(x, sigma, replace(cond, mask=1 - cond.mask)) - before).abs().mean() > 1e-2
    assert (model(x, sigma / 2, cond) - before).abs().mean() > 1e-2


@torch.no_grad()
def test_what_the_pocket_alone_is_given_matters() -> None:
    """The latent frame before; and the audio, to the refiner too."""
    model, cond = random_model(SMALL), conditioning(SMALL)
    x, sigma = noisy(cond)
    before, other = model(x, sigma, cond), conditioning(SMALL, seed=9)
    assert (model(x, sigma, replace(cond, previous=other.previous)) - before).abs().mean() > 1e-2
    for block in model.blocks:
        block.audio_cross_attn.proj.weight.zero_()
    before = model(x, sigma, cond)
    assert (model(x, sigma, replace(cond, audio=other.audio)) - before).abs().mean() > 1e-2


@torch.no_grad()
def test_samples_of_a_batch_do_not_mix() -> None:
    model, cond = random_model(SMALL), conditioning(SMALL)
    x, sigma = noisy(cond)
    both = model(x, sigma, cond)
    for i in (0, 1):
        one = slice(i, i + 1)
        audio = replace(cond.audio, first=cond.audio.first[one], rest=cond.audio.rest[one])
        alone = Conditioning(
            cond.latents[one], cond.mask[one], audio=audio, mode=cond.mode[one], previous=cond.previous[one]
        )
        torch.testing.assert_close(model(x[one], sigma[one], alone), both[one], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_face_mask_of_zero_is_no_audio_sample_by_sample() -> None:
    model, cond = random_model(SMALL), conditioning(SMALL)
    x, sigma = noisy(cond)
    face_mask = torch.stack([torch.zeros(2, 3), torch.ones(2, 3)])
    out = model(x, sigma, replace(cond, face_mask=face_mask))
    assert torch.equal(out[0], model(x, sigma, replace(cond, audio=None))[0])
    assert torch.equal(out[1], model(x, sigma, cond)[1])


@pytest.mark.parametrize("F", [1, 2, 5])
@torch.no_grad()
def test_any_number_of_frames(F: int) -> None:
    model, cond = random_model(SMALL), conditioning(SMALL, F=F, B=1)
    x, sigma = noisy(cond)
    assert model(x, sigma, cond).shape == x.shape


@torch.no_grad()
def test_bfloat16_under_autocast_and_as_weights() -> None:
    model, cond = random_model(SMALL), conditioning(SMALL)
    x, sigma = noisy(cond)
    exact = model(x, sigma, cond)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(x, sigma, cond)
    assert mixed.dtype == torch.float32
    half = replace(
        cond,
        latents=cond.latents.bfloat16(),
        mask=cond.mask.bfloat16(),
        previous=cond.previous.bfloat16(),
        audio=replace(cond.audio, first=cond.audio.first.bfloat16(), rest=cond.audio.rest.bfloat16()),
    )
    low = model.bfloat16()(x.bfloat16(), sigma, half)
    assert low.dtype == torch.bfloat16
    for out in (mixed, low.float()):
        assert (out - exact).pow(2).mean() < 2e-3 * exact.pow(2).mean()


def test_still_conditioning() -> None:
    reference, known = torch.randn(2, 16, 4, 4), torch.randn(2, 16, 2, 4, 4)
    cond = still_conditioning(reference, 5, 4, known)
    assert cond.latents.shape == (2, 16, 5, 4, 4)
    assert cond.mask.shape == (2, 4, 5, 4, 4)
    assert torch.equal(cond.latents[:, :, :2], known)
    assert all(torch.equal(cond.latents[:, :, frame], reference) for frame in (2, 3, 4))
    assert cond.mask[:, :, :2].min() == 1
    assert cond.mask[:, :, 2:].max() == 0
    assert torch.equal(cond.previous, known[:, :, 1:].expand(2, 16, 5, 4, 4))
    alone = still_conditioning(reference, 3, 4)
    assert alone.mask.max() == 0
    assert torch.equal(alone.previous, reference[:, :, None].expand(2, 16, 3, 4, 4))


def test_every_parameter_learns() -> None:
    model, cond = random_model(SMALL), conditioning(SMALL)
    x, sigma = noisy(cond)
    model(x, sigma, cond).square().mean().backward()
    still = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 0]
    assert still == []


def test_box_mask_by_hand() -> None:
    assert box_mask((0.25, 0.5, 0.75, 1.0), 4, 4).tolist() == [[0] * 4, [0] * 4, [0, 1, 1, 0], [0, 1, 1, 0]]
