"""How well faces are found, in drawn pictures that no training saw."""

import numpy as np

from talkingmachines.data.faces import FaceBatches
from talkingmachines.framing.finder import FaceFinder, face_size

_BATCHES = 12


def finding_accuracy(finder: FaceFinder) -> dict[str, float]:
    """On pictures with one held-out character or simple face at any place, and on some with none.

    found: share of faces that are found, all three places within half of the face's size; off, off_p95: distance of a
    place of those from the true one, over the size, mean and 95th percentile; invented: share of pictures without a
    face in which one is found; pictures: how many.
    """
    batches = FaceBatches(heldout=True)
    wrong: list[float] = []
    found: list[bool] = []
    invented: list[bool] = []
    for index in range(_BATCHES):
        batch = batches[index]
        for pixels, places, seen in zip(*(batch[name].numpy() for name in ("pixels", "places", "seen")), strict=True):
            read = finder.find(pixels)
            if not seen:
                invented.append(read is not None)
                continue
            off = np.full(3, np.inf) if read is None else np.hypot(*(read - places).T) / face_size(places)
            found.append(bool(off.max() < 0.5))
            if found[-1]:
                wrong.extend(off)
    figures = {
        "found": np.mean(found),
        "off": np.mean(wrong) if wrong else 0.0,
        "off_p95": np.quantile(wrong, 0.95) if wrong else 0.0,
        "invented": np.mean(invented),
    }
    return {name: round(float(value), 4) for name, value in figures.items()} | {"pictures": _BATCHES * batches.batch}
