"""A call in real time: speech from any thread, pictures with their sound when their time has come."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from talkingmachines.audio.samples import check_samples
from talkingmachines.errors import SessionError
from talkingmachines.streaming.clock import Clock, MonotonicClock
from talkingmachines.streaming.slots import LiveCounts, LiveFrame, Make, Pacer
from talkingmachines.types import SAMPLES_PER_FRAME, VideoFrame


class LiveSession(Protocol):
    """What is needed of a Session. Its latents are its own affair."""

    @property
    def samples_wanted(self) -> int: ...

    @property
    def samples_ahead(self) -> int: ...

    def denoise(self, pcm: np.ndarray, coming: np.ndarray) -> Any: ...

    def decode(self, latents: Any) -> list[VideoFrame]: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class LiveCall:
    """A session against a clock. While no speech comes the character listens, by itself.

    Speech is pushed at any time, from any thread. One thread iterates over `frames`; the chunks are denoised on one
    thread of the call's own and decoded on another, so that a machine which is slow for a while can begin the next one
    meanwhile. When to make and to play what is decided by `Pacer`, which says what that means for latency.

    chunk: video frames of every chunk but the first, whose number the session knows.
    """

    def __init__(self, session: LiveSession, chunk: int, clock: Clock | None = None) -> None:
        self._session, self._clock = session, clock or MonotonicClock()
        self._pacer = Pacer(session.samples_wanted // SAMPLES_PER_FRAME, chunk, session.samples_ahead)
        self._changed = threading.Condition()
        self._stages: list[threading.Thread] = []
        self._taken = False
        self._denoised: SimpleQueue[Any] = SimpleQueue()  # latents; an exception, None: the end
        self._closed = False
        self._failure: BaseException | None = None

    @property
    def counts(self) -> LiveCounts:
        return self._pacer.counts

    def prepare(self) -> None:
        """Makes the first chunk, so that it is there when `frames` are taken. Harmless when repeated or closed."""
        with self._changed:
            if self._stages or self._closed:
                return
            work = (self._denoise_chunks, self._decode_chunks)
            self._stages = [threading.Thread(target=stage, daemon=True) for stage in work]
            for stage in self._stages:
                stage.start()

    def push_audio(self, pcm: np.ndarray) -> None:
        """Speech that goes on where the last push ended: float32 [n], mono 16 kHz, any n, cut to [-1, 1].

        It may come faster than it is spoken; what waits is kept. Raises MediaError for anything else, SessionError
        when the call has ended.
        """
        check_samples(pcm)
        with self._changed:
            self._check_open()
            self._pacer.push(np.clip(pcm, -1, 1).astype(np.float32))
            self._changed.notify_all()

    def end_segment(self) -> None:
        """No more speech is coming now, so the last of it does not wait for more. Raises SessionError at the end."""
        with self._changed:
            self._check_open()
            self._pacer.end_segment()
            self._changed.notify_all()

    def interrupt(self) -> None:
        """Drops the speech that was not played yet, and the frames that were made for it.

        The picture stands still until a chunk of silence has been made: the time of one chunk, or of nearly two when
        one is at hand. Harmless when repeated, and when the call has ended.
        """
        with self._changed:
            self._pacer.interrupt()
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the call and its session; `frames` ends. Waits for the chunks at hand. Harmless when repeated."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._session.close()
        for stage in self._stages:
            stage.join()

    def frames(self) -> Iterator[LiveFrame]:
        """Each frame when its time has come, not before. The call begins with the first; to end this is to close it.

        What goes wrong in the models is raised here, after the frames that were made before it.
        """
        with self._changed:
            self._check_open()
            if self._taken:
                raise SessionError("this call's frames are already being taken; open another call")
            self._taken = True
        self.prepare()
        try:
            while (frame := self._next_frame()) is not None:
                yield frame
        finally:
            self.close()

    def _next_frame(self) -> LiveFrame | None:
        """Waited for; None when the call is closed."""
        with self._changed:
            while not self._closed:
                if frame := self._pacer.to_play(self._clock.now()):
                    self._changed.notify_all()
                    return frame
                at = self._pacer.play_at()
                if at is None and self._failure:
                    raise self._failure
                self._clock.wait(self._changed, at)
        return None

    def _denoise_chunks(self) -> None:
        error: BaseException | None = None
        try:
            while wanted := self._next_chunk():
                if wanted.after_cut:
                    self._session.interrupt()
                chunk = self._session.denoise(wanted.samples, wanted.coming)
                with self._changed:
                    self._pacer.denoised(self._clock.now())
                self._denoised.put(chunk)
        except BaseException as raised:  # it belongs to whoever takes the frames, after those made before it
            error = raised
        self._denoised.put(error)

    def _decode_chunks(self) -> None:
        try:
            while (chunk := self._denoised.get()) is not None:
                if isinstance(chunk, BaseException):
                    raise chunk
                pixels = np.stack([frame.pixels for frame in self._session.decode(chunk)])
                with self._changed:
                    self._pacer.made(pixels, self._clock.now())
                    self._changed.notify_all()
        except BaseException as error:  # it belongs to whoever takes the frames
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _next_chunk(self) -> Make | None:
        """Waited for; None when the call has ended."""
        with self._changed:
            while not (self._closed or self._failure):
                if wanted := self._pacer.to_make(self._clock.now()):
                    return wanted
                self._clock.wait(self._changed, self._pacer.begin_at())
        return None

    def _check_open(self) -> None:
        if self._closed or self._failure:
            raise SessionError("this call has ended; open another") from self._failure
