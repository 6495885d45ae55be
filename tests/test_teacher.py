from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_weights import save_features

from talkingmachines.dit.model import DiT
from talkingmachines.errors import CheckpointError, ConfigError, MediaError
from talkingmachines.evaluation.random_avatar import random_features
from talkingmachines.framing.cut import Fit, fit_centre
from talkingmachines.media.image import fit_image
from talkingmachines.presets import tiny
from talkingmachines.teacher import Teacher, load_teacher, window_starts
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.pixels import to_frames, to_tensor
from talkingmachines.weights import save_weights


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """Random weights, none of them zero, so that audio, picture and seed all reach the output."""
    torch.manual_seed(0)
    spec = tiny()
    vae, dit = CausalVAE(spec.vae), DiT(spec.dit)
    for parameter in [*vae.parameters(), *dit.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    return Teacher(spec, vae, dit, torch.device("cpu"), random_features(spec))


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (70, 90, 3), dtype=np.uint8)


def speech(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 640, 800, 16_000, 30_001])
def test_any_length(teacher: Teacher, samples: int) -> None:
    clip = teacher.generate(picture(), speech(samples))
    assert clip.shape == (-(-samples // 640), 64, 64, 3) and clip.dtype == np.uint8


def test_same_seed_same_video_other_seed_other_video(teacher: Teacher) -> None:
    first = teacher.generate(picture(), speech(20_000), seed=1)
    assert np.array_equal(first, teacher.generate(picture(), speech(20_000), seed=1))
    assert not np.array_equal(first, teacher.generate(picture(), speech(20_000), seed=2))


def test_pictures_are_cut_as_the_teacher_is_told(teacher: Teacher) -> None:
    def fitting(fit: Fit) -> Teacher:
        return Teacher(teacher.preset, teacher.vae, teacher.teacher, teacher.device, teacher.features, fit)

    corner = fitting(lambda pixels: fit_centre(pixels[:64, :64], 64))
    made = corner.generate(picture(), speech(5_000))
    assert np.array_equal(made, teacher.generate(picture()[:64, :64], speech(5_000)))
    part = fitting(lambda pixels: replace(fit_centre(pixels[:64, :64], 64), view=(8, 16, 56, 64)))
    larger = Image.fromarray(made[0, 16:64, 8:56]).resize((64, 64), Image.Resampling.BICUBIC)
    assert np.abs(part.generate(picture(), speech(5_000))[0].astype(int) - np.asarray(larger)).max() <= 1


def test_picture_and_speech_and_settings_matter(teacher: Teacher) -> None:
    first = teacher.generate(picture(), speech(20_000))
    assert not np.array_equal(first, teacher.generate(picture(1), speech(20_000)))
    assert not np.array_equal(first, teacher.generate(picture(), speech(20_000, 1)))
    assert not np.array_equal(first, teacher.generate(picture(), speech(20_000), guidance=3.0))
    assert not np.array_equal(first, teacher.generate(picture(), speech(20_000), steps=3))
    free = Teacher(
        replace(teacher.preset, finds_face=True), teacher.vae, teacher.teacher, teacher.device, teacher.features
    )
    assert not np.array_equal(first, free.generate(picture(), speech(20_000), face_box=(0, 0, 0.3, 0.3)))
    with pytest.raises(ConfigError, match="leave the face box out"):
        teacher.generate(picture(), speech(20_000), face_box=(0, 0, 0.3, 0.3))


def test_first_frame_is_the_picture_as_the_autoencoder_makes_it(teacher: Teacher) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pixels = to_tensor(fit_image(picture(), 64))
        rebuilt = to_frames(teacher.vae.decode(teacher.vae.encode_image(pixels)[:, :, None]))
    made = teacher.generate(picture(), speech(5_000))
    assert np.abs(made[0].astype(int) - rebuilt[0]).max() <= 2


def test_blocks_add_up_to_the_clip(teacher: Teacher) -> None:
    blocks = list(teacher.stream_generate(picture(), speech(40_000)))
    assert len(blocks) > 2
    assert np.array_equal(np.concatenate(blocks), teacher.generate(picture(), speech(40_000)))


def test_progress_counts_to_the_end(teacher: Teacher) -> None:
    seen: list[tuple[int, int]] = []
    teacher.generate(picture(), speech(40_000), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1)) and seen[-1] == (len(seen), len(seen))


@pytest.mark.parametrize(
    "bad", [np.zeros(0, np.float32), np.zeros((2, 100), np.float32), np.array([0.0, np.nan], np.float32)]
)
def test_bad_speech(teacher: Teacher, bad: np.ndarray) -> None:
    with pytest.raises(MediaError):
        teacher.generate(picture(), bad)


def test_too_loud_speech_is_cut(teacher: Teacher) -> None:
    loud = 1e300 * speech(2_000).astype(np.float64)
    assert np.array_equal(teacher.generate(picture(), loud), teacher.generate(picture(), loud.clip(-1, 1)))


@pytest.mark.parametrize("bad", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3)), "face.png"])
def test_bad_picture(teacher: Teacher, bad: np.ndarray) -> None:
    with pytest.raises(MediaError, match=r"\[H, W, 3\]"):
        teacher.generate(bad, speech(100))


def test_bad_settings(teacher: Teacher) -> None:
    with pytest.raises(ConfigError, match="steps"):
        teacher.generate(picture(), speech(1000), steps=0)
    with pytest.raises(ConfigError, match="guidance"):
        teacher.generate(picture(), speech(1000), guidance=float("nan"))


def test_window_starts_cover_the_clip() -> None:
    for total in range(1, 60):
        covered: list[int] = []
        for index, start in enumerate(window_starts(total, 13, 3)):
            covered += range(start + (3 if index else 0), min(start + 13, total))
        assert covered == list(range(total))


def test_load_round_trip(teacher: Teacher, tmp_path: Path) -> None:
    for name in ("vae", "teacher"):
        save_weights(tmp_path, name, getattr(teacher, name), {"preset": "tiny"})
    save_features(tmp_path)
    loaded = load_teacher(str(tmp_path), device="cpu")
    made = loaded.generate(picture(), speech(8_000))
    again = load_teacher(str(tmp_path), device="cpu").generate(picture(), speech(8_000))
    assert loaded.size == 64 and np.array_equal(made, again)


def test_load_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a preset"):
        load_teacher("no-such-preset")
    with pytest.raises(CheckpointError, match="no teacher weights"):
        load_teacher(str(tmp_path))


def test_of_the_large_presets_is_refused_before_it_is_made(tmp_path: Path) -> None:
    save_weights(tmp_path, "teacher", torch.nn.Linear(2, 2), {"preset": "wan_14b"})
    with pytest.raises(ConfigError, match=r"teacher of wan_14b makes no clips here: .* --as student"):
        load_teacher(str(tmp_path))
