"""The avatar as a Pipecat video service: the bot's speech goes in, pictures and the same speech come out together.

Put it between the voice and the output of any pipeline:

    avatar = talkingmachines.load("pocket")
    Pipeline([transport.input(), stt, user, llm, tts, AvatarVideoService(avatar, image), transport.output(), assistant])

Each picture is marked `sync_with_audio` and goes before its 40 ms of sound, so a transport plays both from one clock.
A picture without speech brings no sound: where the transport has fallen behind, it catches up in the next pause.
"""

import asyncio
import time

import numpy as np
from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputImageRawFrame,
    StartFrame,
    SystemFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup

from talkingmachines.conversation.counts import CallCounts
from talkingmachines.conversation.live_thread import Character, LiveThread
from talkingmachines.conversation.pcm import to_bytes
from talkingmachines.conversation.samples import SpeechInput
from talkingmachines.conversation.speech_order import SpeechOrder
from talkingmachines.streaming.slots import LiveFrame
from talkingmachines.types import SAMPLE_RATE

CUSHION = 2
"""Frames of speech kept back when it begins, so that the transport always has sound for as long at hand."""

GRACE = 0.1
"""Seconds after the end of a sentence in which the next one may begin and follow without a gap."""

DRAIN = 3.0
"""Seconds beyond its length that speech may take to be played out at the end of a call."""


