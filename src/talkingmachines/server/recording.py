"""A call on disk: the picture and both voices, in a file that plays even when the process is killed.

The file is a fragmented MP4: an index at its beginning and then, about once a second, a piece that stands for itself.
So "nothing half-written at a final path" is kept in two steps. While the call runs, the file is NAME.part.mp4: it plays
at any moment, but its end is not there yet. When it is whole it is renamed, in one atomic step, to NAME.mp4. What a
killed process leaves as NAME.part.mp4 lacks about its last second; `recover` renames it to NAME-cut.mp4. A recording
that is still being written is locked, so `recover` leaves it alone, whichever process writes it.
"""

import contextlib
import fcntl
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import PictureType, VideoFrame

from talkingmachines.errors import MediaError
from talkingmachines.media.files import cannot_write
from talkingmachines.media.video import AI_METADATA
from talkingmachines.server.mixing import Mixer
from talkingmachines.types import SAMPLE_RATE

log = logging.getLogger(__name__)

PART = ".part.mp4"
FRAGMENT = 1.0
"""Seconds of each piece of the file: what a crash costs at most, besides DELAY."""

DELAY = 0.4
"""Seconds that the sound is written after the picture, so that both voices are there to be mixed."""

WAITING = 500
"""Pictures and pieces of sound that may wait for the disk, about 5 s; more are left out and counted."""

OPENS = 3.0
"""Seconds after which the file should be there, for whoever waits to be told that it is."""

HANGS = 8.0
"""Seconds after which nothing more is expected of a disk that takes nothing; fewer than a call has to end."""

HANGING = "the disk hangs"

_Item = tuple[str, np.ndarray, float]


