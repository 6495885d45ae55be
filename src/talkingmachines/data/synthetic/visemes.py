"""Mouth shapes from phones: viseme classes, their targets, and coarticulated tracks.

The blend of neighbouring targets by dominance follows Cohen and Massaro (1993), "Modeling coarticulation in
synthetic visual speech". The target values are our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from talkingmachines.data.synthetic.sound import CURVE_RATE, SPEECH_LEVEL, loudness, smooth
from talkingmachines.types import FPS

MOUTH_FIELDS = ("mouth_open", "mouth_wide", "mouth_round", "teeth", "tongue")

LEAD = 0.03
"""Seconds by which the lips move before the sound."""


@dataclass(frozen=True)
class Phone:
    """One segment of speech. symbol: a key of VISEMES; start and end in seconds."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class Viseme:
    """target: values of MOUTH_FIELDS; grip: how firmly it holds its opening and its shape against neighbours."""

    target: tuple[float, float, float, float, float]
    grip_open: float
    grip_shape: float


VISEMES: dict[str, Viseme] = {
    "sil": Viseme((0.00, 0.00, 0.00, 0.0, 0.0), 1.0, 0.5),
    "PP": Viseme((0.00, 0.00, 0.10, 0.0, 0.0), 0.3, 0.3),  # p b m; the lip gate shuts them
    "FF": Viseme((0.10, 0.10, 0.00, 0.9, 0.0), 1.2, 1.0),  # f v
    "TH": Viseme((0.20, 0.10, 0.00, 0.5, 0.9), 0.8, 1.0),
    "DD": Viseme((0.16, 0.15, 0.00, 0.5, 0.3), 0.7, 0.4),  # t d n
    "LL": Viseme((0.32, 0.10, 0.00, 0.3, 0.8), 0.6, 0.6),
    "KK": Viseme((0.20, 0.05, 0.00, 0.2, 0.1), 0.4, 0.2),  # k g ng h
    "CH": Viseme((0.14, -0.35, 0.55, 0.8, 0.0), 0.9, 1.0),  # sh zh ch j
    "SS": Viseme((0.10, 0.40, 0.00, 1.0, 0.0), 1.0, 0.7),  # s z
    "RR": Viseme((0.32, -0.25, 0.45, 0.2, 0.1), 0.6, 0.6),
    "AA": Viseme((1.00, 0.05, 0.00, 0.2, 0.1), 1.0, 0.8),  # father
    "AE": Viseme((0.92, 0.45, 0.00, 0.4, 0.1), 1.0, 0.9),  # cat, bath in some accents
    "EH": Viseme((0.76, 0.45, 0.00, 0.4, 0.1), 1.0, 0.8),  # bed, strut
    "UH": Viseme((0.60, 0.05, 0.05, 0.2, 0.1), 0.8, 0.4),  # schwa, nurse
    "IH": Viseme((0.54, 0.80, 0.00, 0.6, 0.1), 0.9, 1.0),  # see, sit, yes
    "OH": Viseme((0.84, -0.35, 0.60, 0.1, 0.0), 1.0, 1.0),  # law, go
    "OU": Viseme((0.44, -0.70, 0.95, 0.0, 0.0), 0.9, 1.2),  # you, put, we
}
SYMBOLS = tuple(VISEMES)
BILABIAL = "PP"
SILENCE = "sil"
VOWELS = frozenset(("AA", "AE", "EH", "UH", "IH", "OH", "OU"))

_IPA_CLASSES = {
    "PP": "pbmɓβʙɸ",
    "FF": "fvɱʋⱱ",
    "TH": "θð",
    "DD": "tdnɖʈɾɗɳɲŧ",
    "LL": "lɫɭʎɬɮʟ",
    "KK": "kɡgŋhxɣɦħqχʔcɟçʝɢɴɰʕʜ",
    "CH": "ʃʒɕʑʂʐ",
    "SS": "sz",
    "RR": "ɹrʁʀɻɽɺ",
    "AA": "ɑɒaɐ",
    "AE": "æ",
    "EH": "ɛeʌεɘ",
    "UH": "əɜɚɝɞᵻɵɤø",
    "IH": "ɪijiɨʏ",
    "OH": "ɔoœ",
    "OU": "uʊwyʉɯɥʍ",
}
_CLASS_OF_IPA = {letter: name for name, letters in _IPA_CLASSES.items() for letter in letters}


def visemes_of_ipa(symbol: str) -> list[str]:
    """Viseme classes of one IPA phone: stress and length marks are skipped, diphthongs give both of their ends."""
    classes: list[str] = []
    for letter in symbol:
        name = _CLASS_OF_IPA.get(letter)
        if name is not None and (not classes or classes[-1] != name):
            classes.append(name)
    return classes[1:] if classes[:2] in (["DD", "CH"], ["DD", "SS"]) else classes  # affricates take one shape


def phones_of_ipa(symbol: str, start: float, end: float) -> list[Phone]:
    """The phones of one IPA symbol that sounds from start to end; unknown marks become silence."""
    names = visemes_of_ipa(symbol) or [SILENCE]
    edges = np.linspace(start, end, len(names) + 1)
    return [Phone(n, float(a), float(b)) for n, a, b in zip(names, edges[:-1], edges[1:], strict=True)]


