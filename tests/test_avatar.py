from pathlib import Path

import numpy as np
import pytest
import torch

import talkingmachines
from talkingmachines.avatar import Avatar, box_mask, choose_device, latent_modes, load, window_starts
from talkingmachines.dit.model import DiT
from talkingmachines.errors import CheckpointError, ConfigError, MediaError
from talkingmachines.presets import tiny
from talkingmachines.vae.model import CausalVAE
from talkingmachines.weights import save_weights


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    """Random weights, none of them zero, so that audio, picture and seed all reach the output."""
    torch.manual_seed(0)
    spec = tiny()
    vae, teacher = CausalVAE(spec.vae), DiT(spec.dit)
    for parameter in [*vae.parameters(), *teacher.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    return Avatar(spec, vae, teacher, torch.device("cpu"))


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (70, 90, 3), dtype=np.uint8)


def speech(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 640, 800, 16_000, 30_001])
def test_any_length(avatar: Avatar, samples: int) -> None:
    clip = avatar.generate(picture(), speech(samples))
    assert clip.shape == (-(-samples // 640), 64, 64, 3) and clip.dtype == np.uint8


def test_same_seed_same_video_other_seed_other_video(avatar: Avatar) -> None:
    first = avatar.generate(picture(), speech(20_000), seed=1)
    assert np.array_equal(first, avatar.generate(picture(), speech(20_000), seed=1))
    assert not np.array_equal(first, avatar.generate(picture(), speech(20_000), seed=2))


def test_picture_and_speech_and_settings_matter(avatar: Avatar) -> None:
    first = avatar.generate(picture(), speech(20_000))
    assert not np.array_equal(first, avatar.generate(picture(1), speech(20_000)))
    assert not np.array_equal(first, avatar.generate(picture(), speech(20_000, 1)))
    assert not np.array_equal(first, avatar.generate(picture(), speech(20_000), guidance=3.0))
    assert not np.array_equal(first, avatar.generate(picture(), speech(20_000), steps=3))
    assert not np.array_equal(first, avatar.generate(picture(), speech(20_000), face_box=(0, 0, 0.3, 0.3)))


def test_first_frame_is_the_picture_as_the_autoencoder_makes_it(avatar: Avatar) -> None:
    from talkingmachines.avatar import to_frames, to_tensor
    from talkingmachines.media.image import fit_image

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pixels = to_tensor(fit_image(picture(), 64))
        rebuilt = to_frames(avatar.vae.decode(avatar.vae.encode_image(pixels)[:, :, None]))
    made = avatar.generate(picture(), speech(5_000))
    assert np.abs(made[0].astype(int) - rebuilt[0]).max() <= 2


def test_blocks_add_up_to_the_clip(avatar: Avatar) -> None:
    blocks = list(avatar.stream_generate(picture(), speech(40_000)))
    assert len(blocks) > 2
    assert np.array_equal(np.concatenate(blocks), avatar.generate(picture(), speech(40_000)))


def test_progress_counts_to_the_end(avatar: Avatar) -> None:
    seen: list[tuple[int, int]] = []
    avatar.generate(picture(), speech(40_000), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1)) and seen[-1] == (len(seen), len(seen))


@pytest.mark.parametrize(
    "bad", [np.zeros(0, np.float32), np.zeros((2, 100), np.float32), np.array([0.0, np.nan], np.float32)]
)
def test_bad_speech(avatar: Avatar, bad: np.ndarray) -> None:
    with pytest.raises(MediaError):
        avatar.generate(picture(), bad)


def test_bad_settings(avatar: Avatar) -> None:
    with pytest.raises(ConfigError, match="steps"):
        avatar.generate(picture(), speech(1000), steps=0)
    with pytest.raises(ConfigError, match="guidance"):
        avatar.generate(picture(), speech(1000), guidance=float("nan"))


def test_window_starts_cover_the_clip() -> None:
    for total in range(1, 60):
        covered: list[int] = []
        for index, start in enumerate(window_starts(total, 13, 3)):
            covered += range(start + (3 if index else 0), min(start + 13, total))
        assert covered == list(range(total))


def test_latent_modes_by_hand() -> None:
    speaking = np.array([False, False, False, False, True, False, False, False, False, True, True, True, True])
    assert latent_modes(speaking).tolist() == [0, 1, 0, 1]


def test_box_mask_by_hand() -> None:
    assert box_mask((0.25, 0.5, 0.75, 1.0), 4, 4).tolist() == [[0] * 4, [0] * 4, [0, 1, 1, 0], [0, 1, 1, 0]]


def test_load_round_trip(avatar: Avatar, tmp_path: Path) -> None:
    for name in ("vae", "teacher"):
        save_weights(tmp_path, name, getattr(avatar, name), {"preset": "tiny"})
    loaded = load(str(tmp_path), device="cpu")
    made = loaded.generate(picture(), speech(8_000))
    again = talkingmachines.load(str(tmp_path), device="cpu").generate(picture(), speech(8_000))
    assert loaded.size == 64 and np.array_equal(made, again)


def test_load_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a preset"):
        load("no-such-preset")
    with pytest.raises(CheckpointError, match="no teacher weights"):
        load(str(tmp_path))
    save_weights(tmp_path, "teacher", torch.nn.Linear(2, 2), {"preset": "giant"})
    with pytest.raises(CheckpointError, match="giant"):
        load(str(tmp_path))
    with pytest.raises(ConfigError, match="device"):
        choose_device("quantum")
