import math

import numpy as np
import pytest
import torch

from talkingmachines.audio import features
from talkingmachines.audio.features import HISTORY, N_MELS, Activity, activity, log_mel, mel_filters
from talkingmachines.types import SAMPLES_PER_FRAME


def noise(frames, seed=0, level=0.1):
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(frames * SAMPLES_PER_FRAME)).astype(np.float32)


def slow_log_mel(samples):
    """Column by column, bin by bin, in float64: the definition."""
    heard = np.concatenate([np.zeros(240), samples.astype(np.float64)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    bins = np.exp(-2j * np.pi * np.outer(np.arange(400), np.arange(257)) / 512)
    columns = []
    for j in range(len(samples) // 160):
        power = np.abs((heard[160 * j : 160 * j + 400] * window / (window.sum() / 2)) @ bins) ** 2
        columns.append((np.log10(power @ mel_filters() + 1e-9) + 5.9) / 1.5)
    return np.array(columns).reshape(-1, 4 * N_MELS)


def test_equals_the_definition():
    samples = noise(5)
    got = log_mel(torch.from_numpy(samples)[None])
    assert got.shape == (1, 5, 320)
    assert np.abs(got[0].numpy() - slow_log_mel(samples)).max() < 1e-4


def test_filters_cover_every_frequency_between_their_ends():
    filters = mel_filters()
    assert filters.shape == (257, N_MELS)
    assert (filters.max(axis=0) > 0.3).all()
    inside = filters.sum(axis=1)[4:240]  # neighbouring triangles add up to 1
    assert np.allclose(inside, 1)
    centres = filters.T @ np.arange(257) / filters.sum(axis=0)
    assert (np.diff(centres) > 0).all()


def test_a_tone_peaks_in_its_band():
    time = torch.arange(8 * SAMPLES_PER_FRAME) / 16_000
    bands = log_mel(torch.sin(2 * math.pi * 1000 * time)[None])[0, 4:].reshape(-1, N_MELS)
    nearest = mel_filters()[32].argmax()  # bin 32 is 1000 Hz
    assert (bands.argmax(dim=1) == nearest).all()
    assert bands.max() == pytest.approx(5.9 / 1.5, abs=0.2)  # full scale is about power 1


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 20])
def test_pieces_equal_the_whole(piece):
    samples = torch.from_numpy(np.stack([noise(20, 1), noise(20, 2, 1e-3)]))
    whole = log_mel(samples)
    history, parts = torch.zeros(2, HISTORY), []
    for part in samples.split(piece * SAMPLES_PER_FRAME, dim=1):
        parts.append(log_mel(part, history))
        history = torch.cat([history, part], dim=1)[:, -HISTORY:]
    assert (torch.cat(parts, dim=1) - whole).abs().max() <= 1e-6


def test_long_recordings_go_through_in_pieces(monkeypatch):
    samples = torch.from_numpy(noise(30))[None]
    whole = log_mel(samples)
    monkeypatch.setattr(features, "_COLUMNS_AT_ONCE", 7)
    assert (log_mel(samples) - whole).abs().max() <= 1e-6


@pytest.mark.parametrize("frame", [0, 1, 5, 11])
def test_no_frame_hears_the_future(frame):
    samples = torch.from_numpy(noise(12))[None]
    changed = samples.clone()
    changed[:, (frame + 1) * SAMPLES_PER_FRAME :] = 0.9
    before, after = log_mel(samples), log_mel(changed)
    assert torch.equal(before[:, : frame + 1], after[:, : frame + 1])
    if frame < 11:
        assert not torch.equal(before[:, frame + 1], after[:, frame + 1])


def test_silence_is_bounded_and_loudness_only_shifts():
    silence = log_mel(torch.zeros(1, 2 * SAMPLES_PER_FRAME))
    assert torch.allclose(silence, torch.full_like(silence, -3.1 / 1.5), atol=1e-5)
    samples = torch.from_numpy(noise(4))[None]
    shift = log_mel(samples) - log_mel(samples / 10)
    assert (shift - 2 / 1.5).abs().max() < 0.1


def test_autocast_does_not_round_it():
    samples = torch.from_numpy(noise(4))[None]
    plain = log_mel(samples)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mel(samples), plain)
    assert plain.dtype == torch.float32


