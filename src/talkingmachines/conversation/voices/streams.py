"""Slow iterators on a thread, taken from asyncio."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

Item = TypeVar("Item")


async def stream(make: Callable[[threading.Event], Iterator[Item]]) -> AsyncIterator[Item]:
    """The items of make(stopped), made on a thread, as they come. `stopped` is set when nobody wants more of them."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    stopped = threading.Event()

    def put(kind: str, item: Any = None) -> None:
        with suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(queue.put_nowait, (kind, item))

    def work() -> None:
        try:
            for item in make(stopped):
                put("item", item)
                if stopped.is_set():
                    break
            put("end")
        except BaseException as error:  # it belongs to whoever takes the items
            put("error", error)

    loop.run_in_executor(None, work)
    try:
        while (got := await queue.get())[0] == "item":
            yield got[1]
        if got[0] == "error":
            raise got[1]
    finally:
        stopped.set()