class Recorder:
    """Writes one recording on a thread of its own: whoever begins or feeds it never waits for the disk.

    path: where it will be when whole, NAME.mp4; part: where it is until then; size: (width, height) of the pictures,
    even numbers; clock: seconds. keep_part: what has failed is left at `part`; otherwise nothing is.
    What goes wrong ends the recording, not the call: see failure. failed: called then, once, on any thread.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        title: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        keep_part: bool = True,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self.lost = path, 0
        self.failure: MediaError | None = None
        self._clock, self._began, self._length = clock, clock(), 0.0
        self._keep_part, self._failed = keep_part, failed
        self.part = path.with_suffix(PART)
        self._file: _File | None = None
        self._opened = threading.Event()
        self._items: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        # In a copy of the context, so that what it logs is said to be of the call.
        arguments = (self._write, size, title)
        self._thread = threading.Thread(target=copy_context().run, args=arguments, name="recording", daemon=True)
        self._thread.start()

    def wait_until_open(self) -> None:
        """Raises MediaError when the file cannot be made; one that is not there after OPENS is given up."""
        if not self._opened.wait(OPENS):
            self._fail(TimeoutError(HANGING))
        if self.failure:
            raise self.failure

    def picture(self, pixels: np.ndarray) -> None:
        """A picture that is shown now: uint8 [H, W, 3] RGB."""
        self._put(("picture", pixels))

    def character(self, samples: np.ndarray) -> None:
        """Sound that belongs to the picture before it, if there was one since the last: float32 [n], mono 16 kHz."""
        self._put(("character", samples))

    def user(self, samples: np.ndarray) -> None:
        """Sound of the user that has just been heard to its end: float32 [n], mono 16 kHz."""
        self._put(("user", samples))

    def close(self, seconds: float = HANGS) -> Path | None:
        """Writes the rest and puts the file in place; its path, or None when it failed. Harmless when repeated.

        seconds: after which it is given up. Where parts are kept it is put in place even so, if the disk takes it yet.
        """
        with self._closing:
            if not self._closed:
                self._closed, self._length = True, self._clock() - self._began
                self._items.put(None)
            if not self.failure:
                self._thread.join(seconds)
                if self._thread.is_alive():
                    self._fail(TimeoutError(HANGING))
        return None if self.failure else self.path

    def _put(self, item: tuple[str, np.ndarray]) -> None:
        if self._closed or self.failure:
            return
        if self._items.qsize() < WAITING:
            self._items.put((*item, self._clock() - self._began))
        else:
            self.lost += 1

    def _write(self, size: tuple[int, int], title: str) -> None:
        try:
            self._file = _File(self.part, size, title)
            self._opened.set()
            while (item := self._items.get()) is not None:
                self._file.add(*item)
            self._file.finish(self._length)
            if self._keep_part or not self.failure:  # a disk that hung has taken all of it in the end
                os.replace(self.part, self.path)
        except (OSError, ValueError, av.error.FFmpegError) as error:
            self._fail(error)
            with contextlib.suppress(queue.Empty):
                while True:  # so that nothing is kept
                    self._items.get_nowait()
        finally:
            self._opened.set()
            self._let_go()

    def _let_go(self) -> None:
        if self._file:
            self._file.abandon()
        if self.failure and not self._keep_part:
            with contextlib.suppress(OSError):
                self.part.unlink(missing_ok=True)

    def _fail(self, error: Exception) -> None:
        if self.failure:
            return
        self._failed()
        self.failure = cannot_write(self.path, error)
        self._items.put(None)  # the thread ends, also where nobody closes
        log.error("the recording has ended: %s", self.failure)


def recover(folder: Path) -> list[Path]:
    """Renames what killed processes left in a folder to NAME-cut.mp4, and returns those. Others are left alone."""
    found = []
    for part in sorted(folder.glob(f"*{PART}")):
        try:
            with part.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                whole = part.with_name(f"{part.name.removesuffix(PART)}-cut.mp4")
                os.replace(part, whole)
                found.append(whole)
        except OSError:
            continue  # it is being written, or it is not ours to touch
    return found


class _File:
    """One open file. Sound and pictures may come in any order; times are seconds since its beginning."""

    def __init__(self, path: Path, size: tuple[int, int], title: str) -> None:
        # Unbuffered: what FFmpeg has written is the kernel's at once, and a killed process takes none of it along.
        self._raw: IO[bytes] = path.open("xb", buffering=0)
        fcntl.flock(self._raw, fcntl.LOCK_EX)
        flags = "+empty_moov+frag_keyframe+default_base_moof"
        self._container = av.open(self._raw, "w", format="mp4", options={"movflags": flags})
        self._container.flags |= av.container.Flags.flush_packets.value  # type: ignore[operator]  # PyAV's stub
        self._container.metadata.update(AI_METADATA | {"title": title})
        self._video = _video_stream(self._container, size)
        self._audio = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=64_000)
        self._mixer = Mixer(("character", "user"))
        self._shown, self._key, self._heard = -1, float("-inf"), 0
        self._pair: float | None = None  # when the picture was shown whose sound has not come yet

    def add(self, kind: str, data: np.ndarray, at: float) -> None:
        """kind: "picture", "character" or "user"; at: when it was given."""
        if kind == "picture":
            self._pair = self._mixer.continues("character", at)
            self._picture(data, self._pair)
        elif kind == "character":
            self._mixer.add(kind, data, at if self._pair is None else self._pair)
            self._pair = None
        else:
            self._mixer.add(kind, data, at - len(data) / SAMPLE_RATE)
        self._sound(at - DELAY)

    def finish(self, at: float) -> None:
        """Writes all that is held back. at: the end of the recording."""
        self._sound(max(at, self._mixer.end))
        self._container.mux(self._video.encode(None))
        self._container.mux(self._audio.encode(None))
        self._container.close()

    def abandon(self) -> None:
        """Lets go of the file; nothing more once it is finished."""
        with contextlib.suppress(OSError, ValueError, av.error.FFmpegError):
            self._container.close()
        self._raw.close()

    def _picture(self, pixels: np.ndarray, at: float) -> None:
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="yuv420p")
        self._shown = max(self._shown + 1, round(1000 * at))
        frame.pts, frame.time_base = self._shown, Fraction(1, 1000)
        if at - self._key >= FRAGMENT:  # a fragment begins with a whole picture
            frame.pict_type, self._key = PictureType.I, at
        self._container.mux(self._video.encode(frame))

    def _sound(self, until: float) -> None:
        samples = self._mixer.take(until)
        if not len(samples):
            return
        frame = AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self._heard, Fraction(1, SAMPLE_RATE)
        self._heard += len(samples)
        # AAC begins with a packet of nothing, before time 0. Players that were not told would play all sound late.
        self._container.mux([packet for packet in self._audio.encode(frame) if (packet.pts or 0) >= 0])


def _video_stream(container: "av.container.OutputContainer", size: tuple[int, int]) -> av.VideoStream:
    """H.264 that costs little, with no picture held back; MPEG-4 where this build of FFmpeg has no x264."""
    has_x264 = "libx264" in av.codecs_available
    options = (
        {"crf": "21", "preset": "veryfast", "tune": "zerolatency", "forced-idr": "1", "sc_threshold": "0"}
        if has_x264
        else {"qscale": "3"}
    )
    stream = container.add_stream("libx264" if has_x264 else "mpeg4", rate=1000 if has_x264 else 25, options=options)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, 1000)
    stream.codec_context.thread_count = 1
    stream.codec_context.gop_size = 250
    return stream
