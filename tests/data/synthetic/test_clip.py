"""Whole clips: what is promised to those who train on them."""

import numpy as np
import pytest

from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.clip import HELDOUT_CHARACTERS, Clip, make_clip
from talkingmachines.data.synthetic.motion import face_motion
from talkingmachines.data.synthetic.pose import POSE_FIELDS
from talkingmachines.errors import ConfigError
from talkingmachines.types import FPS, SAMPLES_PER_FRAME

LENGTH = 61


def _column(track: np.ndarray, name: str) -> np.ndarray:
    return track[:, POSE_FIELDS.index(name)]


@pytest.fixture(scope="module")
def clips(heldout_bank: SpeechBank) -> list[Clip]:
    return [make_clip(seed, "heldout", LENGTH, heldout_bank) for seed in range(60)]


@pytest.mark.parametrize("num_frames", [1, 2, 5, 21, 37, 81, 130])
def test_lengths(heldout_bank: SpeechBank, num_frames: int) -> None:
    for seed in range(6):
        clip = make_clip(seed, "heldout", num_frames, heldout_bank)
        assert clip.num_frames == num_frames
        assert clip.samples.shape == (num_frames * SAMPLES_PER_FRAME,) and clip.samples.dtype == np.float32
        assert clip.track.shape == (num_frames, len(POSE_FIELDS)) and clip.track.dtype == np.float32
        for flags in (clip.speaking, clip.closed, clip.bilabial):
            assert flags.shape == (num_frames,) and flags.dtype == bool


def test_clips_are_deterministic_and_differ(heldout_bank: SpeechBank, clips: list[Clip]) -> None:
    again = make_clip(7, "heldout", LENGTH, heldout_bank)
    np.testing.assert_array_equal(again.samples, clips[7].samples)
    np.testing.assert_array_equal(again.track, clips[7].track)
    assert again.character_seed == clips[7].character_seed
    assert len({clip.character_seed for clip in clips}) > 50
    assert len({clip.samples.tobytes() for clip in clips}) == len(clips)


def test_values_are_finite_and_within_their_ranges(clips: list[Clip]) -> None:
    for clip in clips:
        assert np.isfinite(clip.samples).all() and np.abs(clip.samples).max() <= 1
        assert np.isfinite(clip.track).all()
        for name, low, high in (
            ("mouth_open", 0, 1),
            ("mouth_wide", -1, 1),
            ("mouth_round", 0, 1),
            ("eye_open", 0, 1.2),
            ("gaze_x", -1, 1),
            ("head_x", -0.03, 0.03),
            ("head_y", -0.03, 0.03),
            ("head_roll", -0.08, 0.08),
            ("brow_frown", 0, 1),
            ("smile", -1, 1),
        ):
            assert low <= _column(clip.track, name).min() and _column(clip.track, name).max() <= high, name


def test_closed_frames_are_truly_shut(clips: list[Clip]) -> None:
    for clip in clips:
        np.testing.assert_array_equal(clip.closed, _column(clip.track, "mouth_open") == 0)
        assert not (clip.bilabial & ~clip.closed).any()
    assert sum(clip.bilabial.sum() for clip in clips) > 100


def test_listening_is_shut_though_not_silent(clips: list[Clip]) -> None:
    listening = [(clip, ~clip.speaking) for clip in clips if (~clip.speaking).sum() > 10]
    assert len(listening) > 10
    levels = []
    for clip, quiet in listening:
        assert _column(clip.track, "mouth_open")[quiet].mean() < 0.02
        levels.append(clip.samples.reshape(-1, SAMPLES_PER_FRAME)[quiet].std())
    assert np.mean(np.array(levels) > 1e-4) > 0.6


def test_modes_are_mixed(clips: list[Clip]) -> None:
    share = np.array([clip.speaking.mean() for clip in clips])
    assert 0.4 < (share == 1).mean() < 0.75
    assert (share < 0.4).mean() > 0.08
    assert ((share > 0) & (share < 1)).mean() > 0.15


def test_the_first_frame_can_be_a_portrait(clips: list[Clip]) -> None:
    assert min(_column(clip.track, "eye_open")[0] for clip in clips) > 0.9
    neutral = [not _column(clip.track, "gaze_x")[0] and clip.closed[0] for clip in clips]
    assert 0.3 < np.mean(neutral) < 0.7
    assert any(not clip.closed[0] for clip in clips)


def test_characters_of_the_splits_never_meet(heldout_bank: SpeechBank, clips: list[Clip]) -> None:
    assert all(0 <= clip.character_seed < HELDOUT_CHARACTERS for clip in clips)
    train = SpeechBank("train", heldout_bank.utterances)
    assert all(make_clip(seed, "train", 5, train).character_seed >= HELDOUT_CHARACTERS for seed in range(20))


def test_a_bank_of_another_split_is_refused(heldout_bank: SpeechBank) -> None:
    with pytest.raises(ConfigError, match="train"):
        make_clip(0, "train", 21, heldout_bank)
    with pytest.raises(ConfigError, match="0"):
        make_clip(0, "heldout", 0, heldout_bank)


def test_blinks_have_human_statistics() -> None:
    rng = np.random.default_rng(0)
    minutes = 10
    count = minutes * 60 * FPS
    track = face_motion(np.zeros(count), np.zeros(count, bool), rng)
    lid = _column(track, "eye_open")
    shut = lid < 0.5
    blinks = (shut[1:] & ~shut[:-1]).sum() / minutes
    assert 10 < blinks < 25
    away = lid < 0.99
    edges = np.flatnonzero(np.diff(np.concatenate([[0], away.astype(int), [0]])))
    lengths = (edges[1::2] - edges[::2]) / FPS
    assert 0.1 < np.median(lengths) < 0.3
    assert all(lid[a:b].min() < 0.05 for a, b in zip(edges[::2], edges[1::2], strict=True))


def test_heads_move_smoothly_and_always() -> None:
    rng = np.random.default_rng(1)
    loud = np.clip(np.sin(np.arange(1500) * 0.9), 0, 1)
    track = face_motion(loud, np.arange(1500) < 750, rng)
    for name, step in (("head_x", 0.006), ("head_y", 0.012), ("head_roll", 0.02), ("head_yaw", 0.1)):
        moves = np.abs(np.diff(_column(track, name)))
        assert moves.max() < step, name
        assert moves.reshape(-1)[:1475].reshape(-1, 25).max(axis=1).min() > 0, name
    assert (track[:, : POSE_FIELDS.index("smile")] == 0).all()


def test_strong_syllables_move_the_head() -> None:
    loud = np.zeros(250)
    loud[20::25] = loud[21::25] = loud[19::25] = 1.0
    still = face_motion(np.zeros(250), np.ones(250, bool), np.random.default_rng(3))
    nodding = face_motion(loud, np.ones(250, bool), np.random.default_rng(3))
    speed = [np.abs(np.diff(_column(track, "head_pitch"), n=2)).mean() for track in (still, nodding)]
    assert speed[1] > 1.5 * speed[0]
