"""The DiT against diffusers' WanTransformer3DModel on the same random weights, and the names of both."""

from dataclasses import replace

import pytest
import torch
from dit_models import WAN, conditioning, noisy, random_model
from torch import nn

from talkingmachines.dit.config import DiTConfig, TextConfig
from talkingmachines.dit.model import DiT
from talkingmachines.dit.weights import AUDIO_LAYERS, diffusers_name, fresh, is_part_of, native_name

# diffusers takes the last 512 tokens for those of the text.
I2V = replace(WAN, text=TextConfig(dim=10, length=512))
T2V = replace(I2V, image=None)


def diffusers_model(config: DiTConfig, in_channels: int) -> nn.Module:
    diffusers = pytest.importorskip("diffusers", reason="needs the independent implementation: .[dev] installs it")
    assert config.text
    model = diffusers.WanTransformer3DModel(
        patch_size=config.patch,
        num_attention_heads=config.heads,
        attention_head_dim=config.head_width,
        in_channels=in_channels,
        out_channels=config.latent_channels,
        text_dim=config.text.dim,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_width,
        num_layers=config.layers,
        image_dim=config.image.dim if config.image else None,
        added_kv_proj_dim=config.width if config.image else None,
    )
    return model.eval()


def base_weights(model: DiT) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if not is_part_of(name, AUDIO_LAYERS)}


@pytest.mark.parametrize(("F", "H", "W", "B"), [(1, 4, 4, 1), (3, 4, 6, 2), (5, 10, 2, 1)])
@torch.no_grad()
def test_image_to_video(F: int, H: int, W: int, B: int) -> None:
    ours, theirs = random_model(I2V), diffusers_model(I2V, I2V.in_channels)
    theirs.load_state_dict({diffusers_name(name): tensor for name, tensor in base_weights(ours).items()})
    cond = replace(conditioning(I2V, F=F, H=H, W=W, B=B), audio=None)
    x, sigma = noisy(cond)
    pixels = torch.cat([x, cond.mask, cond.latents], 1)
    expected = theirs(pixels, 1000 * sigma, cond.text, cond.image, return_dict=False)[0]
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(x, sigma, cond), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("F", "H", "W"), [(1, 4, 4), (4, 6, 2)])
@torch.no_grad()
def test_text_to_video(F: int, H: int, W: int) -> None:
    """Ours with zeros for the channels of the picture, which text-to-video models do not have."""
    ours, theirs = random_model(T2V), diffusers_model(T2V, T2V.latent_channels)
    ours.patch_embedding.weight[:, T2V.latent_channels :] = 0
    weights = {diffusers_name(name): tensor for name, tensor in base_weights(ours).items()}
    weights["patch_embedding.weight"] = weights["patch_embedding.weight"][:, : T2V.latent_channels]
    theirs.load_state_dict(weights)
    cond = replace(conditioning(T2V, F=F, H=H, W=W), audio=None)
    x, sigma = noisy(cond)
    expected = theirs(x, 1000 * sigma, cond.text, return_dict=False)[0]
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(x, sigma, cond), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sigma", [1.0, 0.9375, 0.5, 0.001])
@torch.no_grad()
def test_time(sigma: float) -> None:
    """Over the whole range of timesteps, with nothing else that could hide it."""
    ours, theirs = random_model(T2V), diffusers_model(T2V, T2V.in_channels)
    theirs.load_state_dict({diffusers_name(name): tensor for name, tensor in base_weights(ours).items()})
    timestep = torch.tensor([1000 * sigma])
    time, time6, *_ = theirs.condition_embedder(timestep, torch.zeros(1, 512, 10))
    found, found6 = ours.embed_time(torch.tensor([sigma]))
    torch.testing.assert_close(found, time, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found6.flatten(1), time6, atol=1e-4, rtol=1e-4)


def test_names_there_and_back() -> None:
    for name in DiT(WAN).state_dict():
        assert native_name(diffusers_name(name)) == name
        assert native_name(name) == name
        for prefix in ("model.diffusion_model.", "diffusion_model.", "transformer.", "base_model.model."):
            assert native_name(prefix + name) == name
    assert native_name("blocks.0.self_attn.memory_proj_k.weight") == "blocks.0.self_attn.memory_proj_k.weight"


def test_names_are_those_that_diffusers_makes_of_wans() -> None:
    utils = pytest.importorskip("diffusers.loaders.single_file_utils", reason=".[dev] installs diffusers")
    weights = base_weights(DiT(WAN))
    converted = utils.convert_wan_transformer_to_diffusers(dict(weights))
    assert sorted(diffusers_name(name) for name in weights) == sorted(converted)
    assert all(torch.equal(converted[diffusers_name(name)], tensor) for name, tensor in weights.items())


def test_fresh_layers_begin_as_those_of_a_new_model() -> None:
    torch.manual_seed(0)
    new = DiT(WAN).state_dict()
    for name, tensor in new.items():
        if not is_part_of(name, AUDIO_LAYERS):
            continue
        made = fresh(name, tensor.shape)
        assert torch.equal(made, fresh(name, tensor.shape))
        if tensor.ndim == 1 or not tensor.any():
            assert torch.equal(made, tensor), name
        else:
            bound = (6 / sum(tensor.shape)) ** 0.5
            assert 0.8 * bound < made.abs().max() <= bound, name
    assert not torch.equal(fresh("blocks.0.audio_cross_attn.q_linear.weight", (8, 8)), fresh("a.weight", (8, 8)))