class AvatarVideoService(FrameProcessor):
    """One character in one call.

    avatar: an Avatar, shared with other calls; image: [H, W, 3] uint8; counts: to be read while the call runs.
    Speech may have any rate; it comes out as mono 16 kHz, so give the transport that rate and nothing is resampled.
    """

    def __init__(
        self,
        avatar: Character,
        image: np.ndarray,
        *,
        seed: int = 0,
        counts: CallCounts | None = None,
        call_id: str = "",
    ) -> None:
        super().__init__()
        self.counts = counts or CallCounts(call_id=call_id)
        self._log = logger.bind(call_id=call_id or self.counts.call_id)
        self._live = LiveThread(avatar, image, seed)
        self._input, self._order = SpeechInput(), SpeechOrder()
        self._speech_class: type[OutputAudioRawFrame] = TTSAudioRawFrame
        self._cushion: list[LiveFrame] = []
        self._flowing = False
        self._cuts = 0
        self._opened: float | None = None
        self._user_stopped: float | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._played_out = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Opens the avatar's session, as the pipeline does unless it is open; its pictures begin with the pipeline."""
        self._opened = self._opened or time.monotonic()
        await self._live.open()

    async def close(self) -> None:
        """Ends the session, as the pipeline does at its end. Harmless when repeated."""
        self._closed = True
        self._stop_ending()
        if self._task:
            await self.cancel_task(self._task)
            self._task = None
        await self._live.close()

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]
        await super().setup(setup)
        await self.open()

    async def cleanup(self) -> None:
        await self.close()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputAudioRawFrame) and direction == FrameDirection.DOWNSTREAM:
            await self._speak(frame)
        elif isinstance(frame, InterruptionFrame):
            await self._interrupt()
            await self.push_frame(frame, direction)
        elif isinstance(frame, SystemFrame) or direction == FrameDirection.UPSTREAM:
            await self._pass(frame, direction)
        elif isinstance(frame, EndFrame):
            await self._play_out()
            await self.close()
            await self.push_frame(frame, direction)
        else:
            if isinstance(frame, TTSStoppedFrame):
                self._push(await self._input.rest())
                self._end_soon()
            await self._send(self._order.hold(frame))

    async def _pass(self, frame: Frame, direction: FrameDirection) -> None:
        """Frames that wait for nothing."""
        if isinstance(frame, CancelFrame):
            await self.close()
        elif isinstance(frame, VADUserStoppedSpeakingFrame):
            self._user_stopped = frame.timestamp - frame.stop_secs
        elif isinstance(frame, UserStoppedSpeakingFrame):
            self._user_stopped = self._user_stopped or time.time()
        elif isinstance(frame, UserStartedSpeakingFrame | VADUserStartedSpeakingFrame):
            self._user_stopped = None
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame) and not self._task:
            self._live.begin()
            self._task = self.create_task(self._deliver())

    async def _speak(self, frame: OutputAudioRawFrame) -> None:
        self._speech_class = type(frame)
        self._push(await self._input.hear(frame))

    def _push(self, samples: np.ndarray) -> None:
        if len(samples) and not self._closed:
            self._stop_ending()
            self._order.push(len(samples))
            self._live.push(samples)

    def _end_soon(self) -> None:
        self._stop_ending()
        self._ending = asyncio.get_running_loop().call_later(GRACE, self._live.end_segment)

    def _stop_ending(self) -> None:
        if self._ending:
            self._ending.cancel()
            self._ending = None

    async def _interrupt(self) -> None:
        """Nothing of what was said before comes out after this; the mouth shuts with the next chunk."""
        self._cuts += 1
        self._live.interrupt()
        self._stop_ending()
        self.counts.interruptions += bool(self._order.ahead)
        self._cushion.clear()
        self._flowing = False
        await self._input.drop()
        await self._send(self._order.cut())

    async def _deliver(self) -> None:
        try:
            async for frame in self._live.frames():
                await self._show(frame)
        except Exception as error:
            await self.push_error(f"the avatar has failed: {error}", error, force_treat_as_permanent=True)

    async def _show(self, frame: LiveFrame) -> None:
        live = self._live.counts
        self.counts.late, self.counts.skipped, self.counts.dropped = live.late, live.skipped, live.dropped
        if frame.spoken and frame.cuts < self._cuts:
            return  # it was on its way when the interruption came
        if frame.spoken:
            self._cushion.append(frame)
            if not self._flowing and len(self._cushion) <= CUSHION:
                return
        ready, self._cushion = self._cushion, []
        if ready and not self._flowing:
            self._count_turn()
        self._flowing = bool(frame.spoken)
        for spoken in ready:
            await self._send_spoken(spoken)
        if not frame.spoken and frame.pixels is not None:
            await self._send_picture(frame.pixels)
        if not self._order.ahead:
            self._played_out.set()

    def _count_turn(self) -> None:
        if self._user_stopped is not None:
            self.counts.turns += 1
            self.counts.turn_times.append(time.time() - self._user_stopped)
            self._log.info("answered after {:.2f} s", self.counts.turn_times[-1])
            self._user_stopped = None

    async def _send_spoken(self, frame: LiveFrame) -> None:
        if frame.cuts < self._cuts:
            return
        if frame.pixels is not None:
            self.counts.spoken_frames += 1
            await self._send_picture(frame.pixels)
        if frame.cuts < self._cuts:
            return
        await self.push_frame(self._speech_class(to_bytes(frame.speech), SAMPLE_RATE, 1))
        if frame.cuts == self._cuts:
            await self._send(self._order.leave(frame.spoken))

    async def _send_picture(self, pixels: np.ndarray) -> None:
        self.counts.frames += 1
        if self.counts.first_frame is None and self._opened is not None:
            self.counts.first_frame = time.monotonic() - self._opened
            self._log.info("first picture after {:.2f} s", self.counts.first_frame)
        height, width, _ = pixels.shape
        picture = OutputImageRawFrame(pixels.tobytes(), (width, height), "RGB")
        picture.sync_with_audio = True
        await self.push_frame(picture)

    async def _send(self, frames: list[Frame]) -> None:
        for frame in frames:
            await self.push_frame(frame)

    async def _play_out(self) -> None:
        """Waits until the speech that was pushed has left."""
        self._push(await self._input.rest())
        self._live.end_segment()
        self._played_out.clear()
        if self._order.ahead and self._task and not self._task.done():
            try:
                await asyncio.wait_for(self._played_out.wait(), DRAIN + self._order.ahead / SAMPLE_RATE)
            except TimeoutError:
                self._log.warning("the last of the speech was not played in time")
