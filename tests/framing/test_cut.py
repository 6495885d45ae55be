import logging
from dataclasses import replace

import numpy as np
import pytest

from talkingmachines.framing.cut import FacePlaces, fit_face
from talkingmachines.framing.finder import FaceFinder
from talkingmachines.media.image import fit_image

WANTED = FacePlaces((0.4, 0.5), (0.6, 0.5), (0.5, 0.7), reach=(0.04, 0.02), scale=1.1)
SIZE = 100


class Knows(FaceFinder):
    """Finds what it is told."""

    def __init__(self, places: list[tuple[float, float]] | None) -> None:
        super().__init__()
        self.places = places

    def find(self, picture: np.ndarray) -> np.ndarray | None:
        return None if self.places is None else np.array(self.places, np.float32)

    def find_near(self, picture: np.ndarray, places: np.ndarray) -> np.ndarray | None:
        return None


def picture(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return pixels


def marked(height: int, width: int, places: list[tuple[float, float]]) -> np.ndarray:
    """Grey with a bright square of 9 pixels at each place."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    for channel, (x, y) in enumerate(places):
        pixels[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5, channel] = 255
    return pixels


def centres(pixels: np.ndarray) -> np.ndarray:
    """Of the brightest part of each channel, (x, y)."""
    spots = [np.argwhere(pixels[..., channel] > 200).mean(0)[::-1] for channel in range(3)]
    return np.array(spots)


@pytest.mark.parametrize("places", [
    [(230, 60), (270, 60), (250, 100)],
    [(40, 50), (80, 50), (60, 90)],
    [(20, 30), (120, 30), (70, 130)],
    [(150, 140), (170, 140), (160, 160)],
])  # fmt: skip
def test_eyes_and_mouth_come_to_lie_where_they_are_wanted(places: list[tuple[float, float]]) -> None:
    cut = fit_face(marked(200, 300, places), Knows(places), WANTED, SIZE).pixels
    assert cut.shape == (SIZE, SIZE, 3) and cut.dtype == np.uint8
    assert np.abs(centres(cut) - 100 * WANTED.array()).max() < 2


def test_a_face_of_other_proportions_has_its_mouth_nearly_there() -> None:
    places = [(100.0, 100.0), (140.0, 100.0), (120.0, 160.0)]  # half as long again
    left, right, mouth = centres(fit_face(marked(300, 300, places), Knows(places), WANTED, SIZE).pixels)
    away = mouth - 100 * np.array(WANTED.mouth)
    assert abs(away[1]) < 2.5 and right[0] - left[0] < 20 < mouth[1] - left[1]


@pytest.mark.parametrize("shift", [(0, 0), (0.03, -0.015), (-0.03, 0.015)])
def test_a_face_that_is_well_placed_leaves_the_picture_as_it_is(shift: tuple[float, float]) -> None:
    pixels = picture(200, 300)
    places = (WANTED.array() + shift) * 200 + [50, 0]  # of the square in the middle
    assert np.array_equal(fit_face(pixels, Knows(list(places)), WANTED, SIZE).pixels, fit_image(pixels, SIZE))
    narrow = replace(WANTED, reach=(0.001, 0.001))
    cut = fit_face(pixels, Knows(list(places)), narrow, SIZE).pixels
    assert any(shift) != np.array_equal(cut, fit_image(pixels, SIZE))


def test_a_face_that_is_well_placed_is_not_looked_for_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, finder = picture(200, 300), Knows([(20, 30), (120, 30), (70, 130)])
    seen = []
    monkeypatch.setattr(finder, "find_near", lambda fitted, near: seen.append(fitted) or near + 1)
    assert np.array_equal(fit_face(pixels, finder, WANTED, SIZE).pixels, fit_image(pixels, SIZE))
    assert np.array_equal(seen[0], fit_image(pixels, SIZE))
    monkeypatch.setattr(finder, "find_near", lambda fitted, near: near + 30)  # there is one, but not well placed
    assert not np.array_equal(fit_face(pixels, finder, WANTED, SIZE).pixels, fit_image(pixels, SIZE))


def test_a_face_of_another_size_does_not() -> None:
    pixels, middle = picture(200, 200), np.array(WANTED.mouth)
    for factor, kept in ((1.08, True), (1.2, False), (0.93, True), (0.8, False)):
        places = ((WANTED.array() - middle) * factor + middle) * 200
        cut = fit_face(pixels, Knows(list(places)), WANTED, SIZE).pixels
        assert np.array_equal(cut, fit_image(pixels, SIZE)) == kept, factor


def test_without_a_face_the_picture_is_taken_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cut = fit_face(picture(200, 300), Knows(None), WANTED, SIZE).pixels
    assert np.array_equal(cut, fit_image(picture(200, 300), SIZE))
    assert "no face was found" in caplog.text and "70% from the top" in caplog.text


def test_what_is_inside_is_kept_and_what_is_outside_goes_on_from_it() -> None:
    places = [(80.0, 40.0), (120.0, 40.0), (100.0, 80.0)]  # its picture ends 20 pixels below the mouth
    framing = fit_face(picture(100, 200), Knows(places), WANTED, SIZE)
    cut = framing.pixels.astype(int)
    # Half as large: the picture is the middle 50 rows, from 30 on.
    inside = np.array(fit_image(picture(100, 200)[:, 0:200], (50, 100))).astype(int)
    assert np.abs(cut[30:80] - inside).max() <= 1
    steps = np.abs(np.diff(cut, axis=0))
    assert steps.max() <= 8  # no edge where the picture ends, where it is reflected
    assert framing.view == (25, 30, 75, 80)  # none of that is shown, but the largest square of the picture
    assert np.abs(framing.shown.astype(int) - fit_image(picture(100, 200)[:, 50:150], SIZE)).max() <= 1


def test_what_is_shown_is_all_of_the_picture_where_its_face_fills_it() -> None:
    pixels, places = picture(100, 100), [(30.0, 30.0), (70.0, 30.0), (50.0, 70.0)]  # twice as large as wanted
    framing = fit_face(pixels, Knows(places), WANTED, SIZE)
    assert framing.view == (25, 35, 75, 85)
    assert np.abs(framing.shown.astype(int) - pixels).max() <= 1
    # Frames as they are shown go back to where they are in what a model makes.
    frames = np.stack([framing.shown, 255 - framing.shown])
    whole = framing.whole(frames)
    assert np.abs(whole[0].astype(int) - framing.pixels).max() <= 3
    assert np.array_equal(whole[1, :35], framing.pixels[:35]) and whole[1, 35, 25].min() >= 254


def test_a_cut_that_lies_in_the_picture_is_shown_as_it_is() -> None:
    framing = fit_face(picture(200, 300), Knows([(140.0, 90.0), (160.0, 90.0), (150.0, 110.0)]), WANTED, SIZE)
    assert framing.view is None and framing.shown is framing.pixels


def test_a_tiny_face_in_a_large_picture_takes_no_more_memory_than_its_part() -> None:
    places = [(3000.0, 2000.0), (3001.0, 2000.0), (3000.5, 2001.0)]
    cut = fit_face(np.zeros((4000, 6000, 3), np.uint8), Knows(places), WANTED, SIZE).pixels  # 20 times as large: 30 GB
    assert cut.shape == (SIZE, SIZE, 3)


def test_the_corner_of_a_picture() -> None:
    for places in ([(1.0, 1.0), (11.0, 1.0), (6.0, 11.0)], [(88.0, 85.0), (98.0, 85.0), (93.0, 95.0)]):
        framing = fit_face(picture(100, 100), Knows(places), WANTED, SIZE)
        assert framing.pixels.shape == framing.shown.shape == (SIZE, SIZE, 3)
