"""Wan2.1's autoencoder against diffusers' AutoencoderKLWan on the same random weights, and against itself in pieces."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from talkingmachines.errors import CheckpointError, ConfigError
from talkingmachines.vae.wan import WanState, WanVAE
from talkingmachines.vae.wan_config import WanVAEConfig
from talkingmachines.vae.wan_weights import diffusers_names, read_wan_vae, to_diffusers, to_native

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def tiny(**other: Any) -> WanVAEConfig:
    return WanVAEConfig(dim=8, num_res_blocks=1, **other)


def random_vae(config: WanVAEConfig) -> WanVAE:
    """Every weight random, the zero ones of a fresh model too, so that no path is hidden."""
    torch.manual_seed(0)
    vae = WanVAE(config).eval().requires_grad_(False)
    for name, parameter in vae.named_parameters():
        if name.endswith("gamma"):
            parameter.uniform_(0.5, 1.5)
        else:
            fan_in = max(parameter[0].numel(), 8)
            parameter.normal_(std=fan_in**-0.5)
    return vae


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    return random_vae(tiny())


def theirs(vae: WanVAE) -> Any:
    """diffusers' autoencoder with the weights of ours."""
    diffusers = pytest.importorskip("diffusers")
    config = vae.config
    model = diffusers.AutoencoderKLWan(
        base_dim=config.dim,
        z_dim=config.latent_channels,
        dim_mult=list(config.dim_mult),
        num_res_blocks=config.num_res_blocks,
        temperal_downsample=list(config.temporal_downsample),
        latents_mean=list(config.latent_mean),
        latents_std=list(config.latent_std),
    )
    model.load_state_dict(to_diffusers(vae.state_dict(), config))
    return model.eval()


