import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from talkingmachines import weights
from talkingmachines.errors import CheckpointError
from talkingmachines.framing.finder import FaceFinder
from talkingmachines.media.image import fit_image
from talkingmachines.presets import pocket, tiny
from talkingmachines.server.pictures import bundled_picture
from talkingmachines.weights import (
    add_metadata,
    load_finder,
    load_fit,
    load_weights,
    read_metadata,
    read_preset,
    save_weights,
    shard_header,
    shard_paths,
    weights_folder,
)


def model(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, width), nn.Linear(width, width))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_weights(tmp_path, "teacher", model(), {"preset": "tiny", "seed": 3})
    return tmp_path


def test_round_trip(folder: Path) -> None:
    other = model()
    nn.init.zeros_(other[0].weight)
    load_weights(folder, "teacher", other)
    torch.testing.assert_close(other[0].weight, model()[0].weight, atol=1e-3, rtol=1e-3)
    assert read_metadata(folder, "teacher")["seed"] == 3


def test_eight_bits_are_half_the_size_and_nearly_the_same(tmp_path: Path) -> None:
    big = model(256)
    save_weights(tmp_path, "teacher", big, {}, eight_bits=True)
    other = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 256))
    load_weights(tmp_path, "teacher", other)
    for name, weight in big.state_dict().items():
        error = (other.state_dict()[name] - weight).square().mean().sqrt() / weight.square().mean().sqrt()
        assert error < (0.01 if weight.ndim == 2 else 0.001), name
    assert shard_paths(tmp_path, "teacher")[0].stat().st_size < 1.1 * 2 * 256 * 256


