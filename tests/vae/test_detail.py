"""What is put back of a picture, and where."""

import torch

from talkingmachines.vae.detail import Detail


def test_what_stands_still_is_as_it_was_given_and_what_moves_as_it_was_made() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, 32, 32, generator=generator) * 2 - 1
    rebuilt = picture[:, :, None] + 0.1 * torch.randn(1, 3, 1, 32, 32, generator=generator)
    video = rebuilt.repeat(1, 1, 4, 1, 1)
    video[:, :, 2, 10:20, 10:20] += 0.5
    made = Detail.of(picture, rebuilt).put_back(video)
    for frame in (0, 1, 3):
        torch.testing.assert_close(made[:, :, frame], picture)
    torch.testing.assert_close(made[:, :, 2, 12:18, 12:18], video[:, :, 2, 12:18, 12:18], atol=1e-3, rtol=0)
    there = torch.ones(32, 32, dtype=torch.bool)
    there[4:28, 4:28] = False
    torch.testing.assert_close(made[:, :, 2, there], picture[..., there])
    assert torch.equal(video[:, :, 1], rebuilt[:, :, 0]), "nothing is written into what the decoder made"
