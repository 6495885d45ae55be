from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_weights import save_features

import talkingmachines
from talkingmachines.avatar import Avatar, load
from talkingmachines.dit.model import DiT
from talkingmachines.errors import CheckpointError, ConfigError, MediaError
from talkingmachines.evaluation.random_avatar import random_features
from talkingmachines.framing.cut import Fit, fit_centre
from talkingmachines.media.image import fit_image, read_image
from talkingmachines.placement.pipeline import places
from talkingmachines.presets import tiny
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.pixels import to_frames, to_tensor
from talkingmachines.weights import save_weights


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    """Random weights, none of them zero, so that sound, picture and seed all reach the output."""
    torch.manual_seed(0)
    spec = tiny()
    vae, student = CausalVAE(spec.vae), DiT(spec.dit)
    for parameter in [*vae.parameters(), *student.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    return Avatar(spec, vae, student, torch.device("cpu"), features=random_features(spec))


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (70, 90, 3), dtype=np.uint8)


def speech(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 640, 800, 3200, 3201, 16_000, 100_001])
def test_any_length(avatar: Avatar, samples: int) -> None:
    clip = avatar.generate(picture(), speech(samples))
    assert clip.shape == (-(-samples // 640), 64, 64, 3) and clip.dtype == np.uint8


def test_same_seed_same_video_other_seed_other_video(avatar: Avatar) -> None:
    first = avatar.generate(picture(), speech(20_000), seed=1)
    assert np.array_equal(first, avatar.generate(picture(), speech(20_000), seed=1))
    assert not np.array_equal(first, avatar.generate(picture(), speech(20_000), seed=2))


def test_picture_and_speech_and_box_matter(avatar: Avatar) -> None:
    first = avatar.generate(picture(), speech(20_000))
    assert not np.array_equal(first, avatar.generate(picture(1), speech(20_000)))
    assert not np.array_equal(first, avatar.generate(picture(), speech(20_000, 1)))
    assert not np.array_equal(first, varied(avatar).generate(picture(), speech(20_000), face_box=(0, 0, 0.3, 0.3)))


def varied(avatar: Avatar) -> Avatar:
    """The same models, but of a preset that has learned with many face boxes."""
    spec = replace(avatar.preset, finds_face=True)
    return Avatar(spec, avatar.vae, avatar.student, avatar.device, features=avatar.engine.features)


def test_a_box_that_the_preset_has_not_learned_with(avatar: Avatar) -> None:
    with pytest.raises(ConfigError, match="leave the face box out"):
        avatar.generate(picture(), speech(640), face_box=(0, 0, 0.3, 0.3))


def test_first_frame_is_the_picture_as_the_autoencoder_makes_it(avatar: Avatar) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pixels = to_tensor(fit_image(picture(), 64))
        rebuilt = to_frames(avatar.vae.decode(avatar.vae.encode_image(pixels)[:, :, None]))
    made = avatar.generate(picture(), speech(5_000))
    assert np.abs(made[0].astype(int) - rebuilt[0]).max() <= 2


def fitting(avatar: Avatar, fit: Fit) -> Avatar:
    """The same models, with pictures cut otherwise."""
    return Avatar(avatar.preset, avatar.vae, avatar.student, avatar.device, features=avatar.engine.features, fit=fit)


def test_pictures_are_cut_as_the_avatar_is_told(avatar: Avatar) -> None:
    assert np.array_equal(avatar.fit(picture()), fit_image(picture(), 64))
    with pytest.raises(MediaError):
        avatar.fit(np.zeros((64, 64), np.uint8))
    corner = fitting(avatar, lambda pixels: fit_centre(pixels[:64, :64], 64))
    made = corner.generate(picture(), speech(5_000))
    assert np.array_equal(made, avatar.generate(picture()[:64, :64], speech(5_000)))
    assert not np.array_equal(made, avatar.generate(picture(), speech(5_000)))
    with corner.session(picture()) as session:
        frames = session.push_audio(speech(5_000), np.zeros(3_000, np.float32))
    assert np.array_equal(frames[0].pixels, made[0])


def test_the_autoencoder_may_be_on_a_device_of_its_own(avatar: Avatar) -> None:
    apart = Avatar(
        avatar.preset,
        CausalVAE(avatar.preset.vae),
        avatar.student,
        avatar.device,
        features=avatar.engine.features,
        vae_device=torch.device("meta"),
    )
    assert apart.vae.latent_mean.is_meta and not apart.student.head.head.weight.is_meta
    assert [place.device.type for place in places(apart.engine)] == ["cpu", "meta"]


def test_a_device_that_the_autoencoder_cannot_be_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="for the autoencoder, device 'cuda:7'"):
        load("pocket", device="cpu", vae_device="cuda:7")
    monkeypatch.setattr("talkingmachines.avatar.choose_device", torch.device)
    with pytest.raises(ConfigError, match="cannot be on meta with the transformer on cpu"):
        load("pocket", device="cpu", vae_device="meta")


def test_what_is_not_to_be_seen_is_made_and_not_shown(avatar: Avatar) -> None:
    part = fitting(avatar, lambda pixels: replace(fit_centre(pixels, 64), view=(8, 16, 56, 64)))
    seen, whole = (one.generate(picture(), speech(5_000)) for one in (part, avatar))
    for shown, frame in zip(seen, whole, strict=True):
        larger = Image.fromarray(frame[16:64, 8:56]).resize((64, 64), Image.Resampling.BICUBIC)
        assert np.abs(shown.astype(int) - np.asarray(larger)).max() <= 1
    with part.session(picture()) as session:
        frames = session.push_audio(speech(5_000), np.zeros(3_000, np.float32))
    assert np.array_equal(frames[0].pixels, seen[0])


def test_blocks_add_up_to_the_clip(avatar: Avatar) -> None:
    blocks = list(avatar.stream_generate(picture(), speech(40_000)))
    assert [len(block) for block in blocks] == [5, 8, 8, 8, 8, 8, 8, 8, 2]
    assert np.array_equal(np.concatenate(blocks), avatar.generate(picture(), speech(40_000)))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """With which all sums are added up in the same order: two stages share what torch has, a session takes all."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.mark.usefixtures("one_thread")
def test_a_session_makes_the_same_frames(avatar: Avatar) -> None:
    clip = avatar.generate(picture(), speech(30_000), seed=4)
    with avatar.session(picture(), seed=4) as session:
        frames = [
            *session.push_audio(speech(30_000)[:17_000], speech(30_000)[17_000:]),
            *session.push_audio(speech(30_000)[17_000:], np.zeros(0, np.float32)),
            *session.end_segment(),
        ]
    assert isinstance(session, talkingmachines.Session) and isinstance(frames[0], talkingmachines.VideoFrame)
    assert np.array_equal(np.stack([frame.pixels for frame in frames])[: len(clip)], clip)


@pytest.mark.parametrize("samples", [1, 3200, 3201, 40_000])
def test_progress_counts_chunks_to_the_end(avatar: Avatar, samples: int) -> None:
    seen: list[tuple[int, int]] = []
    blocks = avatar.stream_generate(picture(), speech(samples), progress=lambda *counts: seen.append(counts))
    total = len(list(blocks))
    assert seen == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(0, np.float32),
        np.zeros((2, 100), np.float32),
        np.array([0.0, np.nan], np.float32),
        np.zeros(100, np.int16),
    ],
)
def test_bad_speech(avatar: Avatar, bad: np.ndarray) -> None:
    with pytest.raises(MediaError):
        avatar.generate(picture(), bad)


@pytest.mark.parametrize(
    "bad", [*(np.zeros(shape, np.uint8) for shape in ((64, 64), (64, 64, 4), (64, 0, 3))), np.zeros((64, 64, 3)), 7]
)
def test_bad_picture(avatar: Avatar, bad: np.ndarray) -> None:
    with pytest.raises(MediaError, match=r"\[H, W, 3\]"):
        avatar.generate(bad, speech(100))
    with pytest.raises(MediaError, match=r"\[H, W, 3\]"):
        avatar.session(bad)


def test_load_round_trip(avatar: Avatar, tmp_path: Path) -> None:
    for name in ("vae", "student"):
        save_weights(tmp_path, name, getattr(avatar, name), {"preset": "tiny"})
    save_features(tmp_path)
    loaded = load(str(tmp_path), device="cpu")
    made = loaded.generate(picture(), speech(8_000))
    again = talkingmachines.load(str(tmp_path), device="cpu").generate(picture(), speech(8_000))
    assert loaded.size == 64 and isinstance(loaded, talkingmachines.Avatar) and np.array_equal(made, again)


def test_what_a_preset_cannot_use_is_refused(avatar: Avatar, tmp_path: Path) -> None:
    for name in ("vae", "student"):
        save_weights(tmp_path, name, getattr(avatar, name), {"preset": "tiny"})
    save_features(tmp_path)
    with pytest.raises(ConfigError, match="no encoders and is told of no prompt; leave out encoders and prompt"):
        load(str(tmp_path), device="cpu", encoders="somewhere", prompt="a man talks")
    with pytest.raises(ConfigError, match="presets with Wan's autoencoder"):
        load(str(tmp_path), device="cpu", tiny_decoder="taew2_1.pth")


def test_steps_of_ones_own(avatar: Avatar, tmp_path: Path) -> None:
    for name in ("vae", "student"):
        save_weights(tmp_path, name, getattr(avatar, name), {"preset": "tiny"})
    save_features(tmp_path)
    videos = [load(str(tmp_path), device="cpu", steps=steps).generate(picture(), speech(8_000)) for steps in (None, 2)]
    assert np.array_equal(*videos)
    once = load(str(tmp_path), device="cpu", steps=1)
    assert once.preset.chunk.steps == 1 and not np.array_equal(once.generate(picture(), speech(8_000)), videos[0])
    with pytest.raises(ConfigError, match="at least 1"):
        load(str(tmp_path), device="cpu", steps=0)


def test_load_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a preset"):
        load("no-such-preset")
    for unknown in ("float32", torch.float16):
        with pytest.raises(ConfigError, match=r"dtype is torch\.bfloat16 or torch\.float32"):
            load("pocket", dtype=unknown)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="no student weights"):
        load(str(tmp_path))
    save_weights(tmp_path, "student", torch.nn.Linear(2, 2), {"preset": "giant"})
    with pytest.raises(CheckpointError, match="giant"):
        load(str(tmp_path))


def test_a_still_background_stays_as_it_is() -> None:
    """What a student has not learned with, such as another face box than in training, shows there first."""
    avatar = load("pocket", device="cpu")
    image = read_image(Path(str(files("talkingmachines") / "assets" / "demo.png")))
    clip = avatar.generate(image, speech(48_000)).astype(np.float32)
    change = clip[40:, :48, :24] - clip[:1, :48, :24]
    assert np.sqrt(np.square(change).mean()) < 1
