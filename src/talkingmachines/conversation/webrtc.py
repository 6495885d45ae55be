"""Pipecat's small WebRTC transport, with pictures that leave when their sound does.

The plain transport shows pictures by a timer of its own, which runs a little slower than 25 a second: some are lost.
And aiortc stamps every picture 1/30 s after the last, so at 25 a second their clock drifts away from the sound's.
Here a picture goes to its track at the moment at which its sound goes to the other, stamped with the real time.
"""

import asyncio
import time
from fractions import Fraction

import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame
from pipecat.frames.frames import Frame, OutputAudioRawFrame, OutputImageRawFrame
from pipecat.processors.frame_processor import FrameDirection
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import (
    SmallWebRTCClient,
    SmallWebRTCOutputTransport,
    SmallWebRTCTransport,
)

from talkingmachines.conversation.counts import CallCounts
from talkingmachines.types import FPS, SAMPLE_RATE

CLOCK = 90_000
"""Ticks a second of RTP's clock for video."""

WAITING = 2
"""Pictures that wait for the encoder at most; the oldest goes first."""


def transport_params(shape: tuple[int, int]) -> TransportParams:
    """What the avatar's transport needs: sound both ways at 16 kHz, pictures of that height and width one way."""
    height, width = shape
    return TransportParams(
        audio_in_enabled=True,
        audio_out_enabled=True,
        audio_in_sample_rate=SAMPLE_RATE,
        audio_out_sample_rate=SAMPLE_RATE,
        audio_out_end_silence_secs=0,
        video_out_enabled=True,
        # Pictures come to the track by themselves; so the transport's own timer has none to show.
        video_out_is_live=True,
        video_out_width=width,
        video_out_height=height,
        video_out_framerate=FPS,
    )


class LiveVideoTrack(MediaStreamTrack):
    """Pictures as they come, each stamped with the time at which it came. A slow peer misses some."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._pictures: asyncio.Queue[tuple[float, np.ndarray] | None] = asyncio.Queue(WAITING)
        self._began: float | None = None

    def add_video_frame(self, picture: OutputImageRawFrame) -> None:
        width, height = picture.size
        pixels = np.frombuffer(picture.image, np.uint8).reshape(height, width, 3)
        self._put((time.monotonic(), pixels))

    async def recv(self) -> VideoFrame:
        item = await self._pictures.get() if self.readyState == "live" else None
        if item is None:
            raise MediaStreamError
        came, pixels = item
        self._began = came if self._began is None else self._began
        frame = VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = round((came - self._began) * CLOCK), Fraction(1, CLOCK)
        return frame

    def stop(self) -> None:
        """Whoever waits in `recv` is told."""
        super().stop()
        self._put(None)

    def _put(self, item: tuple[float, np.ndarray] | None) -> None:
        if self._pictures.full():
            self._pictures.get_nowait()
        self._pictures.put_nowait(item)


class _Client(SmallWebRTCClient):
    """Sends a LiveVideoTrack instead of the track that it would have made."""

    async def _handle_client_connected(self) -> None:
        params = self._params
        if not params:
            return
        self._video_output_track = LiveVideoTrack()
        self._webrtc_connection.replace_video_track(self._video_output_track)
        self._params = params.model_copy(update={"video_out_enabled": False})
        try:
            await super()._handle_client_connected()
        finally:
            self._params = params


class _Output(SmallWebRTCOutputTransport):
    """Takes each picture out of the queue of sound when its turn has come."""

    def __init__(self, client: SmallWebRTCClient, params: TransportParams, counts: CallCounts, **kwargs: str) -> None:
        super().__init__(client, params, **kwargs)
        self._counts = counts
        self._shown: float | None = None

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        # The queue pushes what it has come to: a picture before its sound is sent, and that sound when it was.
        if isinstance(frame, OutputImageRawFrame):
            self._shown = time.monotonic()
            await self.write_video_frame(frame)
        await super().push_frame(frame, direction)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        shown, self._shown = self._shown, None
        written = await super().write_audio_frame(frame)
        if written and shown is not None:
            # It returns when the last 10 ms of the sound have been taken.
            length = frame.num_frames / frame.sample_rate
            self._counts.av_offsets.append(shown - (time.monotonic() - (length - 0.01)))
        return written


class AvatarWebRTCTransport(SmallWebRTCTransport):
    """A peer that sees and hears the avatar. shape: height and width of its pictures; counts: gets the A/V offset of
    each picture.
    """

    def __init__(
        self, connection: SmallWebRTCConnection, shape: tuple[int, int], counts: CallCounts | None = None
    ) -> None:
        params = transport_params(shape)
        super().__init__(connection, params)
        self._counts = counts or CallCounts()
        # A second client would hear every event of the connection twice.
        self._client.__class__ = _Client

    def output(self) -> SmallWebRTCOutputTransport:
        if not self._output:
            self._output = _Output(self._client, self._params, self._counts)
        return self._output
