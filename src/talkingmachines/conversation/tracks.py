"""The sound and the pictures that a call's peer gets: two tracks on one clock, which is the sound's.

A machine that is too slow loses time, never the match of the two. Sound that could not be sent when it was due goes on
later, stamped later: a browser that gets it in a burst instead holds all sound back from then on, and its pictures
follow only by some 30 ms a second. A picture is stamped with the time of its sound, and left out when the next is due.
"""

import asyncio
import time
from collections import deque
from fractions import Fraction

import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioCodecContext, AudioFrame, CodecContext, Packet, VideoFrame
from pipecat.frames.frames import OutputImageRawFrame

from talkingmachines.types import SAMPLE_RATE

CLOCK = 90_000
"""Ticks a second of RTP's clock for video."""

PIECE = SAMPLE_RATE // 50
"""Samples of a packet of sound."""

LATE = 0.08
"""Seconds that sound may be late and still be caught up with: what browsers make good without a word."""

WAITING = 2
"""Pictures that wait at most; the oldest goes first."""


class SoundTrack(MediaStreamTrack):
    """Speech as it comes, and silence between, as packets of Opus, which every WebRTC peer takes.

    Encoding takes 0.1 ms, so it is done here and not handed to a thread that a busy machine lets wait.
    begun_at: seconds since 1970; the clock counts from there.
    """

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.begun_at, self._begun = time.time(), time.monotonic()
        self._at = 0  # samples; of the next packet
        self._pcm = bytearray()
        self._wanted = asyncio.Event()
        self._encoder: AudioCodecContext = CodecContext.create("libopus", "w")
        self._encoder.sample_rate, self._encoder.layout, self._encoder.format = SAMPLE_RATE, "mono", "s16"
        self._encoder.bit_rate, self._encoder.options = 48_000, {"application": "voip"}

    def now(self) -> float:
        """Seconds on the call's clock."""
        return time.monotonic() - self._begun

    def next_due(self) -> float:
        """When sound that is added now will be sent."""
        return max(self.now(), (self._at + len(self._pcm) // 2) / SAMPLE_RATE)

    async def add_audio_bytes(self, pcm: bytes) -> None:
        """16-bit sound, mono 16 kHz. Waits until no more than a packet of it is left, so that more comes in time."""
        self._pcm += pcm
        self._wanted.clear()
        await self._wanted.wait()

    async def recv(self) -> Packet:
        await asyncio.sleep(max(0.0, self._at / SAMPLE_RATE - self.now()))
        if self.readyState != "live":
            raise MediaStreamError
        late = self.now() - self._at / SAMPLE_RATE
        if late > LATE:
            self._at += int(late * SAMPLE_RATE) // PIECE * PIECE
        pcm = bytes(self._pcm[: 2 * PIECE]).ljust(2 * PIECE, b"\0")
        del self._pcm[: 2 * PIECE]
        if len(self._pcm) <= 2 * PIECE:
            self._wanted.set()
        frame = AudioFrame.from_ndarray(np.frombuffer(pcm, np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, self._at
        (packet,) = self._encoder.encode(frame)
        packet.pts, packet.time_base = self._at, Fraction(1, SAMPLE_RATE)
        self._at += PIECE
        return packet

    def stop(self) -> None:
        """Whoever waits in `add_audio_bytes` goes on."""
        super().stop()
        self._wanted.set()


class PictureTrack(MediaStreamTrack):
    """Pictures as they come, each sent when the sound that is added after it is. A slow peer misses some."""

    kind = "video"

    def __init__(self, sound: SoundTrack) -> None:
        super().__init__()
        self._sound = sound
        self._pictures: deque[tuple[float, np.ndarray]] = deque(maxlen=WAITING)
        self._came = asyncio.Event()
        self._stamp = -1  # of the last picture

    def add_video_frame(self, picture: OutputImageRawFrame) -> None:
        width, height = picture.size
        pixels = np.frombuffer(picture.image, np.uint8).reshape(height, width, 3)
        self._pictures.append((self._sound.next_due(), pixels))
        self._came.set()

    async def recv(self) -> VideoFrame:
        due, pixels = await self._next()
        while self._pictures and self._pictures[0][0] <= self._sound.now():
            due, pixels = await self._next()  # this one is late
        frame = VideoFrame.from_ndarray(pixels, format="rgb24")
        self._stamp = max(round(due * CLOCK), self._stamp + 1)
        frame.pts, frame.time_base = self._stamp, Fraction(1, CLOCK)
        return frame

    async def _next(self) -> tuple[float, np.ndarray]:
        """When it is due."""
        while not self._pictures and self.readyState == "live":
            self._came.clear()
            await self._came.wait()
        if self.readyState != "live":
            raise MediaStreamError
        due, pixels = self._pictures.popleft()
        await asyncio.sleep(max(0.0, due - self._sound.now()))
        return due, pixels

    def stop(self) -> None:
        """Whoever waits in `recv` is told."""
        super().stop()
        self._came.set()
