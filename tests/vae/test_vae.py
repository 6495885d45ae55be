import pytest
import torch

from talkingmachines.errors import ConfigError
from talkingmachines.patches import to_patches
from talkingmachines.vae.config import VAEConfig
from talkingmachines.vae.model import CausalVAE, stack_frames, to_pictures
from talkingmachines.vae.pca import start_from_pca


def random_vae(seed: int = 0) -> CausalVAE:
    """Small and with every weight random, so that no path is hidden behind a zero."""
    torch.manual_seed(seed)
    vae = CausalVAE(VAEConfig(4, 8, (8, 8), (2, 1), (8, 8), (2, 2))).eval()
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    vae.latent_mean.normal_()
    vae.latent_std.uniform_(0.5, 2.0)
    return vae


def clips(pictures: torch.Tensor, count: int) -> torch.Tensor:
    """Video frames [B * T, 3, H, W], clip after clip -> [B, 3, T, H, W], B = `count`."""
    return pictures.unflatten(0, (count, -1)).movedim(1, 2)


@pytest.mark.parametrize("frames", [1, 5, 9, 21])
def test_shapes(frames: int) -> None:
    vae = random_vae()
    video = torch.randn(2, 3, frames, 24, 16)
    latents = vae.encode(video)
    assert latents.shape == (2, 4, 1 + (frames - 1) // 4, 3, 2)
    assert vae.decode(latents).shape == video.shape


@pytest.mark.parametrize("split", [[6], [1, 5], [1, 1, 1, 1, 1, 1], [2, 3, 1], [3, 3], [5, 1]])
def test_streaming_decode_equals_whole_decode(split: list[int]) -> None:
    vae = random_vae()
    latents = torch.randn(2, 4, 6, 3, 2)
    state, parts = None, []
    for piece in latents.split(split, dim=2):
        video, state = vae.decode_next(piece, state)
        parts.append(video)
    torch.testing.assert_close(torch.cat(parts, dim=2), vae.decode(latents), atol=1e-4, rtol=1e-4)


def test_decode_is_causal() -> None:
    vae = random_vae()
    latents = torch.randn(1, 4, 5, 3, 2)
    changed = latents.clone()
    changed[:, :, 3:] += 1
    before, after = vae.decode(latents), vae.decode(changed)
    assert torch.equal(before[:, :, :9], after[:, :, :9])
    assert not torch.equal(before[:, :, 9:], after[:, :, 9:])


@torch.no_grad()
def test_each_frame_is_moved_by_its_flow() -> None:
    """Against a roll of what is drawn; away from the edges, where a roll brings in the other side."""
    vae = random_vae()
    latents, last = torch.randn(2, 4, 3, 4, 5), vae.decoder.flow[2]
    last.weight.zero_()
    last.bias.zero_()
    still = vae.decode(latents)
    last.bias.view(4, 2)[2] = torch.tensor([3.0, -2.0])
    expected = still.clone()
    expected[:, :, 3::4] = torch.roll(still[:, :, 3::4], (2, -3), (3, 4))
    inside = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(vae.decode(latents)[inside], expected[inside], atol=1e-3, rtol=1e-3)


def test_encode_is_causal_and_first_frame_is_alone() -> None:
    vae = random_vae()
    video = torch.randn(1, 3, 9, 16, 16)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(vae.encode_image(video[:, :, 0]), vae.encode(video)[:, :, 0], **close)
    torch.testing.assert_close(vae.encode(video[:, :, :5]), vae.encode(video)[:, :, :2], **close)


@torch.no_grad()
def test_what_the_decoder_misses_is_coded_as_well() -> None:
    vae = random_vae()
    vae.latent_mean.zero_()
    vae.latent_std.fill_(1)
    video = torch.randn(1, 3, 5, 16, 16)
    first = vae.encode(video, corrected=False)
    missed = video - vae.decode(first)
    added = vae.correction(torch.cat([missed[:, :, :1].expand(-1, -1, 3, -1, -1), missed], 2))
    torch.testing.assert_close(vae.encode(video), first + added, atol=1e-4, rtol=1e-4)


def test_a_correction_begins_as_none() -> None:
    vae = CausalVAE(VAEConfig(4, 8, (8, 8), (1, 1), (8, 8), (1, 1)))
    video = torch.randn(1, 3, 5, 16, 16)
    assert torch.equal(vae.encode(video), vae.encode(video, corrected=False))


def test_patches_round_trip() -> None:
    video = torch.randn(2, 3, 8, 16, 24)
    for size in (4, 8):
        assert torch.equal(clips(to_pictures(to_patches(stack_frames(video), size).movedim(-1, 1), size), 2), video)


def test_pca_start_is_the_best_linear_code() -> None:
    """Clips that lie in a 4-dimensional space are rebuilt exactly, with white latents."""
    torch.manual_seed(0)
    vae = CausalVAE(VAEConfig(4, 8, (8, 8), (1, 1), (8, 8), (1, 1)))
    basis = torch.randn(4, 12 * 64)
    video = clips(to_pictures((torch.randn(2 * 8, 3, 2, 4) @ basis + 0.3).movedim(-1, 1), 8), 2)
    start_from_pca(vae, video)
    latents = vae.encoder(video)
    rebuilt, _ = vae.decoder(latents, None)
    torch.testing.assert_close(rebuilt, video, atol=1e-3, rtol=1e-3)
    rows = latents.movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(torch.cov(rows.T), torch.eye(4), atol=0.05, rtol=0.05)


def test_config_names_the_bad_value() -> None:
    with pytest.raises(ConfigError, match="16"):
        VAEConfig(spatial_stride=16)
    with pytest.raises(ConfigError, match="30"):
        VAEConfig(encoder_widths=(30, 64))
