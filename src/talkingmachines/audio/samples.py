"""What counts as sound."""

import numpy as np

from talkingmachines.errors import MediaError


def check_samples(samples: np.ndarray) -> None:
    """Raises MediaError for anything but floating-point samples [n], mono and finite; n may be 0."""
    if not isinstance(samples, np.ndarray) or samples.dtype.kind != "f":
        found = samples.dtype if isinstance(samples, np.ndarray) else type(samples).__name__
        raise MediaError(f"sound must be an array of float32 samples in [-1, 1], got {found}; divide int16 by 32768")
    if samples.ndim != 1:
        raise MediaError(f"sound must be mono samples [n], got shape {list(samples.shape)}; average the channels")
    # The extremes are NaN if any sample is, and take no memory.
    if len(samples) and not (np.isfinite(samples.min()) and np.isfinite(samples.max())):
        raise MediaError("sound has samples that are NaN or infinite; clean the recording")
