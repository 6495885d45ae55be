"""The avatar as livekit-agents' `VideoGenerator`: an agent's speech goes in, pictures and the same speech come out.

`AvatarRunner` takes what comes out here and hands it to LiveKit, which plays sound from a queue and shows a picture as
soon as it comes. So every picture waits CUSHION frames: its sound, when speech begins, goes to that queue together with
the sound of the frames after it, and the queue never runs dry. One picture leaves with every frame that comes, in time;
pictures in bursts would leave apart from their sound.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator

import numpy as np
from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, VideoGenerator

from talkingmachines.conversation.live_thread import Character, LiveThread
from talkingmachines.conversation.pcm import from_bytes, mono, to_bytes
from talkingmachines.streaming.slots import LiveFrame
from talkingmachines.types import FPS, SAMPLE_RATE

CUSHION = 2
"""Frames by which the sound is handed over before its picture."""

BEHIND = 2 / FPS
"""Seconds; a silent picture that comes later than this is left out, so that a delay does not stay."""


class AvatarVideo(VideoGenerator):
    """One character in one room. All of it runs on one event loop, but for the pictures, which a thread makes.

    avatar: an Avatar, shared with other calls; image: [H, W, 3] uint8. Speech may have any rate; it comes out as mono
    16 kHz, in the frames of the pictures, 40 ms each. Pictures without speech bring no sound.
    """

    def __init__(self, avatar: Character, image: np.ndarray, seed: int = 0) -> None:
        self._live = LiveThread(avatar, image, seed)
        self._hearing = Hearing()
        self._line: deque[LiveFrame] = deque()  # pictures that wait
        self._sounded = -1.0  # pts of the last frame whose sound has been handed over
        self._speaking = False  # a segment has begun and its end has not been pushed
        self._pushed = self._left = 0  # samples
        self._ends: deque[int] = deque()  # where segments end, in samples pushed
        self._cuts = 0
        self._least_lag = math.inf  # seconds; how late the most punctual frame came
        self._taken = asyncio.Event()  # no sound is on its way to LiveKit's queue
        self._taken.set()

    async def open(self) -> None:
        """Opens the call, off the event loop; before anything else. Raises what `Avatar.live` raises."""
        await self._live.open()

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        if isinstance(frame, rtc.AudioFrame):
            self._speaking = True
            self._push(self._hearing.hear(frame))
        elif self._speaking:  # otherwise it is the end of a segment that was interrupted, and has been reported
            self._push(self._hearing.rest())
            self._speaking = False
            self._ends.append(self._pushed)
            self._live.end_segment()

    async def clear_buffer(self) -> None:
        """Nothing of what was said before comes out after this; the mouth shuts with the next chunk.

        Returns when the sound that was being handed over is counted: AvatarRunner then says how much was heard.
        """
        self._cuts += 1
        self._live.interrupt()
        self._hearing = Hearing()
        self._line = deque(frame for frame in self._line if not frame.spoken)
        self._speaking, self._left = False, self._pushed
        self._ends.clear()
        await self._taken.wait()

    def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        return self._frames()

    async def close(self) -> None:
        """Waits, off the event loop, for the chunk at hand and the threads. Harmless when repeated."""
        await self._live.close()

    def _push(self, samples: np.ndarray) -> None:
        self._pushed += len(samples)
        self._live.push(samples)

    async def _frames(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        self._live.begin()
        async for frame in self._live.frames():
            if self._is_unwanted(frame):
                continue
            self._line.append(frame)
            if len(self._line) <= CUSHION:
                continue
            picture = self._line.popleft()
            if picture.pixels is not None:
                yield to_video(picture.pixels)
            for speech in self._sound(picture):
                self._taken.clear()
                try:
                    yield to_audio(speech)
                finally:
                    self._taken.set()
            if picture.cuts == self._cuts:
                self._left += picture.spoken
            while self._ends and self._ends[0] <= self._left:
                self._ends.popleft()
                yield AudioSegmentEnd()

    def _sound(self, picture: LiveFrame) -> Iterator[np.ndarray]:
        """Of this picture and of those that wait behind it without a gap: what has not been handed over yet."""
        for frame in (picture, *self._line):
            if not frame.spoken or frame.cuts < self._cuts:
                return
            if frame.pts > self._sounded:
                self._sounded = frame.pts
                yield frame.speech

    def _is_unwanted(self, frame: LiveFrame) -> bool:
        lag = time.monotonic() - frame.pts
        self._least_lag = min(lag, self._least_lag)
        return frame.cuts < self._cuts if frame.spoken else lag - self._least_lag > BEHIND


class Hearing:
    """A stream of LiveKit's audio frames, mono 16 kHz from here on. The rate may change at any time."""

    def __init__(self) -> None:
        self._rate = SAMPLE_RATE
        self._resampler: rtc.AudioResampler | None = None

    def hear(self, frame: rtc.AudioFrame) -> np.ndarray:
        """float32 [n]; at other rates than 16 kHz a little of it stays back until more comes, or `rest`."""
        before = self.rest() if frame.sample_rate != self._rate else np.zeros(0, np.float32)
        self._rate = frame.sample_rate
        pcm = mono(np.frombuffer(frame.data, "<i2"), frame.num_channels).tobytes()
        if self._rate == SAMPLE_RATE:
            return np.concatenate([before, from_bytes(pcm)])
        if self._resampler is None:
            self._resampler = rtc.AudioResampler(self._rate, SAMPLE_RATE, num_channels=1)
        return np.concatenate([before, *(from_bytes(part.data) for part in self._resampler.push(bytearray(pcm)))])

    def rest(self) -> np.ndarray:
        """float32 [n]: what stayed back, at the end of a segment."""
        parts = self._resampler.flush() if self._resampler else []
        self._resampler = None
        return np.concatenate([np.zeros(0, np.float32), *(from_bytes(part.data) for part in parts)])


def to_video(pixels: np.ndarray) -> rtc.VideoFrame:
    """uint8 [H, W, 3] RGB. LiveKit turns it into what its encoder wants."""
    height, width, _ = pixels.shape
    return rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, pixels.tobytes())


def to_audio(speech: np.ndarray) -> rtc.AudioFrame:
    """float32 [n], mono 16 kHz."""
    return rtc.AudioFrame(to_bytes(speech), SAMPLE_RATE, 1, len(speech))
