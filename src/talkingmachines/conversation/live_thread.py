"""A live call on a thread of its own, its frames handed to asyncio."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from talkingmachines.errors import SessionError
from talkingmachines.streaming.pacing import LiveCall
from talkingmachines.streaming.slots import LiveCounts, LiveFrame

WAITING = 12
"""Frames that the event loop may be behind with; then the call waits for it, and catches up by itself."""


class Character(Protocol):
    """What is needed of an Avatar."""

    def live(self, image: np.ndarray, seed: int = 0) -> LiveCall: ...


class LiveThread:
    """Takes a LiveCall's frames on a thread and yields them on the event loop that `begin` was called on.

    Speech is pushed from the event loop and never blocks it. All of it ends with `close`.
    """

    def __init__(self, avatar: Character, image: np.ndarray, seed: int) -> None:
        self._avatar, self._image, self._seed = avatar, image, seed
        self._queue: asyncio.Queue[LiveFrame | BaseException | None] = asyncio.Queue()
        self._slots = threading.Semaphore(WAITING)
        self._call: LiveCall | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self.counts = LiveCounts()

    async def open(self) -> None:
        """Opens the call and begins with its first pictures, off the event loop. Harmless when repeated or closed.

        Raises what `Avatar.live` raises.
        """
        if self._call is None and not self._closed:
            await asyncio.to_thread(self._open)

    def _open(self) -> None:
        self._call = call = self._avatar.live(self._image, self._seed)
        self.counts = call.counts
        if self._closed:  # meanwhile
            self._join()
        else:
            call.prepare()

    def begin(self) -> None:
        """From now on frames come, once only. Nothing happens when the call is closed."""
        if self._call and not self._closed:
            arguments = (self._call, asyncio.get_running_loop())
            self._thread = threading.Thread(target=self._take, args=arguments, name="live call", daemon=True)
            self._thread.start()

    def push(self, samples: np.ndarray) -> None:
        """float32 [n], mono 16 kHz. Nothing happens when the call has ended: its reason comes out of `frames`."""
        with suppress(SessionError):
            if call := self._call:
                call.push_audio(samples)

    def end_segment(self) -> None:
        with suppress(SessionError):
            if call := self._call:
                call.end_segment()

    def interrupt(self) -> None:
        if call := self._call:
            call.interrupt()

    async def frames(self) -> AsyncIterator[LiveFrame]:
        """Each when its time has come. Raises what ended the call, unless that was `close`."""
        while (item := await self._queue.get()) is not None:
            self._slots.release()
            if isinstance(item, BaseException):
                raise item
            yield item

    async def close(self) -> None:
        """Waits, off the event loop, for the chunk at hand and the threads. Harmless when repeated."""
        self._closed = True
        self._slots.release()
        await asyncio.to_thread(self._join)
        self._queue.put_nowait(None)

    def _join(self) -> None:
        if call := self._call:
            call.close()
        if self._thread:
            self._thread.join()
        self._call = None  # and with it all that its session remembers, however long this object is kept

    def _take(self, call: LiveCall, loop: asyncio.AbstractEventLoop) -> None:
        try:
            for frame in call.frames():
                self._hand_over(loop, frame)
                if self._closed:
                    return
        except BaseException as error:  # it belongs to whoever takes the frames
            if not self._closed:
                self._hand_over(loop, error)

    def _hand_over(self, loop: asyncio.AbstractEventLoop, item: Any) -> None:
        self._slots.acquire()
        with suppress(RuntimeError):  # the loop is gone, and so is everybody who could want it
            loop.call_soon_threadsafe(self._queue.put_nowait, item)
