from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from talkingmachines.audio.alignment import frames_in
from talkingmachines.data import latents
from talkingmachines.data.batches import VideoBatches
from talkingmachines.data.calls import CallBatches, DrawnCalls
from talkingmachines.data.latents import LatentClips, LatentClipsConfig, build_latents
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.gestures import GESTURE_FIELDS
from talkingmachines.data.windows import TeacherBatches
from talkingmachines.dit.model import DiT
from talkingmachines.encoders.hearing import Hearing
from talkingmachines.errors import ConfigError
from talkingmachines.presets import tiny
from talkingmachines.training.teacher import TeacherRecipe, TeacherStage
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.pixels import to_unit

pytest.importorskip("skia")
pytest.importorskip("onnxruntime")
CPU = torch.device("cpu")
CONFIG = LatentClipsConfig(clips=3, latents=7, size=64)


@pytest.fixture(scope="module")
def bank() -> SpeechBank:
    return SpeechBank.build("train", 4, 0)


@pytest.fixture(scope="module")
def vae() -> CausalVAE:
    torch.manual_seed(0)
    return CausalVAE(tiny().vae).eval()


@pytest.fixture(scope="module")
def hearing() -> Hearing:
    torch.manual_seed(0)
    config = tiny().hearing
    assert config is not None
    return Hearing(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, vae: CausalVAE, hearing: Hearing, bank: SpeechBank) -> LatentClips:
    return build_latents(tmp_path_factory.mktemp("latents"), vae, hearing, bank, CONFIG, CPU, 0, lambda *_: None)


