"""Samples as Pipecat carries them, int16 bytes of any rate and channels, and as the avatar hears them."""

import numpy as np
from pipecat.audio.utils import create_stream_resampler
from pipecat.frames.frames import AudioRawFrame

from talkingmachines.types import SAMPLE_RATE


def to_bytes(samples: np.ndarray) -> bytes:
    """float32 in [-1, 1] to int16."""
    return np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def from_bytes(pcm: bytes) -> np.ndarray:
    """int16 to float32 in [-1, 1]; `to_bytes` gives the same bytes back."""
    return np.clip(np.frombuffer(pcm, "<i2").astype(np.float32) / 32767, -1, 1)


class SpeechInput:
    """A stream of audio frames, mono 16 kHz from here on. The rate may change between utterances."""

    def __init__(self) -> None:
        self._rate = SAMPLE_RATE
        self._resampler = create_stream_resampler(clear_after_secs=None)

    async def hear(self, frame: AudioRawFrame) -> np.ndarray:
        """float32 [n]; at other rates than 16 kHz a little of it stays back until more comes, or `rest`."""
        if frame.sample_rate != self._rate:
            self._rate, self._resampler = frame.sample_rate, create_stream_resampler(clear_after_secs=None)
        pcm = np.frombuffer(frame.audio, "<i2")
        if frame.num_channels > 1:
            pcm = pcm.reshape(-1, frame.num_channels).mean(axis=1).astype("<i2")
        return from_bytes(await self._resampler.resample(pcm.tobytes(), frame.sample_rate, SAMPLE_RATE))

    async def rest(self) -> np.ndarray:
        """float32 [n]: what stayed back, at the end of an utterance."""
        return from_bytes(await self._resampler.flush())

    async def drop(self) -> None:
        """Forgets what stayed back."""
        await self._resampler.reset()
