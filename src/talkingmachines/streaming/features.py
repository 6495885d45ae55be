"""What a call's sound is to the model, made piece by piece: log-mel columns, or what a speech encoder makes of it.

T video frames, C feature channels, N layers of the speech encoder, D its width.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from talkingmachines.audio.alignment import FRAMES_PER_LATENT
from talkingmachines.audio.features import HISTORY, log_mel
from talkingmachines.encoders.gestures import Gestures
from talkingmachines.encoders.hearing import Hearing
from talkingmachines.encoders.speech import SpeechEncoder, SpeechState
from talkingmachines.types import SAMPLES_PER_FRAME


class FeatureStream(Protocol):
    """The features of one stream of sound, in constant memory. Made for one call; weights are shared."""

    def push(self, samples: Tensor) -> Tensor:
        """Those of the next samples [1, 640 * T] in [-1, 1]: [1, T, ...], on the device that the maker chose."""

    def peek(self, samples: Tensor) -> Tensor:
        """What `push` would return. Nothing changes: to hear ahead."""

    def cut(self) -> None:
        """Forgets what came last: what comes next does not follow on it, and would begin with a click."""


MakeFeatures = Callable[[int], FeatureStream]
"""The features of a new call, from its seed."""


class LogMelStream:
    """log_mel, [1, T, C]: the same features whatever the pieces."""

    def __init__(self) -> None:
        self._history = torch.zeros(1, HISTORY)

    @classmethod
    def make(cls, seed: int) -> "LogMelStream":
        """A MakeFeatures."""
        return cls()

    def push(self, samples: Tensor) -> Tensor:
        features = self.peek(samples)
        self._history = samples[:, -HISTORY:].clone()
        return features

    def peek(self, samples: Tensor) -> Tensor:
        return log_mel(samples, self._history)

    def cut(self) -> None:
        self._history = torch.zeros_like(self._history)


class HearingStream:
    """Hearing's features and drawn gestures, [1, T, C + G]: the same to the bit, if all pieces are of latent frames.

    So they are made latent frame by latent frame: each gesture goes on from the one before, and rounding would grow.
    """

    def __init__(self, hearing: Hearing, gestures: Gestures, seed: int) -> None:
        """seed: of the gestures. The models are small, and work on a processor wherever the others are."""
        self._hearing, self._gestures = hearing, gestures
        self._generator = torch.Generator().manual_seed(seed)
        self._heard, self._drawn = hearing.start(), gestures.start(self._generator)

    @classmethod
    def maker(cls, hearing: Hearing, gestures: Gestures) -> MakeFeatures:
        return partial(cls, hearing, gestures)

    @torch.inference_mode()
    def push(self, samples: Tensor) -> Tensor:
        opening = samples.shape[1] // SAMPLES_PER_FRAME % FRAMES_PER_LATENT * SAMPLES_PER_FRAME
        pieces = [samples[:, :opening], *samples[:, opening:].split(FRAMES_PER_LATENT * SAMPLES_PER_FRAME, 1)]
        return torch.cat([self._next(piece) for piece in pieces if piece.shape[1]], 1)

    def peek(self, samples: Tensor) -> Tensor:
        heard, drawn, chance = self._heard, self._drawn, self._generator.get_state()
        features = self.push(samples)
        self._heard, self._drawn = heard, drawn
        self._generator.set_state(chance)
        return features

    def _next(self, samples: Tensor) -> Tensor:
        heard, self._heard = self._hearing.push(samples, self._heard)
        drawn, self._drawn = self._gestures.draw(heard, self._drawn, self._generator)
        return torch.cat([heard, drawn], 2)

    def cut(self) -> None:
        """Voice and room stay known, and the face goes on from where it is."""
        silence = self._hearing.start()
        self._heard = replace(silence, memory=self._heard.memory)


class SpeechStream:
    """SpeechEncoder.features_next, [1, T, N, D] on the encoder's device: depends on the pieces, see there."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        self._encoder = encoder
        self._state: SpeechState | None = None

    @classmethod
    def maker(cls, encoder: SpeechEncoder) -> MakeFeatures:
        return lambda seed: cls(encoder)

    def push(self, samples: Tensor) -> Tensor:
        features, self._state = self._encoder.features_next(samples, self._state)
        return features

    def peek(self, samples: Tensor) -> Tensor:
        return self._encoder.features_next(samples, self._state)[0]

    def cut(self) -> None:
        """How loud the stream is stays known."""
        if self._state is not None:
            self._state = replace(self._state, columns=self._state.columns[:, :0].clone())
