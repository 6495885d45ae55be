"""Slow iterators on a thread, taken from asyncio."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Begun(Generic[Item]):
    """The items of make(stopped), made on a thread from now on. `stopped` is set when nobody wants more of them."""

    def __init__(self, make: Callable[[threading.Event], Iterator[Item]]) -> None:
        self._loop, self._make = asyncio.get_running_loop(), make
        self._queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._stopped = threading.Event()
        self._loop.run_in_executor(None, self._work)

    def stop(self) -> None:
        """Nobody wants more. Harmless when repeated."""
        self._stopped.set()

    async def items(self) -> AsyncIterator[Item]:
        """As they come, once only. Raises what went wrong in making them."""
        try:
            while (got := await self._queue.get())[0] == "item":
                yield got[1]
            if got[0] == "error":
                raise got[1]
        finally:
            self.stop()

    def _work(self) -> None:
        try:
            for item in self._make(self._stopped):
                self._put("item", item)
                if self._stopped.is_set():
                    break
            self._put("end")
        except BaseException as error:  # it belongs to whoever takes the items
            self._put("error", error)

    def _put(self, kind: str, item: Any = None) -> None:
        with suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (kind, item))
