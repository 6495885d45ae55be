"""One training clip: what is heard, and how the character moves to it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from talkingmachines.data.synthetic.augment import augment
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.motion import face_motion
from talkingmachines.data.synthetic.pose import POSE_FIELDS
from talkingmachines.data.synthetic.sound import SPEECH_LEVEL, frame_loudness
from talkingmachines.data.synthetic.speech import SPLITS, Utterance
from talkingmachines.data.synthetic.visemes import MOUTH_FIELDS, Phone, mouth_track
from talkingmachines.errors import ConfigError
from talkingmachines.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

HELDOUT_CHARACTERS = 1_000
"""Characters 0 .. 999 are the held-out ones; training clips use those from 1_000."""

_MARGIN = FPS
"""Frames built on both sides of a clip and cut off again, so that it starts and ends in the middle of things."""

_MOUTH = [POSE_FIELDS.index(name) for name in MOUTH_FIELDS]
_EYES_AND_BROWS = [POSE_FIELDS.index(n) for n in ("gaze_x", "gaze_y", "brow_raise", "brow_frown")]


@dataclass(frozen=True)
class Clip:
    """character_seed: for character.sample_character. samples: float32 [640 * T], as heard. track: float32
    [T, len(POSE_FIELDS)]. speaking: bool [T], the character's turns. closed: bool [T], lips shut (mouth_open is 0).
    bilabial: bool [T], the part of closed that is a p, b or m."""

    character_seed: int
    samples: np.ndarray
    track: np.ndarray
    speaking: np.ndarray
    closed: np.ndarray
    bilabial: np.ndarray

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.track)


def make_clip(seed: int, split: str, num_frames: int, bank: SpeechBank) -> Clip:
    """A clip of num_frames frames, the same for the same arguments.

    Of ten clips about 5.5 are speech with its natural pauses, 2 mostly silence, and the rest change turns.
    Half of the clips start from a neutral face with a shut mouth. Raises ConfigError for a bank of another split or
    num_frames < 1.
    """
    if bank.split != split:
        raise ConfigError(f"a {split!r} clip needs a {split!r} speech bank, got {bank.split!r}")
    if num_frames < 1:
        raise ConfigError(f"num_frames must be at least 1, got {num_frames}")
    rng = np.random.default_rng([seed, SPLITS.index(split), 3])
    duration = num_frames / FPS
    voice = bank.utterances[rng.integers(len(bank))].voice
    pool = bank.of_voice(voice)
    turns = _plan_turns(duration, rng)
    placed = [item for turn in turns for item in _fill_turn(*turn, duration, pool, rng)]
    clean, phones = _mix(placed, num_frames)
    speaking = _turn_flags(placed, turns, num_frames)

    mouth, bilabial = mouth_track(phones, clean, num_frames + 2 * _MARGIN)
    inside = slice(_MARGIN, _MARGIN + num_frames)
    loud = np.clip(frame_loudness(clean)[inside] / (1.8 * SPEECH_LEVEL), 0, 1)
    track = face_motion(loud, speaking, rng)
    track[:, _MOUTH] = mouth[inside]
    if rng.random() < 0.5:
        _start_neutral(track, int(rng.integers(3, 5)))
    closed = track[:, _MOUTH[0]] == 0
    heard = augment(clean, rng)[_MARGIN * SAMPLES_PER_FRAME :][: num_frames * SAMPLES_PER_FRAME]
    characters = (HELDOUT_CHARACTERS, 2**31) if split == "train" else (0, HELDOUT_CHARACTERS)
    return Clip(int(rng.integers(*characters)), heard, track, speaking, closed, bilabial[inside] & closed)


def _plan_turns(duration: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """(start, end) of the speaking turns in seconds; infinite where a turn began before or ends after the clip."""
    kind = rng.random()
    if kind < 0.55:
        return [(-np.inf, np.inf)]
    if kind < 0.65:
        return []
    if kind < 0.75:
        edge = duration * rng.uniform(0.05, 0.25)
        return [(-np.inf, edge)] if rng.random() < 0.5 else [(duration - edge, np.inf)]
    first, second = np.sort(rng.uniform(0.15, 0.85, 2)) * duration
    if second - first > 0.8 and rng.random() < 0.6:
        return [(-np.inf, first), (second, np.inf)] if rng.random() < 0.6 else [(first, second)]
    return [(-np.inf, first)] if rng.random() < 0.5 else [(second, np.inf)]


def _fill_turn(
    start: float, end: float, duration: float, pool: list[Utterance], rng: np.random.Generator
) -> Iterator[tuple[float, Utterance]]:
    """Utterances with the time (seconds in the clip) at which each begins, from the turn's start to its end."""
    margin = _MARGIN / FPS
    if np.isinf(start) and not np.isinf(end):
        clock = end
        while clock > -margin:
            utterance = pool[rng.integers(len(pool))]
            clock -= len(utterance.samples) / SAMPLE_RATE
            yield clock, utterance
            clock -= _pause(rng)
        return
    utterance = pool[rng.integers(len(pool))]
    clock = -margin - rng.uniform(0, len(utterance.samples) / SAMPLE_RATE) if np.isinf(start) else start
    last = min(end, duration + margin)
    while clock < last:
        yield clock, utterance
        clock += len(utterance.samples) / SAMPLE_RATE + _pause(rng)
        utterance = pool[rng.integers(len(pool))]


def _pause(rng: np.random.Generator) -> float:
    return 0.08 + min(rng.exponential(0.22), 0.7)


def _mix(placed: list[tuple[float, Utterance]], num_frames: int) -> tuple[np.ndarray, list[Phone]]:
    """Clean speech and phones of the clip with its margins; both count from the start of the margin."""
    mixed = np.zeros((num_frames + 2 * _MARGIN) * SAMPLES_PER_FRAME, np.float32)
    phones: list[Phone] = []
    for time, utterance in sorted(placed, key=lambda item: item[0]):
        start = round((time + _MARGIN / FPS) * SAMPLE_RATE)
        first, last = max(start, 0), min(start + len(utterance.samples), len(mixed))
        if first < last:
            mixed[first:last] += utterance.samples[first - start : last - start]
        offset = start / SAMPLE_RATE
        phones += [Phone(p.symbol, p.start + offset, p.end + offset) for p in utterance.phones]
    return mixed, phones


def _turn_flags(placed: list[tuple[float, Utterance]], turns: list[tuple[float, float]], num_frames: int) -> np.ndarray:
    """True from shortly before the first word of a turn to shortly after its last."""
    times = (np.arange(num_frames) + 0.5) / FPS
    flags = np.zeros(num_frames, bool)
    for start, end in turns:
        stops = [time + len(u.samples) / SAMPLE_RATE for time, u in placed if start <= time <= end]
        last = np.inf if np.isinf(end) else max(stops, default=start)
        flags |= (times >= start - 0.15) & (times < last + 0.25)
    return flags


def _start_neutral(track: np.ndarray, count: int) -> None:
    """Makes frame 0 a portrait, mouth shut and eyes on the viewer, and blends into the track over count frames."""
    for index in range(min(count, len(track))):
        weight = index / count
        weight = weight * weight * (3 - 2 * weight)
        track[index, _MOUTH + _EYES_AND_BROWS] *= weight
