import numpy as np
import pytest
import torch

from talkingmachines.framing.finder import CELL, CERTAIN, SIDE, FaceFinder, face_size, middle
from talkingmachines.weights import load_finder

pytest.importorskip("skia")
from talkingmachines.data.synthetic.character import sample_character
from talkingmachines.data.synthetic.draw import draw, eyes_and_mouth
from talkingmachines.data.synthetic.pose import Pose

NOISE = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return load_finder()


def drawn(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A held-out character, and where its eyes and mouth are, in pixels."""
    look = sample_character(seed)
    return draw(look, Pose(), size), size * np.array(eyes_and_mouth(look, Pose()))


def test_size_and_middle_of_a_face() -> None:
    places = np.array([[10.0, 20], [30, 20], [20, 65]])
    assert face_size(places) == pytest.approx(30) and middle(places).tolist() == [20, 42.5]


def test_places_are_counted_from_the_middle_of_each_cell() -> None:
    model = FaceFinder().eval()
    with torch.no_grad():
        model.out.weight.zero_()
        model.out.bias.copy_(torch.tensor([0.0, -1, 0, 1, 0, 0, 2]))
        logits, places = model(torch.zeros(1, 3, 32, 48))
    assert logits.shape == (1, 4, 6) and places.shape == (1, 4, 6, 3, 2)
    x, y = 2.5 * CELL, 1.5 * CELL
    assert places[0, 1, 2].tolist() == [[x - CELL, y], [x + CELL, y], [x, y + 2 * CELL]]


@pytest.mark.parametrize(("seed", "scale", "shape", "at"), [
    (1, 1.0, (256, 256), (0, 0)),
    (2, 0.5, (300, 420), (250, 160)),
    (3, 2.2, (600, 700), (100, 20)),
    (5, 0.3, (400, 300), (170, 300)),
    (8, 3.0, (500, 500), (-130, -200)),
])  # fmt: skip
def test_eyes_and_mouth_are_found_wherever_they_are(
    finder: FaceFinder, seed: int, scale: float, shape: tuple[int, int], at: tuple[int, int]
) -> None:
    pixels, places = drawn(seed, round(256 * scale))
    left, top = at
    canvas = np.pad(pixels, ((1000, 1000), (1000, 1000), (0, 0)), mode="edge")
    picture = canvas[1000 - top :, 1000 - left :][: shape[0], : shape[1]].copy()
    found = finder.find(picture)
    assert found is not None
    off = np.hypot(*(found - places - at).T) / face_size(places)
    assert off.max() < 0.15, off


def test_what_is_no_face_is_none(finder: FaceFinder) -> None:
    assert finder.find(NOISE) is None
    assert finder.find(np.full((64, 64, 3), 200, np.uint8)) is None
    stripes = np.tile(np.repeat(np.array([[0], [255]], np.uint8), 9, 0), (20, 200))[..., None].repeat(3, 2)
    assert finder.find(stripes) is None


@pytest.mark.parametrize("shape", [(16, 16), (16, 2000), (1, 1), (3000, 40)])
def test_any_shape_is_looked_at(finder: FaceFinder, shape: tuple[int, int]) -> None:
    finder.find(np.resize(NOISE, (*shape, 3)))


def test_a_face_beside_the_picture_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model, places = FaceFinder(), np.array([[170.0, 70], [190, 70], [180, 90]])
    monkeypatch.setattr(model, "_look", lambda image, side: (0.9, places))
    monkeypatch.setattr(model, "_look_again", lambda image, near: (0.9, places))
    assert model.find(np.zeros((SIDE, SIDE, 3), np.uint8)) is None
    assert model.find(np.zeros((SIDE, 200, 3), np.uint8)) is places


def test_a_face_that_is_lost_when_looked_at_again_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FaceFinder()
    places = np.array([[70.0, 70], [90, 70], [80, 90]])
    scores = iter([CERTAIN + 0.1] * 3 + [CERTAIN - 0.1])

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cells = pixels.shape[0] // CELL, pixels.shape[1] // CELL
        return np.full(cells, next(scores)), np.broadcast_to(places, (cells[0] * cells[1], 3, 2))

    monkeypatch.setattr(model, "_run", run)
    assert model.find(np.zeros((SIDE, SIDE, 3), np.uint8)) is None
