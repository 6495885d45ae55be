"""The real call behind the page: the conversation, with its recording and its stopwatch."""

from dataclasses import replace
from typing import Any

import numpy as np
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame, OutputImageRawFrame
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from talkingmachines.conversation.call import run_call
from talkingmachines.conversation.options import CallOptions
from talkingmachines.conversation.webrtc import AvatarWebRTCTransport
from talkingmachines.media.face import Box
from talkingmachines.server.calls import Call, MakeCall
from talkingmachines.server.timing import Model, TimedCharacter


def live_call(avatar: Model, chunk_frames: int, options: CallOptions, face_box: Box | None = None) -> MakeCall:
    """Calls with that avatar. chunk_frames: video frames of every chunk but the first; options, face_box: of every
    call, see Avatar.session.
    """

    async def make_call(connection: Any, call: Call) -> None:
        transport = AvatarWebRTCTransport(connection, avatar.shape, call.counts)
        await run_call(
            transport,
            TimedCharacter(avatar, chunk_frames, call.chunks, face_box),
            call.pixels,
            replace(options, call_id=call.counts.call_id),
            counts=call.counts,
            observers=[UserTap(call)],
            taps=[CharacterTap(call)],
        )

    return make_call


class CharacterTap(FrameProcessor):
    """After the output, where pictures and sound pass when they are played: gives them to the call's recording."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        recorder = self._call.recorder
        if recorder is not None and isinstance(frame, OutputImageRawFrame):
            width, height = frame.size
            recorder.picture(np.frombuffer(frame.image, np.uint8).reshape(height, width, 3))
        elif recorder is not None and isinstance(frame, OutputAudioRawFrame):
            recorder.character(_samples(frame.audio))
        await self.push_frame(frame, direction)


class UserTap(BaseObserver):
    """Gives what the user says to the call's recording, as it comes in."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    async def on_push_frame(self, data: FramePushed) -> None:
        if data.first_push and self._call.recorder is not None and isinstance(data.frame, InputAudioRawFrame):
            self._call.recorder.user(_samples(data.frame.audio))


def _samples(pcm: bytes) -> np.ndarray:
    """16-bit sound, mono 16 kHz, as float32 [n] in [-1, 1]."""
    return np.frombuffer(pcm, np.int16).astype(np.float32) / 32768