def buzz(frames, level=0.1):
    """A voice of sorts: 120 Hz with many harmonics, its loudness beating like syllables."""
    time = np.arange(frames * SAMPLES_PER_FRAME) / 16_000
    wave = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 30))
    return (level * wave * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))).astype(np.float32)


def bursts(background):
    """3 s of nothing, 2 s of voice, 2 s of nothing, 1 s of voice, 2 s of nothing; and where the voice is."""
    lengths = [(75, False), (50, True), (50, False), (25, True), (50, False)]
    sound = np.concatenate([buzz(n) if voice else np.zeros(n * SAMPLES_PER_FRAME, np.float32) for n, voice in lengths])
    truth = np.concatenate([np.full(n, voice) for n, voice in lengths])
    return sound + noise(len(truth), 3, background), truth


@pytest.mark.parametrize("background", [0, 1e-4, 1e-3, 3e-3, 1e-2])
def test_activity_finds_the_bursts(background):
    sound, truth = bursts(background)
    found = activity(sound)
    assert found.dtype == bool
    assert found[truth].mean() > 0.95
    hangover = np.zeros_like(truth)
    for end in np.flatnonzero(truth[:-1] & ~truth[1:]):
        hangover[end + 1 : end + 10] = True  # 8 frames, and one for the click of the cut
    assert not found[~truth & ~hangover].any()
    assert found[hangover].any()


@pytest.mark.parametrize("frames", [1, 60, 90, 170, 249])
def test_activity_is_causal(frames):
    sound, _ = bursts(1e-3)
    assert np.array_equal(activity(sound[: frames * SAMPLES_PER_FRAME]), activity(sound)[:frames])


def test_activity_of_silence_and_of_nothing():
    assert not activity(np.zeros(10 * SAMPLES_PER_FRAME, np.float32)).any()
    assert not activity(np.full(20 * SAMPLES_PER_FRAME, 0.4, np.float32))[10:].any()  # after the click of its start
    assert activity(np.zeros(0, np.float32)).shape == (0,)


def test_speech_from_the_first_sample_is_heard():
    assert activity(buzz(10)).all()


def test_loud_steady_noise_ends_after_three_seconds():
    found = activity(noise(200, 4, 0.1))
    assert found[0]
    assert not found[100:].any()


@pytest.mark.parametrize("background", [0, 1e-3, 1e-2])
@pytest.mark.parametrize("pieces", [1, 9, 12, 40])
def test_activity_in_pieces_equals_the_whole_to_the_bit(background, pieces):
    sound, _ = bursts(background)
    rng, stream, parts = np.random.default_rng(pieces), Activity(), []
    while len(sound) > 640 * sum(len(part) for part in parts):
        start = 640 * sum(len(part) for part in parts)
        parts.append(stream.push(sound[start : start + 640 * int(rng.integers(0, pieces + 1))]))
    assert np.array_equal(np.concatenate(parts), activity(sound))


def test_energies_in_pieces_equal_the_whole_to_the_bit():
    sound, whole, stream = noise(50, 5), Activity(), Activity()
    parts = [stream._energy(piece) for piece in np.split(sound, [640, 640 * 14, 640 * 15, 640 * 41])]
    assert np.array_equal(np.concatenate(parts), whole._energy(sound))


def test_long_recordings_have_their_activity_found_in_pieces(monkeypatch):
    sound, _ = bursts(1e-3)
    whole = activity(sound)
    monkeypatch.setattr(features, "_FRAMES_AT_ONCE", 7)
    assert np.array_equal(activity(sound), whole)


def test_activity_keeps_three_seconds_and_a_cut_is_no_click():
    stream = Activity()
    stream.push(noise(500, 6))
    assert len(stream._energies) == 74 and len(stream._before) == 4
    offset, silence = np.full(640 * 25, 0.5, np.float32), np.zeros(640 * 8, np.float32)
    clicks, cut = Activity(), Activity()
    for one in (clicks, cut):
        one.push(np.zeros(640 * 9, np.float32))
        one.push(offset)
    cut.cut()
    assert clicks.push(silence).any() and not cut.push(silence).any()
