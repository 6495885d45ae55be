"""Speech with known phone times: what the voices of a split are, and one sentence spoken by one of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from talkingmachines.data.synthetic import voices_espeak, voices_piper
from talkingmachines.data.synthetic.sentences import foreign_sentence, sentence
from talkingmachines.data.synthetic.sound import normalise, resample
from talkingmachines.data.synthetic.visemes import SILENCE, Phone, merge
from talkingmachines.errors import ConfigError
from talkingmachines.types import SAMPLE_RATE

__all__ = ["SPLITS", "Phone", "Utterance", "choose_voice", "sentence", "synthesise", "text_for", "voices"]

SPLITS = ("train", "heldout")

_ENGINES: dict[str, Callable[[str, str, np.random.Generator], tuple[np.ndarray, int, list[Phone]]]] = {
    "espeak": voices_espeak.speak,
    "joe": voices_piper.speak,
}


@dataclass(frozen=True)
class Utterance:
    """samples: float32 [n], 16 kHz, at sound.SPEECH_LEVEL; phones: in order, inside the samples."""

    samples: np.ndarray
    phones: tuple[Phone, ...]
    voice: str
    text: str


def voices(split: str) -> tuple[str, ...]:
    """The names of a split's voices, "engine:voice". Raises ConfigError for an unknown split."""
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    piper = tuple(f"joe:{name}" for name in voices_piper.names(split))
    return piper + tuple(f"espeak:{name}" for name in voices_espeak.names(split))


def choose_voice(split: str, rng: np.random.Generator) -> str:
    """A voice of the split; 60 in 100 are the neural one, which sounds most like people."""
    neural = rng.random() < 0.6
    chosen = [name for name in voices(split) if name.startswith("joe:") == neural]
    return chosen[rng.integers(len(chosen))]


def text_for(voice: str, seed: int, split: str) -> str:
    """What the voice says, in its own language: a sentence of the split, and a second one after a short one."""
    language = voice.partition(":")[2].partition("+")[0]
    first, second = (foreign_sentence(language, one, split) or sentence(one, split) for one in (seed, seed + 2**31))
    return first if len(first) > 35 else f"{first} {second}"


def synthesise(text: str, voice: str, rng: np.random.Generator) -> Utterance:
    """Speaks text. rng varies pitch, rate and liveliness around the voice's own.

    Raises ConfigError for a voice that does not exist, MissingPackageError without the `data` packages.
    espeak-ng keeps a phase from call to call, so a repeated call may differ by some samples.
    """
    engine, _, name = voice.partition(":")
    if engine not in _ENGINES or voice not in voices("train") + voices("heldout"):
        raise ConfigError(f"unknown voice {voice!r}: take one from speech.voices(split)")
    samples, rate, phones = _ENGINES[engine](text, name, rng)
    return _trimmed(normalise(resample(samples, SAMPLE_RATE / rate)), phones, voice, text)


def _trimmed(samples: np.ndarray, phones: list[Phone], voice: str, text: str) -> Utterance:
    """Cuts the silence before and after the words down to a breath, and the phones to what is left."""
    sounding = [phone for phone in phones if phone.symbol != SILENCE]
    first = max(0, round((sounding[0].start - 0.06) * SAMPLE_RATE))
    last = min(len(samples), round((sounding[-1].end + 0.1) * SAMPLE_RATE))
    kept = samples[first:last]
    end = len(kept) / SAMPLE_RATE
    times = ((p.symbol, p.start - first / SAMPLE_RATE, p.end - first / SAMPLE_RATE) for p in phones)
    inside = [Phone(symbol, max(start, 0.0), min(stop, end)) for symbol, start, stop in times]
    return Utterance(kept, merge(inside), voice, text)