def merge(phones: Sequence[Phone]) -> tuple[Phone, ...]:
    """Joins touching phones of equal symbol, drops empty ones."""
    merged: list[Phone] = []
    for phone in phones:
        if phone.end <= phone.start:
            continue
        if merged and merged[-1].symbol == phone.symbol and phone.start - merged[-1].end < 1e-3:
            merged[-1] = Phone(phone.symbol, merged[-1].start, phone.end)
        else:
            merged.append(phone)
    return tuple(merged)


def mouth_track(phones: Sequence[Phone], samples: np.ndarray, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Mouth movement for clean speech at SPEECH_LEVEL.

    phones: in order, in seconds from the first sample; what they leave out is silence. samples: float32 [n].
    Returns the track float32 [num_frames, 5] (MOUTH_FIELDS, sampled at frame centres) and bilabial bool
    [num_frames], the frames inside a p/b/m closure. mouth_open is exactly 0 there and in silence.
    """
    segments = _with_silences(phones, num_frames / FPS)
    times = (np.arange(round(num_frames * CURVE_RATE / FPS)) + 0.5) / CURVE_RATE
    curves = _blend(segments, times + LEAD)
    curves[:, 0] *= _loudness_factor(samples, len(times)) * _lip_gate(segments, times + LEAD)
    curves[:, 0] = np.minimum(curves[:, 0], 1.0)
    centres = (np.arange(num_frames) + 0.5) / FPS
    track = np.stack([np.interp(centres, times, column) for column in curves.T], axis=1)
    bilabial = _closed_frames(segments, num_frames)
    track[bilabial, 0] = 0.0
    track[_lip_gate(segments, centres + LEAD) == 0, 0] = 0.0
    track[track[:, 0] < 0.02, 0] = 0.0
    return track.astype(np.float32), bilabial


def _with_silences(phones: Sequence[Phone], duration: float) -> list[Phone]:
    """Fills the gaps between phones, and a second on both sides, with silence."""
    filled: list[Phone] = []
    clock = -1.0
    for phone in phones:
        if phone.start > clock:
            filled.append(Phone(SILENCE, clock, phone.start))
        filled.append(phone)
        clock = phone.end
    filled.append(Phone(SILENCE, clock, max(duration, clock) + 1.0))
    return list(merge(filled))


def _blend(segments: Sequence[Phone], times: np.ndarray) -> np.ndarray:
    """Dominance-weighted mean of the targets at each time. [n] -> [n, 5]."""
    starts = np.array([s.start for s in segments])
    ends = np.array([s.end for s in segments])
    visemes = [VISEMES[s.symbol] for s in segments]
    targets = np.array([v.target for v in visemes])
    before = np.maximum(starts - times[:, None], 0)
    after = np.maximum(times[:, None] - ends, 0)
    reach = np.exp(-before / 0.045 - after / 0.035)
    grip = np.array([[v.grip_open, v.grip_shape] for v in visemes])
    weight_open, weight_shape = reach * grip[:, 0] + 1e-9, reach**0.6 * grip[:, 1] + 1e-9
    opening = (weight_open @ targets[:, :1]) / weight_open.sum(axis=1, keepdims=True)
    shape = (weight_shape @ targets[:, 1:]) / weight_shape.sum(axis=1, keepdims=True)
    return smooth(np.concatenate([opening, shape], axis=1), 2.0)


def _loudness_factor(samples: np.ndarray, count: int) -> np.ndarray:
    """0.4 .. 1.2: how far the loudness of the moment narrows or widens the opening."""
    level = smooth(loudness(samples), 1.5) / SPEECH_LEVEL
    factor = 0.4 + 0.8 * np.clip(level / 1.6, 0, 1)
    return np.pad(factor[:count], (0, max(0, count - len(factor))), constant_values=0.4)


def _lip_gate(segments: Sequence[Phone], times: np.ndarray) -> np.ndarray:
    """0 while the lips are shut (p b m, silence longer than a stop), 1 when free, smooth between. [n]."""
    gate = np.ones(len(times))
    for segment in segments:
        if segment.symbol == BILABIAL:
            start, end, ramp = *_closure(segment), 0.04
        elif segment.symbol == SILENCE and segment.end - segment.start > 0.16:
            start, end, ramp = segment.start + 0.07, segment.end - 0.04, 0.07
        else:
            continue
        distance = np.maximum(np.maximum(start - times, times - end), 0) / ramp
        gate = np.minimum(gate, _smoothstep(distance))
    return gate


def _closure(segment: Phone) -> tuple[float, float]:
    """When the lips of a p, b or m are shut: its segment, or more when that is only the burst of a stop."""
    return min(segment.start, segment.end - 0.07), segment.end


def _closed_frames(segments: Sequence[Phone], num_frames: int) -> np.ndarray:
    """The frames whose centre lies in a p/b/m closure, and for a closure between centres the nearest frame."""
    centres = (np.arange(num_frames) + 0.5) / FPS + LEAD
    closed = np.zeros(num_frames, bool)
    for segment in segments:
        if segment.symbol != BILABIAL:
            continue
        start, end = _closure(segment)
        inside = (centres >= start) & (centres < end)
        nearest = round(((start + end) / 2 - LEAD) * FPS - 0.5)
        if not inside.any() and 0 <= nearest < num_frames:
            inside[nearest] = True
        closed |= inside
    return closed


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
