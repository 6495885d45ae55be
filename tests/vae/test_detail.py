"""What is put back of a picture, and where."""

import torch
from torch import Tensor
from torch.nn import functional as F

from talkingmachines.moving import move
from talkingmachines.vae.detail import Detail

SIZE = 128


def given_and_rebuilt() -> tuple[Tensor, Tensor]:
    """A picture [1, 3, SIZE, SIZE], and what an autoencoder makes of it, without its finest detail."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 3, SIZE // 8, SIZE // 8, generator=g) / 2
    rebuilt = F.interpolate(coarse, (SIZE, SIZE), mode="bicubic", antialias=True)
    return rebuilt + 0.2 * torch.randn(rebuilt.shape, generator=g), rebuilt


def test_what_stands_still_is_as_it_was_given_and_what_is_new_as_it_was_made() -> None:
    picture, rebuilt = given_and_rebuilt()
    video = rebuilt[:, :, None].repeat(1, 1, 4, 1, 1)
    video[:, :, 2, 40:72, 40:72] = 1 - video[:, :, 2, 40:72, 40:72]
    before = video.clone()
    made = Detail.of(picture, rebuilt[:, :, None]).put_back(video)
    for frame in (0, 1, 3):
        torch.testing.assert_close(made[:, :, frame], picture, atol=0.01, rtol=0)
    assert (made - video)[:, :, 2, 44:68, 44:68].square().mean().sqrt() < 0.03
    there = torch.ones(SIZE, SIZE, dtype=torch.bool)
    there[16:96, 16:96] = False
    assert (made[:, :, 2] - picture)[..., there].square().mean().sqrt() < 0.02
    assert torch.equal(video, before), "nothing is written into what the decoder made"


def test_what_moves_takes_its_detail_along() -> None:
    """A picture that goes some pixels to the side, each frame farther: by whole ones, which blur nothing."""
    picture, rebuilt = given_and_rebuilt()
    flow = torch.stack([torch.tensor([2.0 * frame, -float(frame)]) for frame in range(5)]).view(1, 10, 1, 1)
    flow = flow.expand(1, 10, SIZE // 8, SIZE // 8)
    video, true = move(rebuilt, flow, 8), move(picture, flow, 8)
    made = Detail.of(picture, rebuilt[:, :, None]).put_back(video)
    inside = (..., slice(16, -16), slice(16, -16))
    lost, left = ((true - part)[inside].square().mean().sqrt() for part in (video, made))
    assert 0.19 < lost < 0.21 and left < 0.3 * lost


def test_grain_of_the_video_does_not_blur_what_stands_still() -> None:
    picture, rebuilt = given_and_rebuilt()
    grain = 1.5 / 127.5 * torch.randn(1, 3, 6, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    made = Detail.of(picture, rebuilt[:, :, None]).put_back(rebuilt[:, :, None] + grain)
    assert (made - picture[:, :, None]).square().mean().sqrt() < 0.5 / 127.5


def test_in_what_it_is_computed_does_not_matter() -> None:
    picture, rebuilt = given_and_rebuilt()
    video = rebuilt[:, :, None].bfloat16()
    made = Detail.of(picture, video).put_back(video)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made[:, :, 0], picture, atol=0.02, rtol=0)


def test_a_picture_that_is_larger_than_the_video() -> None:
    """Its own pixels where nothing moves, and the video's, made larger, where it shows something new."""
    picture, rebuilt = given_and_rebuilt()
    large = picture.repeat_interleave(2, 2).repeat_interleave(2, 3)
    large[..., ::2, ::2] += 0.2
    video = rebuilt[:, :, None].repeat(1, 1, 3, 1, 1)
    video[:, :, 1, 40:72, 40:72] = 1 - video[:, :, 1, 40:72, 40:72]
    made = Detail.of(large, rebuilt[:, :, None]).put_back(video)
    assert made.shape == (1, 3, 3, 2 * SIZE, 2 * SIZE)
    for frame in (0, 2):
        torch.testing.assert_close(made[:, :, frame], large, atol=0.01, rtol=0)
    new = F.interpolate(video[:, :, 1], scale_factor=2, mode="bilinear")
    assert (made[:, :, 1] - new)[..., 88:136, 88:136].square().mean().sqrt() < 0.03
