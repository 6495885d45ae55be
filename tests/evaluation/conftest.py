from collections.abc import Callable

import numpy as np
import pytest

from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.speech import Utterance
from talkingmachines.data.synthetic.visemes import BILABIAL, SILENCE, Phone
from talkingmachines.types import SAMPLE_RATE

SOUNDS = ("AA", BILABIAL, "EH", "DD", "OU", BILABIAL, "IH", "SS", "AE", SILENCE)


def utterance(seed: int) -> Utterance:
    """Noise that is loud in vowels, with phones of 60 to 160 ms and now and then a pause."""
    rng = np.random.default_rng(seed)
    clock, phones, pieces = 0.0, [], []
    for index in range(40):
        symbol = SOUNDS[(index * 7 + seed) % len(SOUNDS)]
        end = clock + (0.45 if symbol == SILENCE else rng.uniform(0.06, 0.16))
        phones.append(Phone(symbol, clock, end))
        count = round(end * SAMPLE_RATE) - round(clock * SAMPLE_RATE)
        loud = {SILENCE: 0.0, BILABIAL: 0.01}.get(symbol, 0.15)
        pieces.append(loud * rng.normal(size=count))
        clock = end
    return Utterance(np.concatenate(pieces).astype(np.float32).clip(-1, 1), tuple(phones), f"espeak:test{seed % 2}", "")


@pytest.fixture(scope="session")
def make_bank() -> Callable[[str], SpeechBank]:
    """A speech bank without a synthesiser."""
    return lambda split: SpeechBank(split, tuple(utterance(seed) for seed in range(6)))
