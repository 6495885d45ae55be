"""A call's hearing: sound in pieces of any size becomes what each chunk hears, in constant memory.

f latent frames of a chunk, T its video frames; ... is what one frame's features look like: [C] or [layers, C].
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkingmachines.audio.alignment import FRAMES_PER_LATENT, AudioWindows, frames_in, latent_modes
from talkingmachines.audio.features import Activity
from talkingmachines.streaming.features import FeatureStream, LogMelStream
from talkingmachines.types import SAMPLES_PER_FRAME


@dataclass(frozen=True)
class ChunkAudio:
    """What one chunk hears, and modes [1, f]. windows: see AudioWindows; `first` is empty after chunk 0."""

    windows: AudioWindows
    modes: Tensor


class AudioStream:
    """Collects the sound of the next chunk, and makes its features when it is complete.

    Features are made chunk by chunk whatever the pieces, so the pieces do not matter to the bit. A chunk hears the
    last window // 2 video frames before it, and as many after its end where it is told what is coming.

    frames: latent frames of a chunk; window: AudioConfig.window. features: what it makes of the sound, this call's own;
    log-mel unless given.
    """

    def __init__(self, frames: int, window: int, features: FeatureStream | None = None) -> None:
        self._frames, self._window = frames, window
        self._features = features or LogMelStream()
        self._buffer = np.zeros(FRAMES_PER_LATENT * frames * SAMPLES_PER_FRAME, np.float32)
        self._filled = 0
        self._activity = Activity()
        self._before: Tensor | None = None

    @property
    def _size(self) -> int:
        """Samples of the next chunk: the first has only one video frame in its first latent frame."""
        opening = frames_in(self._frames) * SAMPLES_PER_FRAME
        return opening if self._before is None else len(self._buffer)

    @property
    def wanted(self) -> int:
        """How many samples the next chunk still wants."""
        return self._size - self._filled

    @property
    def pending(self) -> int:
        """How many samples of the next chunk are there."""
        return self._filled

    @property
    def ready(self) -> bool:
        """Whether the next chunk's sound is complete."""
        return not self.wanted

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes as many of `samples` [n] as the next chunk still wants, cut to [-1, 1]; returns the others."""
        taken = samples[: self.wanted]
        self._buffer[self._filled : self._filled + len(taken)] = np.clip(taken, -1, 1)
        self._filled += len(taken)
        return samples[len(taken) :]

    def pad(self) -> None:
        """Completes the next chunk with silence."""
        self._buffer[self._filled :] = 0
        self._filled = self._size

    def drop(self) -> None:
        """Forgets the sound of the chunk to come, and that anything came just before it.

        What comes next begins as a call does, out of silence: after the last sample that was heard, its first one
        would be a click. Which frames were speech, and how loud the room is, stays known.
        """
        self._filled = 0
        self._features.cut()
        self._activity.cut()

    @property
    def ahead(self) -> int:
        """How many samples a chunk can hear that come after its end."""
        return self._window // 2 * SAMPLES_PER_FRAME

    def take(self, coming: np.ndarray | None = None) -> ChunkAudio:
        """What the next chunk hears, where its features were made; only when ready. Then the next chunk begins.

        coming: samples [n] that will follow, any n; they are heard ahead and not taken. Lips that shut at
        the end of a chunk depend on them.
        """
        assert self.ready, f"{self.wanted} samples are missing"
        opening, side = self._before is None, self._window // 2
        samples = self._buffer[: self._size].copy()
        features = self._features.push(torch.from_numpy(samples)[None])
        before = features[:, :1].repeat_interleave(side, 1) if self._before is None else self._before
        heard = torch.cat([before, features, self._after(features[:, -1:], coming)], 1)
        speaking = self._activity.push(samples)
        # To latent_modes the first frame is one that stands alone; in later chunks none does.
        modes = latent_modes(speaking) if opening else latent_modes(np.append(False, speaking))[1:]
        self._before = heard[:, features.shape[1] : features.shape[1] + side].clone()
        self._filled = 0
        return ChunkAudio(_windows(heard, self._window, self._frames, opening), modes[None])

    def _after(self, last: Tensor, coming: np.ndarray | None) -> Tensor:
        """[1, window // 2, ...] after a chunk's last frame [1, 1, ...]: what is coming, then its last frame again."""
        frames = 0 if coming is None else min(len(coming), self.ahead) // SAMPLES_PER_FRAME
        if coming is None or not frames:
            return last.repeat_interleave(self._window // 2, 1)
        samples = np.clip(coming[: frames * SAMPLES_PER_FRAME], -1, 1, dtype=np.float32)
        heard = self._features.peek(torch.from_numpy(samples)[None])
        return torch.cat([heard, heard[:, -1:].repeat_interleave(self._window // 2 - frames, 1)], 1)


def _windows(heard: Tensor, window: int, frames: int, opening: bool) -> AudioWindows:
    """Of one chunk; heard [1, side + T + side, ...] begins window // 2 video frames before it."""
    first = heard[:, None, :window] if opening else heard.new_zeros(1, 0, window, *heard.shape[2:])
    starts = opening + FRAMES_PER_LATENT * torch.arange(frames - opening, device=heard.device)
    places = starts[:, None] + torch.arange(window + FRAMES_PER_LATENT - 1, device=heard.device)
    return AudioWindows(first, heard[:, places])
