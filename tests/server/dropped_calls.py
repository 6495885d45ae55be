"""Calls that are dropped without a goodbye, and what they leave behind in the process that made them."""

import asyncio
import contextlib
import ctypes
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable

import uvicorn
from server_fakes import FakeModel, fake_app

from talkingmachines.conversation.options import CallOptions
from talkingmachines.server.live import live_call
from talkingmachines.server.webrtc import WebRTCSignalling

NUMBER = 10
GROWTH = 16.0
"""Megabytes by which ten more calls may let the process grow: 7 have been seen, the allocator's fragments."""


@contextlib.contextmanager
def served(app):
    """Its link."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


def leave_nothing(drop: Callable[[str, Callable[[], None]], None], seconds: float) -> None:
    """Checks that ten calls leave nothing, after ten others that have warmed everything up. Everything is real but the
    model. drop(link, wait): begins ten calls, calls `wait`, which returns when they are connected, and drops them;
    within so many seconds nothing may be left.
    """
    loops, parts = set(), []
    make_live = live_call(FakeModel(), 12, CallOptions(voice="echo"))

    async def make_call(connection, call):
        loops.add(asyncio.get_running_loop())
        parts.extend((weakref.ref(connection), weakref.ref(call)))
        await make_live(connection, call)

    app = fake_app(make_call, WebRTCSignalling, max_calls=NUMBER + 2)
    calls = app.state.calls

    def wait() -> None:
        wait_until(lambda: sum(c.connected and c.counts.frames > 10 for c in calls.active.values()) == NUMBER, 120)

    def left() -> dict[str, object]:
        gc.collect()
        threads = [thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
        return {
            "calls": len(calls.active),
            "parts": sorted(type(part()).__name__ for part in parts if part() is not None),
            "tasks": sorted(task.get_coro().__qualname__ for task in asyncio.all_tasks(*loops)),
            "threads": sorted(threads),
            "files": len(os.listdir("/proc/self/fd")),
        }

    with served(app) as link:
        drop(link, wait)
        wait_until(lambda: not left()["calls"] and not left()["parts"], seconds, lambda: str(left()))
        time.sleep(2)
        before, memory = left(), megabytes()
        drop(link, wait)
        wait_until(lambda: left() == before, seconds, lambda: f"{left()}, not {before}")
        assert megabytes() < memory + GROWTH


def wait_until(what: Callable[[], bool], seconds: float, why: Callable[[], str] = lambda: "it did not happen") -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, why()
        time.sleep(0.1)


def megabytes() -> float:
    """Of memory that the process holds; what its allocator keeps for later is given back first."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
