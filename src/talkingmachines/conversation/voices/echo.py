"""The character says what you say: the quickest way to see its lips follow your own voice."""

from collections import deque

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from talkingmachines.conversation.options import CallOptions
from talkingmachines.conversation.voices.voice import Voice

BEFORE = 0.5
"""Seconds said before speech is recognised as such: they are said too."""


class Echo(FrameProcessor):
    """The user's speech as the bot's. Between the words there is none, so that what was late can be made good."""

    def __init__(self) -> None:
        super().__init__()
        self._before: deque[InputAudioRawFrame] = deque()
        self._speaking = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            await self._hear(frame)
        elif isinstance(frame, VADUserStartedSpeakingFrame) and not self._speaking:
            self._speaking = True
            await self.push_frame(TTSStartedFrame())
            while self._before:
                await self._say(self._before.popleft())
        elif isinstance(frame, VADUserStoppedSpeakingFrame) and self._speaking:
            self._speaking = False
            await self.push_frame(TTSStoppedFrame())

    async def _hear(self, frame: InputAudioRawFrame) -> None:
        if self._speaking:
            await self._say(frame)
            return
        self._before.append(frame)
        while sum(kept.num_frames for kept in self._before) > BEFORE * frame.sample_rate:
            self._before.popleft()

    async def _say(self, frame: InputAudioRawFrame) -> None:
        await self.push_frame(TTSAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels))


def build(options: CallOptions) -> Voice:
    return Voice(before=[VADProcessor(vad_analyzer=SileroVADAnalyzer()), Echo()], stacks={"voice": "your own"})
