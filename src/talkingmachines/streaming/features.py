"""What a call's sound is to the model, made piece by piece: log-mel columns, or what a speech encoder makes of it.

T video frames, C feature channels, N layers of the speech encoder, D its width.
"""

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from talkingmachines.audio.features import HISTORY, log_mel
from talkingmachines.encoders.speech import SpeechEncoder, SpeechState


class FeatureStream(Protocol):
    """The features of one stream of sound, in constant memory. Made for one call; weights are shared."""

    def push(self, samples: Tensor) -> Tensor:
        """Those of the next samples [1, 640 * T] in [-1, 1]: [1, T, ...], on the device that the maker chose."""

    def cut(self) -> None:
        """Forgets what came last: what comes next does not follow on it, and would begin with a click."""


class LogMelStream:
    """log_mel, [1, T, C]: the same features whatever the pieces."""

    def __init__(self) -> None:
        self._history = torch.zeros(1, HISTORY)

    def push(self, samples: Tensor) -> Tensor:
        features = log_mel(samples, self._history)
        self._history = samples[:, -HISTORY:].clone()
        return features

    def cut(self) -> None:
        self._history = torch.zeros_like(self._history)


class SpeechStream:
    """SpeechEncoder.features_next, [1, T, N, D] on the encoder's device: depends on the pieces, see there."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        self._encoder = encoder
        self._state: SpeechState | None = None

    def push(self, samples: Tensor) -> Tensor:
        features, self._state = self._encoder.features_next(samples, self._state)
        return features

    def cut(self) -> None:
        """How loud the stream is stays known."""
        if self._state is not None:
            self._state = replace(self._state, columns=self._state.columns[:, :0].clone())
