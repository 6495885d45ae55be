"""How it sounds: voices that run here. Each takes a sentence and a name, and gives samples and their rate in pieces."""

from collections.abc import Callable, Iterator

import numpy as np

from talkingmachines.conversation.voices.fallback import Candidate
from talkingmachines.data.synthetic import voices_espeak, voices_piper

Speak = Callable[[str, str], Iterator[tuple[np.ndarray, int]]]
"""speak(text, name) yields float32 [n] and samples a second. A name that the voice has not is its plain one."""

PLAIN = "plain"


def load_joe() -> Speak:
    """Piper's "joe" as several pseudo speakers; loaded, so that the first sentence of a call need not wait."""
    known = voices_piper.names("train")

    def speak(text: str, name: str) -> Iterator[tuple[np.ndarray, int]]:
        # The same numbers for every sentence, so that the pitch of a voice stays where it is.
        return voices_piper.speak_in_pieces(text, name if name in known else PLAIN, np.random.default_rng(0))

    list(speak("Hello.", PLAIN))
    return speak


def load_espeak() -> Speak:
    """espeak-ng: robotic, but always there."""
    known = {PLAIN: "en-us+m3", "deep": "en-us+m7", "high": "en-us+f2"}

    def speak(text: str, name: str) -> Iterator[tuple[np.ndarray, int]]:
        samples, rate, _ = voices_espeak.speak(text, known.get(name, known[PLAIN]), np.random.default_rng(0))
        yield samples, rate

    list(speak("Hello.", PLAIN))
    return speak


SPEAKERS: list[Candidate[Speak]] = [Candidate("joe", load_joe), Candidate("espeak-ng", load_espeak)]
