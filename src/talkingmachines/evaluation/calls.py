"""A long call in the drawn world: minutes of held-out speech and silence that are all laid out alike."""

import numpy as np

from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.clip import Clip
from talkingmachines.data.synthetic.motion import face_motion
from talkingmachines.data.synthetic.pose import POSE_FIELDS
from talkingmachines.data.synthetic.sound import SPEECH_LEVEL, frame_loudness
from talkingmachines.data.synthetic.speech import Utterance
from talkingmachines.data.synthetic.visemes import MOUTH_FIELDS, Phone, mouth_track
from talkingmachines.errors import ConfigError
from talkingmachines.evaluation.clips import EvalConfig, cast_of
from talkingmachines.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

MINUTE = 60 * FPS
"""Video frames in a minute."""

TURNS = ((2.0, 20.0), (27.0, 39.0), (45.0, 57.0))
"""Seconds of every minute in which the character may speak. One layout for all, so that minutes can be compared."""

_MOUTH = [POSE_FIELDS.index(name) for name in MOUTH_FIELDS]


def call_minute(bank: SpeechBank, index: int, seed: int = 0) -> Clip:
    """Minute `index` of the call with this seed: clean speech in three turns, each in one voice, and silence between.

    Raises ConfigError for a bank that is not held out, or whose utterances are all longer than a turn.
    """
    if bank.split != "heldout":
        raise ConfigError(f"a long run needs a 'heldout' speech bank, got {bank.split!r}")
    rng = np.random.default_rng([seed, index, 37])
    samples = np.zeros(MINUTE * SAMPLES_PER_FRAME, np.float32)
    speaking = np.zeros(MINUTE, bool)
    times = (np.arange(MINUTE) + 0.5) / FPS
    phones: list[Phone] = []
    for start, end in TURNS:
        clock = start
        for time, utterance in _turn(bank, start, end, rng):
            first = round(time * SAMPLE_RATE)
            samples[first : first + len(utterance.samples)] = utterance.samples
            offset = first / SAMPLE_RATE
            phones += [Phone(p.symbol, p.start + offset, p.end + offset) for p in utterance.phones]
            clock = time + len(utterance.samples) / SAMPLE_RATE
        if clock > start:
            speaking |= (times >= start - 0.15) & (times < clock + 0.25)
    if not phones:
        raise ConfigError("no utterance of the speech bank fits into a turn of a long run; build one with shorter ones")
    mouth, bilabial = mouth_track(phones, samples, MINUTE)
    loud = np.clip(frame_loudness(samples) / (1.8 * SPEECH_LEVEL), 0, 1)
    track = face_motion(loud, speaking, rng)
    track[:, _MOUTH] = mouth
    closed = track[:, _MOUTH[0]] == 0
    return Clip(caller(seed), samples, track, speaking, closed, bilabial & closed)


def caller(seed: int) -> int:
    """The held-out character (0 .. 63) who is seen in the call with this seed."""
    return cast_of(EvalConfig(seed=seed), 0)


def _turn(bank: SpeechBank, start: float, end: float, rng: np.random.Generator) -> list[tuple[float, Utterance]]:
    """Utterances of one voice with the second at which each begins, none of which sounds after the end."""
    pool = bank.of_voice(bank.utterances[rng.integers(len(bank))].voice)
    placed: list[tuple[float, Utterance]] = []
    clock = start
    while True:
        utterance = pool[rng.integers(len(pool))]
        after = clock + len(utterance.samples) / SAMPLE_RATE
        if after > end:
            return placed
        placed.append((clock, utterance))
        clock = after + rng.uniform(0.1, 0.8)
