"""Pipecat's small WebRTC transport, with pictures that leave when their sound does.

The plain transport shows pictures by a timer of its own, which runs a little slower than 25 a second: some are lost.
And aiortc stamps every picture 1/30 s after the last, so at 25 a second their clock drifts away from the sound's.
Here a picture goes to its track at the moment at which its sound goes to the other, and both are stamped by one clock.
"""

import time
from collections import deque

from aiortc import RTCRtpSender
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpsender import RTCEncodedFrame
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket
from pipecat.frames.frames import Frame, OutputImageRawFrame
from pipecat.processors.frame_processor import FrameDirection
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import (
    SmallWebRTCClient,
    SmallWebRTCOutputTransport,
    SmallWebRTCTransport,
)

from talkingmachines.conversation.counts import CallCounts
from talkingmachines.conversation.tracks import PictureTrack, SoundTrack
from talkingmachines.types import FPS, SAMPLE_RATE

NTP = 2_208_988_800
"""Seconds from 1900, where NTP begins to count, to 1970."""


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


class _Sender(RTCRtpSender):
    """Says in its reports what time a stamp stands for, on the call's clock. aiortc's says when the packet had left.

    A browser shows pictures with their sound by these reports, so they must not move when encoding takes long.
    offsets: gets how late each packet was ready, in seconds.
    """

    begun_at: float
    offsets: "deque[float]"
    _due: float | None = None

    async def _next_encoded_frame(self, codec: RTCRtpCodecParameters) -> RTCEncodedFrame | None:
        encoded = await super()._next_encoded_frame(codec)
        if encoded:
            self._due = self.begun_at + encoded.timestamp / codec.clockRate
            self.offsets.append(time.time() - self._due)
        return encoded

    async def _send_rtcp(self, packets: list[AnyRtcpPacket]) -> None:
        for packet in packets:
            if isinstance(packet, RtcpSrPacket) and self._due is not None:
                packet.sender_info.ntp_timestamp = round((self._due + NTP) * 2**32)
        await super()._send_rtcp(packets)


class _Client(SmallWebRTCClient):
    """Sends tracks of ours instead of those that it would have made. offsets: of the pictures, as in _Sender."""

    offsets: "deque[float]"

    async def _handle_client_connected(self) -> None:
        params, connection = self._params, self._webrtc_connection
        if not params:
            return
        self._audio_output_track = sound = SoundTrack()
        self._video_output_track = PictureTrack(sound)
        connection.replace_audio_track(self._audio_output_track)
        connection.replace_video_track(self._video_output_track)
        for transceiver in connection.pc.getTransceivers():
            sender = transceiver.sender
            sender.__class__ = _Sender
            sender.begun_at = sound.begun_at
            sender.offsets = self.offsets if transceiver.kind == "video" else deque(maxlen=1)
        self._params = params.model_copy(update={"audio_out_enabled": False, "video_out_enabled": False})
        try:
            await super()._handle_client_connected()
        finally:
            self._params = params


class _Output(SmallWebRTCOutputTransport):
    """Takes each picture out of the queue of sound when its turn has come."""

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        # The queue pushes what it has come to: a picture before its sound is sent, and that sound when it was.
        if isinstance(frame, OutputImageRawFrame):
            await self.write_video_frame(frame)
        await super().push_frame(frame, direction)


class AvatarWebRTCTransport(SmallWebRTCTransport):
    """A peer that sees and hears the avatar. shape: height and width of its pictures; counts: gets the A/V offset of
    each picture.
    """

    def __init__(
        self, connection: SmallWebRTCConnection, shape: tuple[int, int], counts: CallCounts | None = None
    ) -> None:
        params = transport_params(shape)
        super().__init__(connection, params)
        # A second client would hear every event of the connection twice.
        self._client.__class__ = _Client
        assert isinstance(self._client, _Client)
        self._client.offsets = (counts or CallCounts()).av_offsets

    def output(self) -> SmallWebRTCOutputTransport:
        if not self._output:
            self._output = _Output(self._client, self._params)
        return self._output