CONFIGS = [
    tiny(),
    WanVAEConfig(dim=8),
    WanVAEConfig(16, 4, (1, 1, 2, 3), 1, (True, False, True), (0.5, -1.0, 0.0, 2.0), (1.0, 2.0, 0.5, 3.0)),
]


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS, ids=["tiny", "two layers a size", "other numbers"])
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (5, 24, 16), (17, 16, 32)])
def test_equals_diffusers(config: WanVAEConfig, frames: int, height: int, width: int) -> None:
    vae = random_vae(config)
    model = theirs(vae)
    video = torch.rand(2, 3, frames, height, width) * 2 - 1
    mean = torch.tensor(model.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(model.config.latents_std).view(1, -1, 1, 1, 1)

    latents = vae.encode(video)
    assert latents.shape == (2, config.latent_channels, 1 + (frames - 1) // 4, height // 8, width // 8)
    torch.testing.assert_close(latents, (model.encode(video).latent_dist.mean - mean) / std, **CLOSE)

    made = vae.decode(latents)
    assert made.shape == video.shape
    inside = made.abs() < 1
    assert inside.float().mean() > 0.5, "most pixels are cut off, so the comparison says little"
    torch.testing.assert_close(made.clamp(-1, 1), model.decode(latents * std + mean).sample, **CLOSE)


def in_pieces(vae: WanVAE, latents: Tensor, split: list[int]) -> Tensor:
    state, parts = None, []
    for piece in latents.split(split, 2):
        video, state = vae.decode_next(piece, state)
        parts.append(video)
    return torch.cat(parts, 2)


def splits(total: int) -> list[list[int]]:
    """Every way of cutting `total` frames."""
    found = []
    for cuts in product([False, True], repeat=total - 1):
        ends = [index + 1 for index, cut in enumerate(cuts) if cut] + [total]
        found.append([end - start for start, end in zip([0, *ends], ends, strict=False)])
    return found


@pytest.mark.parametrize("split", splits(5), ids=str)
def test_streaming_decode_equals_whole_decode(vae: WanVAE, split: list[int]) -> None:
    latents = torch.randn(1, 16, 5, 2, 3, generator=torch.Generator().manual_seed(1))
    made, whole = in_pieces(vae, latents, split), vae.decode(latents)
    for frame in range(whole.shape[2]):
        torch.testing.assert_close(made[:, :, frame], whole[:, :, frame], atol=1e-5, rtol=1e-5, msg=f"frame {frame}")


def test_a_state_can_be_used_twice(vae: WanVAE) -> None:
    """It is a value: decoding on from it leaves it as it was, and two calls do not meet."""
    first, then, other = torch.randn(3, 1, 16, 2, 2, 2).unbind()
    _, state = vae.decode_next(first, None)
    made, _ = vae.decode_next(then, state)
    vae.decode_next(other, state)
    assert torch.equal(vae.decode_next(then, state)[0], made)


def test_the_state_does_not_grow(vae: WanVAE) -> None:
    def bytes_of(state: WanState) -> int:
        tensors = [state.opening, state.closing, *[tensor for layer in state.layers for tensor in layer]]
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

    _, short = vae.decode_next(torch.randn(1, 16, 1, 2, 2), None)
    _, long = vae.decode_next(torch.randn(1, 16, 7, 2, 2), short)
    assert bytes_of(short) == bytes_of(long)


def test_a_later_latent_changes_no_earlier_frame(vae: WanVAE) -> None:
    latents = torch.randn(1, 16, 5, 2, 2)
    changed = latents.clone()
    changed[:, :, 3:] += 1
    before, after = vae.decode(latents), vae.decode(changed)
    assert torch.equal(before[:, :, :9], after[:, :, :9])
    assert not torch.equal(before[:, :, 9:], after[:, :, 9:])


@pytest.mark.parametrize("frames", [1, 5, 13, 17, 29])
def test_a_long_clip_is_encoded_in_pieces_without_a_seam(vae: WanVAE, frames: int) -> None:
    video = torch.rand(1, 3, frames, 16, 16) * 2 - 1
    latents = vae.encode(video)
    mean, std = (values.view(-1, 1, 1, 1) for values in (vae.latent_mean, vae.latent_std))
    whole = (vae.conv1(vae.encoder(video, None)[0]).chunk(2, 1)[0] - mean) / std
    torch.testing.assert_close(latents, whole, **CLOSE)
    torch.testing.assert_close(vae.encode_image(video[:, :, 0]), latents[:, :, 0], **CLOSE)


def test_half_precision_keeps_its_type_and_stays_near() -> None:
    vae = random_vae(tiny())
    latents = torch.randn(1, 16, 3, 2, 2)
    whole = vae.decode(latents)
    made = in_pieces(vae.to(torch.bfloat16), latents.bfloat16(), [1, 2])
    assert made.dtype == torch.bfloat16
    assert (made.float() - whole).abs().mean() < 0.1 * whole.abs().mean()


def test_autocast_streams_too(vae: WanVAE) -> None:
    latents = torch.randn(1, 16, 3, 2, 2)
    whole = vae.decode(latents)
    with torch.autocast("cpu", torch.bfloat16):
        made = in_pieces(vae, latents, [2, 1])
    assert (made.float() - whole).abs().mean() < 0.05 * whole.abs().mean()


def test_the_full_model_has_the_names_and_size_of_the_checkpoint() -> None:
    with torch.device("meta"):
        vae = WanVAE(WanVAEConfig())
    shapes = {name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()}
    assert sum(tensor.numel() for tensor in vae.state_dict().values()) == 126_892_531
    for name, shape in {
        "encoder.conv1.weight": (96, 3, 3, 3, 3),
        "encoder.downsamples.0.residual.0.gamma": (96, 1, 1, 1),
        "encoder.downsamples.2.resample.1.weight": (96, 96, 3, 3),
        "encoder.downsamples.5.time_conv.weight": (192, 192, 3, 1, 1),
        "encoder.downsamples.3.shortcut.weight": (192, 96, 1, 1, 1),
        "encoder.middle.1.to_qkv.weight": (1152, 384, 1, 1),
        "encoder.head.2.weight": (32, 384, 3, 3, 3),
        "conv1.weight": (32, 32, 1, 1, 1),
        "conv2.weight": (16, 16, 1, 1, 1),
        "decoder.middle.1.norm.gamma": (384, 1, 1),
        "decoder.upsamples.3.time_conv.weight": (768, 384, 3, 1, 1),
        "decoder.upsamples.4.shortcut.weight": (384, 192, 1, 1, 1),
        "decoder.upsamples.11.resample.1.weight": (96, 192, 3, 3),
        "decoder.upsamples.14.residual.6.weight": (96, 96, 3, 3, 3),
        "decoder.head.2.weight": (3, 96, 3, 3, 3),
    }.items():
        assert shapes[name] == shape, name


@pytest.mark.parametrize("config", CONFIGS, ids=["tiny", "two layers a size", "other numbers"])
def test_names_are_those_of_diffusers_one_for_one(config: WanVAEConfig) -> None:
    vae = random_vae(config)
    model = theirs(vae)
    assert set(diffusers_names(config).values()) == set(model.state_dict())
    back = to_native(model.state_dict(), config)
    assert back.keys() == vae.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in vae.state_dict().items())


@pytest.mark.parametrize("naming", ["native", "diffusers", "pth"])
def test_read_from_a_file(vae: WanVAE, tmp_path: Path, naming: str) -> None:
    from safetensors.torch import save_file

    tensors = vae.state_dict()
    if naming == "pth":
        path = tmp_path / "vae.pth"
        torch.save(tensors, path)
    else:
        path = tmp_path / "vae.safetensors"
        save_file(to_diffusers(tensors, vae.config) if naming == "diffusers" else tensors, path)
    read = read_wan_vae(path, vae.config)
    assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in tensors.items())


def test_what_is_wrong_with_a_file_is_said(vae: WanVAE, tmp_path: Path) -> None:
    tensors = dict(vae.state_dict())
    lacking = {name: tensor for name, tensor in tensors.items() if name != "conv2.bias"}
    with pytest.raises(CheckpointError, match=r"conv2\.bias"):
        to_native(lacking, vae.config)
    with pytest.raises(CheckpointError, match="mystery"):
        to_native({**tensors, "mystery": torch.zeros(1)}, vae.config)
    path = tmp_path / "vae.pth"
    with pytest.raises(CheckpointError, match="does not exist"):
        read_wan_vae(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="damaged"):
        read_wan_vae(path)
    path.with_suffix(".safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="damaged"):
        read_wan_vae(path.with_suffix(".safetensors"))
    for other in ([1, 2], torch.zeros(2), {"state_dict": tensors}):
        torch.save(other, path)
        with pytest.raises(CheckpointError, match=r"vae\.pth holds something else"):
            read_wan_vae(path, vae.config)
    torch.save(lacking, path)
    with pytest.raises(CheckpointError, match=r"vae\.pth: .*conv2\.bias"):
        read_wan_vae(path, vae.config)
    torch.save({**tensors, "conv2.bias": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"conv2\.bias \[3\]"):
        read_wan_vae(path, vae.config)


def test_config_names_the_bad_value() -> None:
    with pytest.raises(ConfigError, match="16 values, got 16 and 3"):
        WanVAEConfig(latent_std=(1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match="two True"):
        WanVAEConfig(temporal_downsample=(True, True, True))
