"""A call of many minutes: does it drift, does it pop where chunks meet? In constant memory, minute by minute."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import tee
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from talkingmachines.audio.alignment import FRAMES_PER_LATENT, frames_in
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.character import sample_character
from talkingmachines.data.synthetic.clip import Clip
from talkingmachines.data.synthetic.draw import draw
from talkingmachines.data.synthetic.pose import POSE_FIELDS, Pose
from talkingmachines.errors import ConfigError
from talkingmachines.evaluation import metrics
from talkingmachines.evaluation.calls import MINUTE, call_minute, caller
from talkingmachines.evaluation.clips import portraits
from talkingmachines.evaluation.reader import READ_FIELDS, load_reader
from talkingmachines.evaluation.scores import CLOSED_THRESHOLD, STILL_SHARE, energy
from talkingmachines.presets import Preset
from talkingmachines.types import SAMPLE_RATE, VideoFrame

COLOURS = ("red", "green", "blue", "red_spread", "green_spread", "blue_spread")
"""Mean and standard deviation of each channel over the picture, in levels of 255."""

LOOKS = ("sharpness", "identity", "top1", *COLOURS, "colour_distance")
"""What is measured on every so many frames."""

PIECE = SAMPLE_RATE // 10
"""Samples pushed into the call at a time."""

_GRID = (16, 16)
_LEAST_CHANGE = 1e-6
"""A squared change between frames, in levels, under which nothing has moved at all."""

Progress = Callable[[int, int], None]
Look = Callable[[int, np.ndarray], None]
"""Is shown every frame of the call: its number and its pixels."""


class Reader(Protocol):
    """What reads poses: a FaceReader."""

    def read(self, frames: np.ndarray) -> dict[str, np.ndarray]: ...


class Line(Protocol):
    """A call that is on: a Session."""

    def push_audio(self, pcm: np.ndarray, coming: np.ndarray | None = None, /) -> list[VideoFrame]: ...

    def end_segment(self) -> list[VideoFrame]: ...

    def close(self) -> None: ...


class Caller(Protocol):
    """What can be called: an Avatar."""

    @property
    def size(self) -> int: ...

    @property
    def preset(self) -> Preset: ...

    @property
    def device(self) -> torch.device: ...

    def session(self, image: np.ndarray, *, seed: int) -> Any: ...


@dataclass(frozen=True)
class LongRunConfig:
    """every: frames from one that is looked at for sharpness, colour and identity to the next; all are read."""

    minutes: int = 30
    every: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.minutes, self.every) < 1:
            raise ConfigError(f"a long run needs minutes and every of at least 1, got {self.minutes} and {self.every}")


def long_run(
    avatar: Caller,
    bank: SpeechBank,
    progress: Progress | None = None,
    config: LongRunConfig | None = None,
    *,
    reader: Reader | None = None,
    look: Look | None = None,
) -> dict[str, Any]:
    """A held-out character on a call of so many minutes of held-out speech and silence. Figures: see Meter.

    progress(done, total) counts frames. Raises ConfigError for a bank that does not suit, CheckpointError without a
    reader.
    """
    started = time.perf_counter()
    config = config or LongRunConfig()
    reader = reader or load_reader().to(avatar.device)
    character = caller(config.seed)
    picture = draw(sample_character(character), Pose(), avatar.size)
    meter = Meter(picture, portraits(avatar.size), character, reader, avatar.preset.chunk.frames, config.every)
    heard, true = tee(call_minute(bank, index, config.seed) for index in range(config.minutes))
    measure(spoken(avatar, picture, heard, config.seed), true, meter, look, progress, config.minutes * MINUTE)
    return meter.figures() | {"character": character, "seconds": round(time.perf_counter() - started, 1)}


def spoken(avatar: Caller, picture: np.ndarray, minutes: Iterable[Clip], seed: int) -> Iterator[np.ndarray]:
    """The call as it comes, in blocks of frames [n, H, W, 3]."""
    session: Line
    with avatar.session(picture, seed=seed) as session:
        for clip in minutes:
            for start in range(0, len(clip.samples), PIECE):
                now, later = np.split(clip.samples[start:], [PIECE])
                if made := session.push_audio(now, later):
                    yield np.stack([frame.pixels for frame in made])
        if made := session.end_segment():
            yield np.stack([frame.pixels for frame in made])


def measure(
    frames: Iterable[np.ndarray],
    minutes: Iterable[Clip],
    meter: "Meter",
    look: Look | None = None,
    progress: Progress | None = None,
    total: int = 0,
) -> None:
    """Feeds blocks of frames [n, H, W, 3] of any size to the meter, minute by minute, until either runs out.

    A last minute of which less than half came does not count. progress(done, total) counts frames.
    """
    blocks = iter(frames)
    left = np.empty((0, 1, 1, 3), np.uint8)
    seen = 0
    for clip in minutes:
        missing = clip.num_frames
        while missing:
            if not len(left):
                left = next(blocks, left)
            if not len(left):
                break
            block, left = left[:missing], left[missing:]
            meter.add(block)
            for index, frame in enumerate(block):
                if look is not None:
                    look(seen + index, frame)
            seen += len(block)
            missing -= len(block)
            if progress is not None:
                progress(seen, total)
        if missing > clip.num_frames // 2:
            return
        meter.end_minute(clip)


@dataclass
class _Minute:
    """What is kept of the frames of a minute until it ends: numbers."""

    readings: list[dict[str, np.ndarray]] = field(default_factory=list)
    looks: list[list[float]] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    at_border: list[bool] = field(default_factory=list)


class Meter:
    """Measures a call frame by frame, and keeps no frame but the last.

    picture: [H, W, 3] uint8, of number `character` of the faces [N, H, W, 3]; chunk: latent frames of a chunk.
    """

    def __init__(
        self, picture: np.ndarray, faces: np.ndarray, character: int, reader: Reader, chunk: int, every: int = 5
    ) -> None:
        self.reader, self.character, self.every = reader, character, every
        self.gallery = metrics.identity_vectors(faces)
        self.everywhere = np.ones(picture.shape[:2], bool)
        self.detail = max(metrics.gradient_energy(picture, self.everywhere), 1e-9)
        self.grid = _grid(picture)
        self.first, self.period = frames_in(chunk), FRAMES_PER_LATENT * chunk
        self.seen = 0
        self.rows: list[dict[str, float]] = []
        self._before: np.ndarray | None = None
        self._minute = _Minute()

    def add(self, frames: np.ndarray) -> None:
        """The next frames of the minute, [n, H, W, 3] uint8."""
        self._minute.readings.append(self.reader.read(frames))
        for frame in frames:
            if self._before is not None:
                # Squares of differences of bytes, in the smallest type that holds them: this runs for every frame.
                step = frame.astype(np.int32) - self._before
                self._minute.changes.append(float((step * step).mean()))
                self._minute.at_border.append(self.is_border(self.seen))
            if self.seen % self.every == 0:
                self._minute.looks.append(self._look(frame))
            self._before = frame
            self.seen += 1

    def is_border(self, frame: int) -> bool:
        """Is this frame the first of a chunk other than the call's first?"""
        return frame >= self.first and (frame - self.first) % self.period == 0

    def end_minute(self, true: Clip) -> None:
        """Turns what was seen since the last minute's end into a row of figures; true: what was drawn then."""
        minute, self._minute = self._minute, _Minute()
        read = {name: np.concatenate([r[name] for r in minute.readings]) for name in READ_FIELDS}
        count = len(read["mouth_open"])
        truth = {name: true.track[:count, POSE_FIELDS.index(name)] for name in READ_FIELDS}
        speaking = true.speaking[:count]
        silent = metrics.silent_frames(true.closed[:count], true.bilabial[:count])
        changes, border = np.array(minute.changes), np.array(minute.at_border, bool)
        motion, true_motion = energy(read), energy(truth)
        blinks = metrics.count_blinks(read["eye_open"])
        row = dict(zip(LOOKS, np.mean(minute.looks, 0).tolist(), strict=True))
        self.rows.append(
            row
            | {
                "lips_r": metrics.pearson(read["mouth_open"][speaking], truth["mouth_open"][speaking]),
                "shut_in_silence": float((read["mouth_open"][silent] < CLOSED_THRESHOLD).mean()),
                "motion": motion / max(true_motion, 1e-9),
                "blinks": float(blinks),
                "truth_blinks": float(metrics.count_blinks(truth["eye_open"])),
                "change_at_borders": float(changes[border].mean()),
                "change_inside": float(changes[~border].mean()),
                "still": float(motion < STILL_SHARE * true_motion and not blinks),
            }
        )

    def figures(self) -> dict[str, Any]:
        """Of all minutes that have ended.

        series: one value a minute, by name; means, slopes (least squares, per minute; None for a single minute) and
        end_over_start (last minute over first; None where the first is 0) of each. drift_*: how far the last minute
        is from the first, as a share of it; of colour the worst of the six. border_ratio: squared change from frame
        to frame where chunks meet over that inside them. Raises ConfigError before the first minute has ended.
        """
        if not self.rows:
            raise ConfigError("a long run needs at least one frame")
        series = {name: [row[name] for row in self.rows] for name in self.rows[0]}
        series["border_ratio"] = [_ratio(row["change_at_borders"], row["change_inside"]) for row in self.rows]
        still = series.pop("still")
        ends = {name: _end_over_start(values) for name, values in series.items()}
        means = {name: float(np.mean(values)) for name, values in series.items()}
        means["border_ratio"] = _ratio(means["change_at_borders"], means["change_inside"])
        return {
            "minutes": len(self.rows),
            "frames": self.seen,
            "drift_sharpness": _drift(ends["sharpness"]),
            "drift_identity": _drift(ends["identity"]),
            "drift_colour": max((_drift(ends[name]) for name in COLOURS), key=abs),
            "border_ratio": means["border_ratio"],
            "still_minutes": int(sum(still)),
            "means": means,
            "slopes": {name: _slope(values) for name, values in series.items()},
            "end_over_start": ends,
            "series": series,
        }

    def _look(self, frame: np.ndarray) -> list[float]:
        """The values of LOOKS."""
        vector = metrics.identity_vectors(frame[None])
        sharpness = np.sqrt(metrics.gradient_energy(frame, self.everywhere) / self.detail)
        like = metrics.likeness(vector, self.character, self.gallery)[0]
        recognised = metrics.nearest(vector, self.gallery)[0] == self.character
        distance = np.abs(_grid(frame) - self.grid).mean()
        means, spreads = frame.mean((0, 1)), frame.std((0, 1))
        return [float(value) for value in (sharpness, like, recognised, *means, *spreads, distance)]


def _grid(frame: np.ndarray) -> np.ndarray:
    """[16, 16, 3] float32: the colours of a picture, place by place."""
    return np.asarray(Image.fromarray(frame).resize(_GRID, Image.Resampling.BOX), np.float32)


def _ratio(border: float, inside: float) -> float:
    return border / max(inside, _LEAST_CHANGE)


def _end_over_start(values: list[float]) -> float | None:
    return values[-1] / values[0] if values[0] else None


def _drift(end_over_start: float | None) -> float:
    """A share of the first minute; all of it where that had nothing."""
    return 1.0 if end_over_start is None else end_over_start - 1


def _slope(values: list[float]) -> float | None:
    return float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else None
