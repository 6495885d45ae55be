"""The student's own calls in training: the same as its windows, and as serving."""

from dataclasses import replace

import pytest
import torch
from distill_models import CELLS, CHUNK, LATENTS, PRESET, Calls, model

from talkingmachines.audio.alignment import audio_windows, frames_in
from talkingmachines.training.rollout import UNCERTAINTY, Scene, rollout, uncertain, window_call


def scene(heard: int = 12) -> Scene:
    assert PRESET.dit.audio
    return Scene.of(Calls(heard)[0], PRESET.dit.audio.window, CHUNK.frames)


@pytest.mark.parametrize("step", [0, 1])
def test_a_window_is_made_as_a_call_makes_it(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Chunk by chunk with the cache, and all at once, where the latent frames before are the call's."""
    student, chunks, call, noise = model(), CHUNK.window, scene(), torch.randn(CELLS, CELLS)
    monkeypatch.setattr("talkingmachines.training.rollout.normal", lambda shape, *_: noise.expand(*shape).clone())
    monkeypatch.setattr("talkingmachines.training.rollout.UNCERTAINTY", 0.0)
    made, by_chunks = rollout(student, CHUNK, call, chunks, step, chunks, torch.Generator())
    frames = range(chunks * CHUNK.frames)
    at_once, _ = window_call(student, CHUNK, replace(call, latents=made), frames, step, torch.Generator())
    torch.testing.assert_close(at_once, by_chunks, atol=1e-4, rtol=1e-4)
    assert at_once.requires_grad


def test_nothing_after_a_chunk_is_heard() -> None:
    batch = Calls()[0]
    assert PRESET.dit.audio
    window = PRESET.dit.audio.window
    before = Scene.of(batch, window, CHUNK.frames)
    batch["features"] = batch["features"].clone()
    batch["features"][:, frames_in(2 * CHUNK.frames) :] += 1
    after = Scene.of(batch, window, CHUNK.frames)
    seen = range(2 * CHUNK.frames)
    assert torch.equal(before.audio.of(seen).rest, after.audio.of(seen).rest)
    assert not torch.equal(before.audio.rest, after.audio.rest)


def test_windows_of_some_frames() -> None:
    windows = audio_windows(Calls()[0]["features"], 5)
    part = windows.of([0, 1, 5, 6])
    assert torch.equal(part.first, windows.first) and torch.equal(part.rest, windows.rest[:, [0, 4, 5]])
    later = windows.of([5, 6])
    assert later.first.shape[1] == 0 and later.num_latents == 2


def test_the_picture_is_certain_and_later_frames_are_not() -> None:
    latents = scene().latents
    seen = uncertain(latents, torch.Generator().manual_seed(0))
    assert torch.equal(seen[:, :, 0], latents[:, :, 0])
    assert (seen - latents)[:, :, 1:].std() == pytest.approx(UNCERTAINTY, rel=0.1)


def test_gradients_only_where_asked() -> None:
    student = model()
    call, learnt = rollout(student, CHUNK, scene(), 6, 1, 2, torch.Generator().manual_seed(0))
    assert call.shape[2] == 6 * CHUNK.frames and learnt.shape[2] == 2 * CHUNK.frames
    assert not call.requires_grad and learnt.requires_grad
    torch.testing.assert_close(call[:, :, -2 * CHUNK.frames :], learnt.detach())
    with torch.no_grad():
        assert not rollout(student, CHUNK, scene(), 4, 1, 2, torch.Generator())[1].requires_grad


def test_the_picture_is_given() -> None:
    made, _ = window_call(model(), CHUNK, scene(), range(LATENTS), 1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(made[:, :, 0], scene().reference, atol=1e-5, rtol=1e-5)
