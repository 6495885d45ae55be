"""Speech as Pipecat carries it, int16 bytes of any rate and channels, as the avatar hears it."""

import numpy as np
from pipecat.audio.utils import create_stream_resampler
from pipecat.frames.frames import AudioRawFrame

from talkingmachines.conversation.pcm import from_bytes, mono
from talkingmachines.types import SAMPLE_RATE


class SpeechInput:
    """A stream of audio frames, mono 16 kHz from here on. The rate may change between utterances."""

    def __init__(self) -> None:
        self._rate = SAMPLE_RATE
        self._resampler = create_stream_resampler(clear_after_secs=None)

    async def hear(self, frame: AudioRawFrame) -> np.ndarray:
        """float32 [n]; at other rates than 16 kHz a little of it stays back until more comes, or `rest`."""
        if frame.sample_rate != self._rate:
            self._rate, self._resampler = frame.sample_rate, create_stream_resampler(clear_after_secs=None)
        pcm = mono(np.frombuffer(frame.audio, "<i2"), frame.num_channels)
        return from_bytes(await self._resampler.resample(pcm.tobytes(), frame.sample_rate, SAMPLE_RATE))

    async def rest(self) -> np.ndarray:
        """float32 [n]: what stayed back, at the end of an utterance."""
        return from_bytes(await self._resampler.flush())

    async def drop(self) -> None:
        """Forgets what stayed back."""
        await self._resampler.reset()
