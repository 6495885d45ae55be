"""Published weights into ours: what comes out, in what files, and that it can be stopped."""

import errno
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_models import (
    DIT,
    SMALL,
    assert_holds,
    audio_of,
    base_of,
    converted,
    in_diffusers_names,
    loaded,
    model_of,
    random_weights,
    stays_exact,
    text_to_video_of,
    write_file,
    write_folder,
)

from talkingmachines.audio.alignment import audio_windows, frames_in
from talkingmachines.checkpoints import convert as module
from talkingmachines.checkpoints.convert import convert
from talkingmachines.checkpoints.plan import make_plan
from talkingmachines.dit.conditioning import Conditioning
from talkingmachines.dit.weights import unfilled
from talkingmachines.errors import CheckpointError
from talkingmachines.vae.wan import WanVAE
from talkingmachines.weights import load_weights, read_metadata, read_preset, shard_paths


def conditioning(frames: int = 2) -> Conditioning:
    generator = torch.Generator().manual_seed(1)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    assert DIT.text and DIT.image and DIT.audio
    heard = randn(1, frames_in(frames), DIT.audio.feature_layers, DIT.audio.feature_dim)
    return Conditioning(
        latents=randn(1, 16, frames, 4, 4),
        mask=torch.ones(1, 4, frames, 4, 4),
        text=randn(1, DIT.text.length, DIT.text.dim),
        image=randn(1, DIT.image.tokens, DIT.image.dim),
        audio=audio_windows(heard, DIT.audio.window),
        mode=torch.zeros(1, frames, dtype=torch.long),
    )


def output(model: torch.nn.Module, cond: Conditioning) -> torch.Tensor:
    x = torch.randn(cond.latents.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model(x, torch.tensor([0.7]), cond)


@pytest.mark.parametrize(
    ("name", "files", "index", "dtype"),
    [
        (dict, 1, False, torch.float32),
        (dict, 3, True, torch.bfloat16),
        (in_diffusers_names, 2, True, torch.float32),
        (in_diffusers_names, 3, False, torch.float16),
        (lambda w: {"model.diffusion_model." + name: tensor for name, tensor in w.items()}, 1, False, torch.bfloat16),
    ],
    ids=["one file", "index", "diffusers", "plain files", "prefix"],
)
def test_layouts(tmp_path: Path, name: Callable, files: int, index: bool, dtype: torch.dtype) -> None:  # type: ignore[type-arg]
    weights = {key: tensor.to(dtype) for key, tensor in random_weights().items()}
    wan = write_folder(tmp_path / "wan", name(base_of(weights)), files, index)
    audio = write_file(tmp_path / "audio.safetensors", audio_of(weights))
    assert_holds(converted(tmp_path / "out", wan, audio), weights)
    said = read_metadata(tmp_path / "out", "teacher")
    assert said["preset"] == "small_wan" and said["new_layers"] == []
    assert read_preset(tmp_path / "out", "teacher") == SMALL


def test_a_pipelines_folder_and_a_file(tmp_path: Path) -> None:
    weights = random_weights()
    write_folder(tmp_path / "pipeline" / "transformer", in_diffusers_names(weights))
    assert_holds(converted(tmp_path / "a", tmp_path / "pipeline"), weights)
    assert_holds(converted(tmp_path / "b", write_file(tmp_path / "wan.safetensors", weights)), weights)


def test_given_audio_layers_go_before_those_of_the_folder(tmp_path: Path) -> None:
    weights, others = random_weights(), random_weights(seed=1)
    wan = write_folder(tmp_path / "wan", weights)
    audio = write_file(tmp_path / "audio.safetensors", audio_of(others))
    assert_holds(converted(tmp_path / "out", wan, audio), weights | audio_of(others))


def test_without_audio_layers_the_output_is_that_of_the_base_model(tmp_path: Path) -> None:
    base = base_of(random_weights())
    model = converted(tmp_path / "out", write_folder(tmp_path / "wan", base))
    assert read_metadata(tmp_path / "out", "teacher")["new_layers"] == ["audio"]
    cond = conditioning()
    found, expected = output(model, cond), output(model_of(base, audio=None), replace(cond, audio=None))
    assert torch.equal(found, expected)
    # They are ready to learn: what is heard reaches the last layer of each, and only that one is zero.
    hear = model.blocks[0].audio_cross_attn
    assert hear.q_linear.weight.any() and hear.kv_linear.weight.any() and not hear.proj.weight.any()


def test_text_to_video_weights_with_new_layers_for_the_picture(tmp_path: Path) -> None:
    base = text_to_video_of(random_weights())
    model = converted(tmp_path / "out", write_folder(tmp_path / "wan", base), from_text=True)
    assert read_metadata(tmp_path / "out", "teacher")["new_layers"] == ["audio", "image"]
    cond = conditioning()
    narrow = base["patch_embedding.weight"]
    wide = torch.cat([narrow, torch.zeros(DIT.width, 20, *DIT.patch)], 1)
    same = model_of(base | {"patch_embedding.weight": wide}, audio=None, image=None)
    assert torch.equal(output(model, cond), output(same, replace(cond, audio=None, image=None)))
    assert model.blocks[0].cross_attn.k_img.weight.any()


def test_loads_in_bfloat16_but_for_what_needs_more(tmp_path: Path) -> None:
    exact = converted(tmp_path / "out", write_folder(tmp_path / "wan", random_weights()))
    model = unfilled(DIT, torch.bfloat16, torch.device("cpu"))
    load_weights(tmp_path / "out", "teacher", model)
    coarse = {name for name, tensor in model.state_dict().items() if tensor.dtype == torch.bfloat16}
    assert len(coarse) > 40
    for name, tensor in exact.state_dict().items():
        assert torch.equal(model.state_dict()[name].float(), tensor), name
        assert (name in coarse) != stays_exact(name), name
    cond = conditioning()
    expected = output(exact, cond)
    with torch.autocast("cpu", torch.bfloat16):
        found = output(model, cond)
    assert (found - expected).square().mean() < 1e-3 * expected.square().mean()
    # A tenth of a timestep apart, which bfloat16 could not tell.
    near, far = (model.embed_time(torch.tensor([sigma]))[0] for sigma in (0.5, 0.5001))
    torch.testing.assert_close(near, exact.embed_time(torch.tensor([0.5]))[0])
    assert not torch.equal(near, far)


def test_files_are_small_and_have_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 20_000)
    wan, seen = write_folder(tmp_path / "wan", random_weights(), 2), []
    convert(make_plan(wan), "student", tmp_path / "out", lambda done, total: seen.append((done, total)))
    paths = shard_paths(tmp_path / "out", "student")
    assert len(paths) == 5 and all(path.stat().st_size < 25_000 for path in paths)
    lines = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert {name: digest for digest, name in (line.split("  ") for line in lines)} == sums
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*sums, "SHA256SUMS"}
    assert len(seen) == len(paths) and seen[-1][0] == seen[-1][1]
    assert not (tmp_path / "out.partial").exists()