def test_build_goes_on_where_it_stopped(
    tmp_path: Path,
    vae: CausalVAE,
    hearing: Hearing,
    bank: SpeechBank,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(latents, "_AT_ONCE", 1)
    monkeypatch.setattr(latents, "_KEPT", 1)

    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Stop

    whole = build_latents(tmp_path / "whole", vae, hearing, bank, CONFIG, CPU, 0, lambda *_: None)
    with pytest.raises(Stop):
        build_latents(tmp_path, vae, hearing, bank, CONFIG, CPU, 0, stop)
    done: list[int] = []
    again = build_latents(tmp_path, vae, hearing, bank, CONFIG, CPU, 0, lambda index, _: done.append(index))
    assert done == [3]
    for name, array in whole.arrays.items():
        assert np.array_equal(array, again.arrays[name]), name


def test_build_refuses_a_folder_of_other_clips(
    tmp_path: Path, vae: CausalVAE, hearing: Hearing, bank: SpeechBank
) -> None:
    build_latents(tmp_path, vae, hearing, bank, LatentClipsConfig(1, 2, 64), CPU, 0, lambda *_: None)
    with pytest.raises(ConfigError, match="another folder"):
        build_latents(tmp_path, vae, hearing, bank, LatentClipsConfig(1, 3, 64), CPU, 0, lambda *_: None)
    with pytest.raises(ConfigError, match="another folder"):
        heard_by_another = LatentClipsConfig(1, 2, 64, hearing="another")
        build_latents(tmp_path, vae, hearing, bank, heard_by_another, CPU, 0, lambda *_: None)


def test_batches_are_functions_of_the_step(clips: LatentClips) -> None:
    batches = TeacherBatches(clips, window=5, history=2, patch=4, batch=6)
    shapes = set()
    for step in range(8):
        first, again = batches[step], batches[step]
        assert all(torch.equal(first[name], again[name]) for name in first)
        shapes.add(first["latents"].shape)
        samples = len(first["latents"])
        assert first["features"].shape == (samples, frames_in(5), 20)
        assert first["weight"].shape == (samples, 5, *first["latents"].shape[-2:])
        assert set(first["known"].tolist()) <= {1, 2}
    assert shapes == {(3, 4, 5, 8, 8), (14, 4, 5, 4, 4)}


def test_calls_are_clips_with_sound_that_goes_on(clips: LatentClips) -> None:
    batches = CallBatches(clips, latents=6, heard=20, patch=4, batch=6)
    first, again = batches[2], batches[2]
    assert all(torch.equal(first[name], again[name]) for name in first)
    samples = len(first["latents"])
    assert first["latents"].shape[1:3] == (4, 6) and torch.equal(first["reference"], first["latents"][:, :, 0])
    assert first["features"].shape == (samples, frames_in(20), 20) and first["modes"].shape == (samples, 20)
    own = torch.from_numpy(np.stack(clips.arrays["features"]).astype(np.float32))
    for features in first["features"]:
        assert any(torch.equal(features[: frames_in(7)], clip) for clip in own)
        heads = features[:, -len(GESTURE_FIELDS) :]
        assert (heads[frames_in(7)] - heads[frames_in(7) - 1]).abs().max() < 3, "heads go on from where they were"


def test_pictures_drawn_again_are_those_that_were_coded(clips: LatentClips, vae: CausalVAE, bank: SpeechBank) -> None:
    batches = DrawnCalls(clips, latents=6, heard=6, patch=4, batch=2, bank=bank)
    for step in range(20):
        batch = batches[step]
        if batch["latents"].shape[-1] == clips.cells:  # the whole picture: where it is cut, the encoder sees an edge
            break
    with torch.no_grad():
        coded = vae.encode(to_unit(batch["video"]))
    torch.testing.assert_close(coded, batch["latents"], atol=0.05, rtol=0.05)
    assert batch["whole"].all()


def test_clips_of_other_pictures_are_found_out(clips: LatentClips, vae: CausalVAE, bank: SpeechBank) -> None:
    batches = DrawnCalls(clips, latents=6, heard=6, patch=4, batch=2, bank=bank)
    batches.check(vae)
    of_other_speech = SpeechBank(bank.split, bank.utterances[::-1])
    with pytest.raises(ConfigError, match="other pictures"):
        replace(batches, bank=of_other_speech).check(vae)


def test_clips_of_another_decoder_are_not_compared(clips: LatentClips, vae: CausalVAE, bank: SpeechBank) -> None:
    """The encoder was told what that one misses. Earlier clips do not say which it was."""
    batches = DrawnCalls(clips, latents=6, heard=6, patch=4, batch=2, bank=bank)
    gone_on = deepcopy(vae)
    for part in (gone_on.decoder, gone_on.correction):
        part.linear.weight.data += 0.1
    batches.check(gone_on)
    earlier = copy(clips)
    earlier.decoder = None
    with pytest.raises(ConfigError, match="other pictures"):
        replace(batches, clips=earlier).check(gone_on)


def test_runs_of_neighbouring_seeds_share_no_clip() -> None:
    seeds = [{LatentClipsConfig(3000, 7, 64, seed).clip_seed(index) for index in range(3000)} for seed in (0, 1)]
    assert not seeds[0] & seeds[1]


def test_cells_near_a_cut_are_told_from_those_at_the_edge_of_the_picture(clips: LatentClips, bank: SpeechBank) -> None:
    batches = DrawnCalls(clips, latents=6, heard=6, patch=4, batch=2, bank=bank)
    cells, seen, video = clips.cells, set(), batches._drawn(0)
    for top in range(cells - 5):
        rows, columns = slice(top, top + 6), slice(top, cells)
        whole = batches._cut(video, rows, columns)["whole"]
        for part, flags in ((rows, whole.any(1)), (columns, whole.any(0))):
            last = len(flags) - 1
            cut = ({0, 1} if part.start > 0 else set()) | ({last - 1, last} if part.stop < cells else set())
            assert {cell for cell, flag in enumerate(flags) if not flag} == cut
            seen.add((part.start > 0, part.stop < cells))
    assert len(seen) == 4


def test_several_squares_of_each_drawn_clip(clips: LatentClips, bank: SpeechBank) -> None:
    batches = DrawnCalls(clips, latents=6, heard=6, patch=4, batch=6, bank=bank, cuts=4)
    one_each = DrawnCalls(clips, latents=6, heard=6, patch=4, batch=6, bank=bank)
    differing = 0
    for step in range(4):
        batch = batches[step]
        assert {name: part.shape for name, part in batch.items()} == {n: p.shape for n, p in one_each[step].items()}
        for heard, squares in zip(batch["features"].split(4), batch["video"].split(4), strict=True):
            assert all(torch.equal(heard[0], other) for other in heard)
            differing += sum(not torch.equal(squares[0], other) for other in squares)
    assert differing


def test_known_frames_and_reference_in_the_conditioning(clips: LatentClips, vae: CausalVAE) -> None:
    torch.manual_seed(0)
    stage = TeacherStage(DiT(tiny().dit), TeacherRecipe(), TeacherBatches(clips, 5, 2, 4, batch=6), vae)
    batch = stage.batches[0]
    cond = stage.conditioning(batch, None)
    for b, known in enumerate(batch["known"].tolist()):
        assert torch.equal(cond.latents[b, :, :known], batch["latents"][b, :, :known])
        assert torch.equal(cond.latents[b, :, known:], batch["reference"][b, :, None].expand(-1, 5 - known, -1, -1))
        assert cond.mask[b, :, :known].all() and not cond.mask[b, :, known:].any()


def test_given_frames_do_not_count_in_the_loss(clips: LatentClips, vae: CausalVAE) -> None:
    """With sigma fixed by the generator, changing what is known changes the input but never its own error."""
    torch.manual_seed(0)
    stage = TeacherStage(DiT(tiny().dit), TeacherRecipe(), TeacherBatches(clips, 5, 2, 4, batch=4), vae)
    batch = stage.batches[1]
    batch |= {"known": torch.full((len(batch["latents"]),), 5)}
    loss = stage.losses(batch, torch.Generator().manual_seed(0))["loss"]
    assert loss == 0


def test_a_sample_that_hears_nothing_is_the_model_without_audio(clips: LatentClips, vae: CausalVAE) -> None:
    torch.manual_seed(0)
    model = DiT(tiny().dit)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    stage = TeacherStage(model, TeacherRecipe(), TeacherBatches(clips, 5, 2, 4, batch=4), vae)
    batch = {name: tensor[:2] for name, tensor in stage.batches[0].items()}
    assert len(batch["latents"]) == 2
    cond = stage.conditioning(batch, torch.tensor([True, False]))
    sigma = torch.tensor([0.7, 0.7])
    without = model(batch["latents"], sigma, replace(cond, audio=None))
    made = model(batch["latents"], sigma, cond)
    torch.testing.assert_close(made[1], without[1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(made[0], without[0], atol=1e-3)


def test_teacher_learns_and_draws_samples(clips: LatentClips, vae: CausalVAE) -> None:
    torch.manual_seed(0)
    stage = TeacherStage(DiT(tiny().dit), TeacherRecipe(), TeacherBatches(clips, 5, 2, 4, batch=4), vae)
    optimizer = torch.optim.AdamW(stage.model.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        loss = stage.losses(stage.batches[step % 4], torch.Generator().manual_seed(step % 4))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    grid = stage.sample_grid(stage.model)
    assert grid.dtype == np.uint8 and grid.shape == (4 * 64, 5 * 64, 3)


def test_video_batches(bank: SpeechBank) -> None:
    batches = VideoBatches(bank, 64, 32, frames=5, batch=2)
    video = batches[3]["video"]
    assert video.shape == (2, 5, 32, 32, 3) and video.dtype == torch.uint8
    assert torch.equal(video, batches[3]["video"]) and not torch.equal(video, batches[4]["video"])


def test_video_batches_of_many_squares_a_clip(bank: SpeechBank) -> None:
    video = VideoBatches(bank, 64, 32, frames=5, batch=4, cuts=2)[3]["video"].float()
    whole = VideoBatches(bank, 64, 64, frames=5, batch=2)[3]["video"].float()
    assert video.shape == (4, 5, 32, 32, 3)
    assert any(torch.equal(video[0], square) for square in _squares(whole[0], 32))
    assert any(torch.equal(video[1], square) for square in _squares(whole[0], 32))
    assert not torch.equal(video[0], video[1])


def _squares(video: torch.Tensor, side: int) -> list[torch.Tensor]:
    places = range(video.shape[1] - side + 1)
    return [video[:, top : top + side, left : left + side] for top in places for left in places]
