"""A Pipecat transport without a network: a microphone that is fed, a screen and a loudspeaker that keep real time."""

import asyncio
import time
from typing import Any

import numpy as np
from pipecat.frames.frames import InputAudioRawFrame, OutputAudioRawFrame, OutputImageRawFrame, StartFrame
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport

from talkingmachines.conversation.webrtc import transport_params
from talkingmachines.types import SAMPLE_RATE


class _Input(BaseInputTransport):
    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)


class _Output(BaseOutputTransport):
    """played: (time, int16 [n]); the picture that was handed over before each, as shown."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.played: list[tuple[float, np.ndarray]] = []
        self.shown: list[float] = []
        self._until = 0.0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def push_frame(self, frame: Any, *args: Any) -> None:
        if isinstance(frame, OutputImageRawFrame):
            self.shown.append(time.monotonic())
        await super().push_frame(frame, *args)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        now = time.monotonic()
        self._until = max(now, self._until) + frame.num_frames / frame.sample_rate
        self.played.append((now, np.frombuffer(frame.audio, "<i2")))
        await asyncio.sleep(self._until - now)
        return True


class FakeTransport(BaseTransport):
    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        params = transport_params(shape)
        self.mouth, self.screen = _Input(params), _Output(params)
        self._register_event_handler("on_client_connected")
        self._register_event_handler("on_client_disconnected")

    def input(self) -> BaseInputTransport:
        return self.mouth

    def output(self) -> BaseOutputTransport:
        return self.screen

    @property
    def heard(self) -> np.ndarray:
        """int16 [n]: all that was played."""
        pieces = [sound for _, sound in self.screen.played]
        return np.concatenate(pieces) if pieces else np.zeros(0, "<i2")

    async def come(self) -> None:
        while not self.screen._media_senders:
            await asyncio.sleep(0.01)
        await self._call_event_handler("on_client_connected", self)

    async def leave(self) -> None:
        await self._call_event_handler("on_client_disconnected", self)

    async def say(self, samples: np.ndarray) -> None:
        """int16 [n] at 16 kHz, in real time."""
        began = time.monotonic()
        for start in range(0, len(samples), 320):
            piece = samples[start : start + 320].astype("<i2")
            await self.mouth.push_audio_frame(InputAudioRawFrame(piece.tobytes(), SAMPLE_RATE, 1))
            await asyncio.sleep(began + (start + 320) / SAMPLE_RATE - time.monotonic())
