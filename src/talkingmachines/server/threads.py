"""Work that may block for ever, as a disk can."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


async def on_a_thread(work: Callable[..., T], *arguments: object) -> T:
    """What `work` returns or raises, from a daemon thread of its own. Whoever is cancelled leaves it to itself.

    asyncio's own threads are few, all else needs them too, and a process that is to end waits for them without limit.
    """
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()  # from here on it cannot be cancelled, so it can always be set
    context = copy_context()

    def run() -> None:
        try:
            result.set_result(context.run(work, *arguments))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="disk", daemon=True).start()
    return await asyncio.wrap_future(result)
