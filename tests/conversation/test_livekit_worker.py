"""The worker against a LiveKit server that is made up: it registers, says how full it is, takes calls and refuses."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
from call_parts import PICTURE, Painter

pytest.importorskip("livekit.agents", reason="needs the [livekit] extra")

from livekit.agents import JobContext, JobProcess
from livekit.agents import worker as livekit_agents_worker
from livekit.protocol.agent import WorkerStatus
from livekit_room import FakeServer

from talkingmachines.conversation import livekit_worker
from talkingmachines.conversation.livekit_agent import Invitation
from talkingmachines.conversation.livekit_worker import AvatarWorker


class Calls:
    """Calls without a room: each goes on until it is told to end."""

    def __init__(self, monkeypatch) -> None:
        self.going_on: list[str] = []
        self.closed: list[str] = []
        self._end = threading.Event()
        calls = self

        class Call:
            def __init__(self, avatar, image, room, agent, end) -> None:
                self._agent, self._end = agent, end

            async def begin(self) -> None:
                calls.going_on.append(self._agent)
                self._watch = asyncio.create_task(self._wait())

            async def _wait(self) -> None:
                await asyncio.to_thread(calls._end.wait)
                self._end("told to")

            async def close(self) -> None:
                calls._end.set()
                await self._watch
                calls.closed.append(self._agent)

        async def connect(job, **options) -> None:
            job._on_connect()

        monkeypatch.setattr(livekit_worker, "AvatarCall", Call)
        monkeypatch.setattr(JobContext, "connect", connect)

    def end(self) -> None:
        self._end.set()


def run(
    monkeypatch,
    play,
    max_calls: int = 2,
    begin: Callable[[JobProcess], None] | None = None,
    load_interval: float = 0.05,
) -> None:
    """Runs a worker and a server while `play(server, calls, worker)` does; then the worker is told to stop.

    begin: called on each of its threads when it begins. load_interval: seconds after which it sees that it is fuller.
    """
    calls = Calls(monkeypatch)
    monkeypatch.setattr(livekit_worker, "CLOSING", 5)
    monkeypatch.setattr(livekit_agents_worker, "UPDATE_STATUS_INTERVAL", 0.1)
    monkeypatch.setattr(livekit_agents_worker, "UPDATE_LOAD_INTERVAL", load_interval)

    async def whole() -> None:
        server = FakeServer()
        url = await server.start()
        for name, value in {"URL": url, "API_KEY": "key", "API_SECRET": "secret" * 8}.items():
            monkeypatch.setenv(f"LIVEKIT_{name}", value)
        worker = AvatarWorker(Painter(), PICTURE, max_calls, "faces", "127.0.0.1", 0)
        if begin:
            worker.server.setup_fnc = begin
        running = asyncio.create_task(worker.run())
        try:
            await server.wait(lambda told: told.HasField("register"))
            await play(server, calls, worker)
            calls.end()
        finally:
            if not running.done():  # it would be the tests that are told to stop
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(running, 20)
            await server.close()

    asyncio.run(whole())
    assert sorted(calls.closed) == sorted(calls.going_on)


def invitation(name: str) -> str:
    return Invitation(f"agent-{name}", f"avatar-{name}").to_json()


def test_it_takes_as_many_calls_as_it_has_places_for_and_no_more(monkeypatch) -> None:
    async def play(server: FakeServer, calls: Calls, worker: AvatarWorker) -> None:
        assert server.registered.agent_name == "faces"
        first = await server.offer("one", invitation("one"))
        assert first.available and first.participant_identity == "avatar-one"
        assert first.participant_attributes["lk.publish_on_behalf"] == "agent-one"
        status = await server.wait(lambda told: told.update_worker.load == 0.5)
        assert status.update_worker.status == WorkerStatus.WS_AVAILABLE
        assert (await server.offer("two", invitation("two"))).available
        third = await server.offer("three", invitation("three"))
        assert not third.available and not third.terminate, "another worker is asked"
        status = await server.wait(lambda told: told.update_worker.load == 1)
        assert status.update_worker.status == WorkerStatus.WS_FULL
        since = time.monotonic()
        calls.end()
        status = await server.wait(lambda told: told.HasField("update_worker") and not told.update_worker.load, since)
        assert status.update_worker.status == WorkerStatus.WS_AVAILABLE
        assert sorted(calls.closed) == ["agent-one", "agent-two"]

    run(monkeypatch, play)


def test_offers_at_the_same_moment_do_not_get_one_place_twice(monkeypatch) -> None:
    async def play(server: FakeServer, calls: Calls, worker: AvatarWorker) -> None:
        answers = await asyncio.gather(*(server.offer(name, invitation(name)) for name in ("one", "two", "three")))
        assert [answer.available for answer in answers].count(True) == 1

    run(monkeypatch, play, max_calls=1)


def test_a_call_without_an_agent_is_refused_for_good(monkeypatch) -> None:
    async def play(server: FakeServer, calls: Calls, worker: AvatarWorker) -> None:
        answer = await server.offer("one", "")
        assert not answer.available and answer.terminate and not calls.going_on

    run(monkeypatch, play)


def test_told_to_stop_it_lets_calls_end_and_takes_no_more(monkeypatch) -> None:
    async def play(server: FakeServer, calls: Calls, worker: AvatarWorker) -> None:
        await server.offer("one", invitation("one"))
        since = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        status = await server.wait(lambda told: told.HasField("update_worker"), since)
        assert status.update_worker.status == WorkerStatus.WS_FULL
        assert not (await server.offer("two", invitation("two"))).available and not calls.closed
        # The next signal, which ends the test, ends the call: nobody has told it to end.
        calls.end = lambda: None

    run(monkeypatch, play)


def test_what_cannot_be_closed_does_not_keep_it(monkeypatch) -> None:
    async def play(server: FakeServer, calls: Calls, worker: AvatarWorker) -> None:
        closing = worker.server.aclose
        monkeypatch.setattr(livekit_worker, "CLOSING", 0.1)
        monkeypatch.setattr(worker.server, "aclose", asyncio.Event().wait)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.5)
        await closing()

    run(monkeypatch, play)


def test_told_to_stop_while_a_thread_begins_it_leaves_none(monkeypatch) -> None:
    """livekit-agents never comes to an end with a thread that is beginning, and leaves the others as they are."""
    begun, before = [], set(threading.enumerate())

    def begin(_: JobProcess) -> None:
        begun.append(None)
        if len(begun) == 3:  # the one that takes the place of the call's
            time.sleep(1)

    async def play(server: FakeServer, calls: Calls, worker: AvatarWorker) -> None:
        monkeypatch.setattr(livekit_worker, "CLOSING", 2)
        await server.offer("one", invitation("one"))
        while len(begun) < 3:
            await asyncio.sleep(0.01)

    run(monkeypatch, play, begin=begin, load_interval=60)
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:
            thread.join(5)
            assert not thread.is_alive(), thread.name


def test_a_port_that_is_taken(monkeypatch) -> None:
    async def whole() -> None:
        server = FakeServer()
        url = await server.start()
        worker = AvatarWorker(Painter(), PICTURE, 1, "faces", "127.0.0.1", int(url.rsplit(":", 1)[1]))
        with pytest.raises(OSError, match="in use"):
            await worker.run()
        await server.close()

    for name in ("URL", "API_KEY", "API_SECRET"):
        monkeypatch.setenv(f"LIVEKIT_{name}", "ws://127.0.0.1:1")
    asyncio.run(whole())
