"""What the figures of an evaluation are: functions of arrays, without models."""

from itertools import pairwise

import numpy as np
from PIL import Image

from talkingmachines.data.synthetic.motion import runs
from talkingmachines.types import SAMPLE_RATE

FRAMES_PER_LATENT = 4
IDENTITY_CROP = (0.16, 0.12, 0.84, 0.78)
"""x0, y0, x1, y1 in fractions of the picture: hair to chin, with room for the movement of the head."""
_IDENTITY_SIZE = 20


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two series of the same length; 0 if either does not vary."""
    a, b = one - one.mean(dtype=float), other - other.mean(dtype=float)
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    # A constant series is not exactly constant after its mean is taken off.
    return float((a * b).sum()) / scale if scale > 1e-9 * len(a) else 0.0


def lagged_pearson(seen: np.ndarray, true: np.ndarray, reach: int) -> dict[int, float]:
    """r at each lag from -reach to reach, in frames. Positive: what is seen comes late, seen[t + lag] ~ true[t]."""
    count = len(true)
    return {
        lag: pearson(seen[max(lag, 0) : count + min(lag, 0)], true[max(-lag, 0) : count - max(lag, 0)])
        for lag in range(-reach, reach + 1)
    }


def best_lag(by_lag: dict[int, float]) -> int:
    """The lag with the greatest r; of equal ones the nearest to 0."""
    return max(by_lag, key=lambda lag: (by_lag[lag], -abs(lag)))


def band_1_8_hz(series: np.ndarray, fps: float) -> np.ndarray:
    """The part of a series between 1 and 8 Hz. The series goes on mirrored at both ends, so that they do not ring."""
    count = len(series)
    mirrored = np.concatenate([series[::-1], series, series[::-1]]).astype(float)
    spectrum = np.fft.rfft(mirrored)
    rates = np.fft.rfftfreq(len(mirrored), 1 / fps)
    spectrum[(rates < 1) | (rates > 8)] = 0
    return np.fft.irfft(spectrum, len(mirrored))[count : 2 * count]


def envelope_1_8_hz(samples: np.ndarray, fps: int) -> np.ndarray:
    """samples: [n] at 16 kHz -> [n * fps // 16000]: square root of the RMS of each frame, its 1-8 Hz part.

    The root compresses loudness as hearing roughly does, so that quiet syllables count too.
    """
    width = SAMPLE_RATE // fps
    pieces = samples[: len(samples) // width * width].reshape(-1, width).astype(float)
    return band_1_8_hz((pieces**2).mean(1) ** 0.25, fps)


def psnr(made: np.ndarray, true: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 pictures in dB; infinite if they are equal."""
    error = float(((made.astype(np.float32) - true.astype(np.float32)) ** 2).mean())
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def change_errors(made: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors of the frame-to-frame differences of [1 + 4n, H, W, 3]: at latent borders [n], inside [3n].

    Latent frame k ends with video frame 4k, so the change from there to 4k + 1 crosses a border.
    """
    # Frame by frame, as whole clips of differences take a lot of memory.
    errors = [m.astype(np.float32) - t for m, t in zip(made, true, strict=True)]
    changes = np.array([((b - a) ** 2).mean() for a, b in pairwise(errors)])
    border = np.arange(len(changes)) % FRAMES_PER_LATENT == 0
    return changes[border], changes[~border]


def edge_errors(made: np.ndarray, true: np.ndarray, height: int, width: int) -> tuple[float, float]:
    """Mean absolute errors of [T, H, W, 3] in the outermost `width` pixels, and in as many beside them, at the top and
    the sides of the uppermost `height` rows."""
    error = np.mean([np.abs(m.astype(np.float32) - t).mean(2) for m, t in zip(made, true, strict=True)], 0)[:height]
    rows, columns = np.indices(error.shape)
    ring = np.minimum(rows, np.minimum(columns, error.shape[1] - 1 - columns)) // width
    return float(error[ring == 0].mean()), float(error[ring == 1].mean())


def identity_vectors(frames: np.ndarray) -> np.ndarray:
    """frames: [T, H, W, 3] uint8 -> [T, D]: the colours of the head, coarse enough not to see its expression."""
    height, width = frames.shape[1:3]
    x0, y0, x1, y1 = IDENTITY_CROP
    box = (x0 * width, y0 * height, x1 * width, y1 * height)
    size = (_IDENTITY_SIZE, _IDENTITY_SIZE)
    small = [Image.fromarray(f).resize(size, Image.Resampling.BOX, box) for f in frames]
    return np.stack([np.asarray(s, np.float32).ravel() / 255 for s in small])


def nearest(vectors: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The index in gallery [N, D] nearest to each of vectors [T, D]: int [T]."""
    distance = (vectors**2).sum(1)[:, None] - 2 * vectors @ gallery.T + (gallery**2).sum(1)
    return distance.argmin(1)


def likeness(vectors: np.ndarray, own: int, gallery: np.ndarray) -> np.ndarray:
    """r of identity vectors [T, D] with number `own` of a gallery [N, D], all less the gallery's mean: [T].

    1 is the picture itself; what all faces share does not count.
    """
    middle = gallery.mean(0)
    return np.array([pearson(vector - middle, gallery[own] - middle) for vector in vectors])


def gradient_energy(frame: np.ndarray, mask: np.ndarray) -> float:
    """Sum of the squared differences of neighbouring pixels that both lie in mask [H, W] bool; frame: [H, W, 3]."""
    pixels = frame.astype(np.float32)
    across = ((pixels[:, 1:] - pixels[:, :-1]) ** 2).sum(-1)[mask[:, 1:] & mask[:, :-1]].sum()
    down = ((pixels[1:] - pixels[:-1]) ** 2).sum(-1)[mask[1:] & mask[:-1]].sum()
    return float(across) + float(down)


def count_blinks(eye_open: np.ndarray) -> int:
    """How often the eyes shut (under 0.45) after having been open (over 0.65)."""
    blinks, ready = 0, False
    for opening in eye_open:
        if ready and opening < 0.45:
            blinks, ready = blinks + 1, False
        ready = ready or opening > 0.65
    return blinks


def motion_energy(tracks: np.ndarray, scales: np.ndarray) -> float:
    """tracks: [T, K], K readings over time in units of scales [K] -> mean variance over time.

    Each track is first averaged over 3 frames, so that the jitter of the reading counts little.
    """
    smooth = (tracks[:-2] + tracks[1:-1] + tracks[2:]) / 3
    return float((smooth / scales).var(0).mean())


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask [H, W] with all that lies within `pixels` of it across, up and down."""
    for axis in (0, 1):
        reach = np.cumsum(
            np.pad(mask.astype(int), [(pixels + 1, pixels) if a == axis else (0, 0) for a in (0, 1)]), axis
        )
        size = mask.shape[axis]
        mask = np.take(reach, range(2 * pixels + 1, 2 * pixels + 1 + size), axis) > np.take(reach, range(size), axis)
    return mask


def bilabials_shut(opening: np.ndarray, bilabial: np.ndarray, threshold: float) -> np.ndarray:
    """bool, one for each closure (run of True in bilabial [T]): does the opening [T] fall under the threshold?

    A frame before and after the closure count too. Closures at frame 0 or 1 are left out: the first picture is given.
    """
    return np.array([opening[a - 1 : b + 1].min() < threshold for a, b in closures(bilabial)], bool)


def closures(bilabial: np.ndarray) -> list[tuple[int, int]]:
    """[start, end) of each that counts."""
    return [(a, b) for a, b in runs(bilabial) if a > 1]


def silent_frames(closed: np.ndarray, bilabial: np.ndarray) -> np.ndarray:
    """bool [T]: in silence, and at least 3 frames away from speech and from the unknown beyond the ends."""
    speech = np.pad(~closed | bilabial, 3, constant_values=True)
    return np.convolve(speech, np.ones(7), "valid") == 0
