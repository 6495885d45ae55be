import numpy as np
import pytest

pytest.importorskip("skia")
from talkingmachines.data.faces import FaceBatches, restyle
from talkingmachines.framing.finder import SIDE, SIZES, face_size


def test_batches_have_faces_of_all_sizes_at_all_places_and_some_without() -> None:
    batch = FaceBatches(batch=64)[0]
    assert batch["pixels"].shape == (64, SIDE, SIDE, 3) and batch["places"].shape == (64, 3, 2)
    seen = batch["seen"].numpy()
    places = batch["places"].numpy()
    assert 0 < (~seen).sum() < 20
    sizes = np.array([face_size(one) for one in places])
    assert SIZES[0] - 1 < sizes.min() < 16 and 40 < sizes.max() < SIZES[1] + 1
    centres = places[seen].mean(1)
    assert centres.min() < 40 and centres.max() > SIDE - 40
    inside = ((places >= 0) & (places < SIDE)).all(2)
    assert not inside[~seen].any()  # neither eyes nor mouth
    assert inside[seen].mean() > 0.8


def test_batches_are_functions_of_seed_and_step() -> None:
    one, same = FaceBatches(batch=3)[5], FaceBatches(batch=3)[5]
    other, heldout = FaceBatches(batch=3, seed=1)[5], FaceBatches(batch=3, heldout=True)[5]
    assert all((one[name] == same[name]).all() for name in one)
    assert (one["pixels"] != other["pixels"]).any() and (one["pixels"] != heldout["pixels"]).any()


def test_another_manner_leaves_everything_where_it_is() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[10:20, 25:35] = (250, 120, 40)
    for seed in range(40):
        made = restyle(pixels, np.random.default_rng(seed)).astype(int)
        assert made.shape == pixels.shape
        edges = np.abs(np.diff(made.sum(2), axis=1))[12:18].mean(0)
        assert set(np.argsort(edges)[-2:]) & {23, 24, 25, 33, 34, 35}