def stopped_after(shards: int) -> Callable[[int, int], None]:
    calls = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == shards:
            raise KeyboardInterrupt

    return progress


def test_a_stopped_conversion_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 20_000)
    plan, out = make_plan(write_folder(tmp_path / "wan", base_of(random_weights()))), tmp_path / "out"
    convert(plan, "teacher", tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        convert(plan, "teacher", out, stopped_after(3))
    assert not out.exists()
    finished = shard_paths(tmp_path / "out.partial", "teacher")
    assert len(finished) == 3
    damaged = bytearray(finished[1].read_bytes())
    damaged[-1] ^= 1
    finished[1].write_bytes(damaged)
    written: list[str] = []
    write = module._write
    monkeypatch.setattr(module, "_write", lambda path, *rest: (written.append(path.name), write(path, *rest)))
    convert(make_plan(tmp_path / "wan"), "teacher", out)
    assert finished[1].name in written and finished[0].name not in written and finished[2].name not in written
    for path in (tmp_path / "whole").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_stopped_conversion_of_other_files_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 20_000)
    first, second = (make_plan(write_folder(tmp_path / name, random_weights())) for name in "ab")
    with pytest.raises(KeyboardInterrupt):
        convert(first, "teacher", tmp_path / "out", stopped_after(1))
    with pytest.raises(CheckpointError, match=r"out\.partial is of a conversion of other files"):
        convert(second, "teacher", tmp_path / "out")
    convert(first, "teacher", tmp_path / "out")


def test_the_folder_must_be_new(tmp_path: Path) -> None:
    plan = make_plan(write_folder(tmp_path / "wan", random_weights()))
    (tmp_path / "empty").mkdir()
    convert(plan, "teacher", tmp_path / "empty")
    for taken in (tmp_path / "empty", tmp_path / "wan", write_file(tmp_path / "file", {})):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(CheckpointError, match="is there already"):
            convert(plan, "teacher", taken)
        assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(CheckpointError, match="cannot be written"):
        convert(plan, "teacher", tmp_path / "file" / "below")


def test_room_on_the_disk_is_looked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(write_folder(tmp_path / "wan", random_weights()))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=plan.nbytes - 1))
    with pytest.raises(CheckpointError, match="are needed and"):
        convert(plan, "teacher", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=plan.nbytes))
    convert(plan, "teacher", tmp_path / "out")


def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(write_folder(tmp_path / "wan", random_weights()))
    save = module.save_file

    def full(tensors: object, path: Path, header: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*goes on from there"):
        convert(plan, "teacher", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "out.partial").iterdir()] == ["conversion.json"]
    monkeypatch.setattr(module, "save_file", save)
    convert(plan, "teacher", tmp_path / "out")
    loaded(tmp_path / "out")


@pytest.mark.parametrize("file", ["Wan2.1_VAE.pth", "Wan2.1_VAE.safetensors"])
def test_the_autoencoder_comes_along(tmp_path: Path, file: str) -> None:
    torch.manual_seed(0)
    vae = WanVAE(SMALL.vae)
    wan = write_folder(tmp_path / "wan", random_weights(), index=True)
    if file.endswith("pth"):
        torch.save(vae.state_dict(), wan / file)
    else:
        write_file(wan / file, vae.state_dict())
    converted(tmp_path / "out", wan)
    found = WanVAE(SMALL.vae)
    load_weights(tmp_path / "out", "vae", found)
    for name, tensor in vae.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
    assert "vae-1-of-1.safetensors" in (tmp_path / "out" / "SHA256SUMS").read_text()