def test_eight_bits_of_a_convolution(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made, other = (nn.Sequential(nn.Conv2d(16, 8, 3), nn.GroupNorm(2, 8)) for _ in range(2))
    made[0].weight.data *= torch.logspace(-2, 2, 8)[:, None, None, None]
    save_weights(tmp_path, "teacher", made, {}, eight_bits=True)
    load_weights(tmp_path, "teacher", other)
    error = (other[0].weight - made[0].weight).flatten(1).norm(dim=1) / made[0].weight.flatten(1).norm(dim=1)
    assert error.max() < 0.01


def test_more_is_said_of_saved_weights(folder: Path) -> None:
    before = load_all(folder)
    weights.add_metadata(folder, "teacher", {"evaluation": {"lips": {"r": 0.8}}})
    said = read_metadata(folder, "teacher")
    assert said["evaluation"] == {"lips": {"r": 0.8}} and said["seed"] == 3
    assert all(torch.equal(before[key], tensor) for key, tensor in load_all(folder).items())
    assert set(folder.iterdir()) == set(shard_paths(folder, "teacher"))
    weights.drop_figures(folder)
    assert "evaluation" not in read_metadata(folder, "teacher") and read_metadata(folder, "teacher")["seed"] == 3


def load_all(folder: Path) -> dict[str, torch.Tensor]:
    other = model()
    load_weights(folder, "teacher", other)
    return other.state_dict()


def test_shards_stay_small_and_replace_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_SHARD_BYTES", 150)
    save_weights(tmp_path, "teacher", model(), {})
    assert len(shard_paths(tmp_path, "teacher")) == 2
    load_weights(tmp_path, "teacher", model())
    monkeypatch.setattr(weights, "MAX_SHARD_BYTES", 10_000)
    save_weights(tmp_path, "teacher", model(), {})
    assert [path.name for path in shard_paths(tmp_path, "teacher")] == ["teacher-1-of-1.safetensors"]
    assert set(tmp_path.iterdir()) == set(shard_paths(tmp_path, "teacher"))


def test_a_name_that_begins_another(tmp_path: Path) -> None:
    save_weights(tmp_path, "student-start", model(), {})
    assert shard_paths(tmp_path, "student") == []
    save_weights(tmp_path, "student", model(), {})
    assert [path.name for path in shard_paths(tmp_path, "student")] == ["student-1-of-1.safetensors"]
    assert shard_paths(tmp_path, "student-start")


def test_loads_into_what_the_model_is(folder: Path) -> None:
    """A large model is made without memory, then given it in the precision it shall have."""
    with torch.device("meta"):
        other = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    other = other.to(torch.bfloat16).to_empty(device="cpu")
    load_weights(folder, "teacher", other)
    assert other[0].weight.dtype == torch.bfloat16
    torch.testing.assert_close(other[0].weight.float(), model()[0].weight, atol=1e-2, rtol=1e-2)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no teacher weights"):
        load_weights(tmp_path, "teacher", model())


def test_a_full_disk_leaves_the_earlier_save(folder: Path) -> None:
    """The system itself refuses to write on, in the middle of the file."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        for more in (lambda: save_weights(folder, "teacher", model(), {}), lambda: add_metadata(folder, "teacher", {})):
            with pytest.raises(CheckpointError, match="cannot be written"):
                more()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_lost_shard_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_SHARD_BYTES", 150)
    save_weights(tmp_path, "teacher", model(), {})
    shard_paths(tmp_path, "teacher")[1].unlink()
    with pytest.raises(CheckpointError, match="1 of 2"):
        load_weights(tmp_path, "teacher", model())


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * 100, lambda b: b[9:]]
)
def test_damaged(folder: Path, damage) -> None:  # type: ignore[no-untyped-def]
    path = shard_paths(folder, "teacher")[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(folder, "teacher", model())


def test_foreign(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="another preset"):
        load_weights(folder, "teacher", model(width=4))
    with pytest.raises(CheckpointError, match="another preset"):
        load_weights(folder, "teacher", nn.Linear(8, 8))
    from safetensors.torch import save_file

    for header in (None, "half a", "[1]", '{"preset": "pocket"}', '{"shards": "two"}'):
        said = header and {"talkingmachines": header}
        save_file({"a": torch.zeros(1)}, shard_paths(folder, "teacher")[0], said)
        with pytest.raises(CheckpointError, match="not written by talkingmachines"):
            load_weights(folder, "teacher", model())
    save_file(
        {"a": torch.zeros(1)}, shard_paths(folder, "teacher")[0], shard_header("teacher", 1, {"preset": ["tiny"]})
    )
    with pytest.raises(CheckpointError, match="does not know"):
        read_preset(folder, "teacher")


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    broken = model()
    nn.init.constant_(broken[0].bias, float("nan"))
    save_weights(tmp_path, "teacher", broken, {})
    with pytest.raises(CheckpointError, match="not finite"):
        load_weights(tmp_path, "teacher", model())


def test_pictures_are_cut_to_faces_where_a_preset_has_learned_with_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[np.ndarray] = []
    monkeypatch.setattr("talkingmachines.framing.finder.FaceFinder.find", lambda self, pixels: found.append(pixels))
    monkeypatch.setattr("talkingmachines.framing.finder.FaceFinder.find_near", lambda self, pixels, near: None)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 300, 3), dtype=np.uint8)
    # The tiny preset takes faces anywhere, and so does a video of another shape.
    for spec, shape in ((tiny(), (64, 64)), (pocket(), (256, 128))):
        assert load_fit(tmp_path, spec, shape)(pixels).pixels.shape == (*shape, 3) and not found
    assert load_fit(tmp_path, pocket(), (256, 256))(pixels).pixels.shape == (256, 256, 3) and found[0] is pixels


def test_a_larger_video_shows_the_same_part_of_a_picture() -> None:
    """A small character at the side of a wide one; found by the shipped finder in the same place, to about a pixel."""
    pixels = np.full((400, 700, 3), 128, np.uint8)
    pixels[120:376, 400:656] = fit_image(bundled_picture("red-scarf"), 256)
    small, large = (load_fit(weights_folder("pocket"), pocket(), (size, size))(pixels) for size in (256, 512))
    centred = fit_image(pixels, 256)
    apart, of_the_middle = (
        np.abs(fit_image(large.pixels, 256) - other.astype(float)).mean() for other in (small.pixels, centred)
    )
    assert large.pixels.shape == (512, 512, 3) and apart < 3 < of_the_middle
    assert (small.view is None) == (large.view is None)
    assert np.abs(np.array(large.view or 0) - 2 * np.array(small.view or 0)).max() <= 4


def test_finders_of_a_run_and_damaged_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_weights(tmp_path, "finder", FaceFinder(), {"preset": "pocket"})
    own, shipped = load_finder(tmp_path), load_finder()
    assert not torch.equal(own.out.weight, shipped.out.weight) and not own.out.weight.requires_grad
    used: Any = load_fit(tmp_path, pocket(), (256, 256))
    assert torch.equal(used.keywords["finder"].out.weight, own.out.weight)
    with pytest.raises(CheckpointError, match="no finder weights"):
        load_finder(tmp_path / "elsewhere")
