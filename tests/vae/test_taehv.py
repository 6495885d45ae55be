from itertools import pairwise
from pathlib import Path

import pytest
import torch

from talkingmachines.errors import CheckpointError
from talkingmachines.vae.taehv import TAEHV, TinyWanVAE, load_taehv, read_taehv
from talkingmachines.vae.wan import WanVAE
from talkingmachines.vae.wan_config import WanVAEConfig

WIDTHS = (16, 8, 8, 4)


@pytest.fixture(scope="module")
def tiny() -> TAEHV:
    torch.manual_seed(0)
    return TAEHV(WIDTHS).eval().requires_grad_(False)


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (3, 4), (1, 2, 3, 4), (2, 3)], ids=str)
def test_streaming_decode_equals_whole_decode(tiny: TAEHV, cuts: tuple[int, ...]) -> None:
    latents = torch.randn(2, 16, 5, 2, 3, generator=torch.Generator().manual_seed(1))
    state, parts = None, []
    for start, stop in pairwise((0, *cuts, 5)):
        video, state = tiny.decode_next(latents[:, :, start:stop], state)
        parts.append(video)
    made, whole = torch.cat(parts, 2), tiny.decode(latents)
    assert whole.shape == (2, 3, 17, 16, 24)
    torch.testing.assert_close(made, whole, atol=1e-5, rtol=1e-5)


def test_a_later_latent_changes_no_earlier_frame(tiny: TAEHV) -> None:
    latents = torch.randn(1, 16, 5, 2, 2)
    changed = latents.clone()
    changed[:, :, 3:] += 1
    before, after = tiny.decode(latents), tiny.decode(changed)
    assert torch.equal(before[:, :, :9], after[:, :, :9])
    assert not torch.equal(before[:, :, 9:], after[:, :, 9:])


def test_each_memory_sees_one_frame_back(tiny: TAEHV) -> None:
    """Through six memories at a quarter of the rate and three at half of it, and no further."""
    latents = torch.randn(1, 16, 12, 1, 1)
    changed = latents.clone()
    changed[:, :, 0] += 1
    difference = (tiny.decode(latents) - tiny.decode(changed)).abs().amax((0, 1, 3, 4))
    assert (difference[:9] > 0).any() and not difference[4 * (6 + 2) + 1 :].any()


def test_the_full_decoder_has_the_names_of_the_checkpoint() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in TAEHV().state_dict().items()}
    for name, shape in {
        "decoder.1.weight": (256, 16, 3, 3),
        "decoder.3.conv.0.weight": (256, 512, 3, 3),
        "decoder.5.conv.4.bias": (256,),
        "decoder.7.conv.weight": (256, 256, 1, 1),
        "decoder.8.weight": (128, 256, 3, 3),
        "decoder.13.conv.weight": (256, 128, 1, 1),
        "decoder.14.weight": (64, 128, 3, 3),
        "decoder.19.conv.weight": (128, 64, 1, 1),
        "decoder.20.weight": (64, 64, 3, 3),
        "decoder.22.weight": (3, 64, 3, 3),
    }.items():
        assert shapes[name] == shape, name


def test_weights_of_more_frames_than_are_used(tiny: TAEHV) -> None:
    """The frames that are used are the last ones. The encoder's weights are passed over."""
    tensors = dict(tiny.state_dict())
    kept = tensors["decoder.7.conv.weight"]
    tensors["decoder.7.conv.weight"] = torch.cat([torch.randn_like(kept), kept])
    tensors["encoder.0.weight"] = torch.zeros(1)
    other = TAEHV(WIDTHS)
    load_taehv(tensors, other)
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in tiny.state_dict().items())


def test_what_is_wrong_with_weights_is_said(tiny: TAEHV, tmp_path: Path) -> None:
    tensors = dict(tiny.state_dict())
    with pytest.raises(CheckpointError, match=r"decoder\.22\.bias, which is not there"):
        load_taehv({name: tensors[name] for name in tensors if name != "decoder.22.bias"}, TAEHV(WIDTHS))
    with pytest.raises(CheckpointError, match=r"no decoder\.3\.more\.weight"):
        load_taehv({**tensors, "decoder.3.more.weight": torch.zeros(1)}, TAEHV(WIDTHS))
    with pytest.raises(CheckpointError, match=r"decoder\.22\.bias \[3\], got \[4\]"):
        load_taehv({**tensors, "decoder.22.bias": torch.zeros(4)}, TAEHV(WIDTHS))
    path = tmp_path / "taew2_1.pth"
    torch.save(tensors, path)
    with pytest.raises(CheckpointError, match="wants decoder"):
        read_taehv(path)


def test_it_stands_in_for_the_decoder_of_wan(tiny: TAEHV) -> None:
    torch.manual_seed(0)
    wan = WanVAE(WanVAEConfig(dim=8, num_res_blocks=1)).eval().requires_grad_(False)
    both = TinyWanVAE(wan, tiny)
    latents = both.encode(torch.rand(1, 3, 5, 16, 16))
    assert torch.equal(both.encode_image(torch.zeros(1, 3, 16, 16)), wan.encode_image(torch.zeros(1, 3, 16, 16)))
    assert both.decode(latents).shape == (1, 3, 5, 16, 16)
    assert both.config.spatial_stride == 8
