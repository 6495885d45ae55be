"""Samples, video frames and latent frames, against the definitions written out."""

import numpy as np
import pytest
import torch

from talkingmachines.audio.alignment import (
    audio_windows,
    frames_in,
    frames_of,
    latent_modes,
    num_frames,
    num_latents,
    pad_to_frames,
)


def latent_of(frame: int) -> int:
    """The latent frame that a video frame belongs to."""
    return 0 if frame == 0 else (frame + 3) // 4


@pytest.mark.parametrize("T", range(1, 31))
def test_every_video_frame_is_in_exactly_its_latent_frame(T: int) -> None:
    F = num_latents(T)
    assert latent_of(T - 1) == F - 1
    covered = [frame for latent in range(F) for frame in frames_of(latent)]
    assert covered == list(range(frames_in(F)))
    assert frames_in(F - 1) < T
    assert frames_in(F) >= T
    assert all(latent_of(frame) == latent for latent in range(F) for frame in frames_of(latent))


def test_no_frames() -> None:
    assert num_latents(0) == frames_in(0) == num_frames(0) == 0


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (639, 1), (640, 1), (641, 2), (16_000, 25)])
def test_num_frames_covers_the_sound(samples: int, frames: int) -> None:
    assert num_frames(samples) == frames


def test_pad_to_frames() -> None:
    samples = np.ones(700, np.float32)
    assert pad_to_frames(samples, 2).shape == (1280,)
    assert pad_to_frames(samples, 2).sum() == 700
    assert pad_to_frames(samples, 1).tolist() == [1.0] * 640
    assert pad_to_frames(samples, 2).dtype == np.float32


def heard(T: int, window: int, latent: int, ends: list[int]) -> list[int]:
    """Frame by frame: those of the latent frame and window // 2 around it, held inside what may be heard."""
    inside = [frame for frame in range(T) if all(not latent <= end < latent_of(frame) for end in ends)]
    own = [frame for frame in range(4 * T + 8) if latent_of(frame) == latent]
    places = range(own[0] - window // 2, own[-1] + window // 2 + 1)
    return [min(inside, key=lambda frame: abs(frame - place)) for place in places]


@pytest.mark.parametrize("T", range(1, 31))
@pytest.mark.parametrize("window", [1, 5, 9])
@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_windows(T: int, window: int, chunk: int | None) -> None:
    F = num_latents(T)
    ends = [] if chunk is None else list(range(chunk - 1, F, chunk))
    features = torch.arange(T).view(1, T, 1).repeat(2, 1, 3)
    windows = audio_windows(features, window, ends or None)
    assert windows.first.shape == (2, 1, window, 3)
    assert windows.rest.shape == (2, F - 1, window + 3, 3)
    assert windows.num_latents == F
    got = [windows.first[1, 0, :, 2].tolist(), *windows.rest[1, :, :, 2].tolist()]
    for latent in range(F):
        assert got[latent] == heard(T, window, latent, ends), (latent, ends)


def test_no_look_ahead_beyond_the_chunk() -> None:
    features = torch.randn(1, 25, 4, generator=torch.Generator().manual_seed(0))
    changed = features.clone()
    changed[:, frames_in(3) :] += 1
    for ends, same in (([2, 5], True), (None, False)):
        before, after = audio_windows(features, 5, ends), audio_windows(changed, 5, ends)
        assert torch.equal(before.first, after.first)
        assert torch.equal(before.rest[:, :2], after.rest[:, :2]) is same
        assert not torch.equal(before.rest[:, 2:], after.rest[:, 2:])


def test_features_of_several_layers_keep_their_shape() -> None:
    windows = audio_windows(torch.zeros(1, 9, 12, 7), 5)
    assert windows.first.shape == (1, 1, 5, 12, 7)
    assert windows.rest.shape == (1, 2, 8, 12, 7)


def test_latent_modes_by_hand() -> None:
    speaking = np.array([False, False, False, False, True, False, False, False, False, True, True, True, True])
    assert latent_modes(speaking).tolist() == [0, 1, 0, 1]
