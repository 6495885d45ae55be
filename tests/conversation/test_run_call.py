"""Whole calls: the pipeline, voices behind a wire that fails, and what is left when a call is over."""

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable
from itertools import pairwise

import numpy as np
import pytest
from call_parts import PICTURE, SHAPE, Painter, call_threads
from fake_transport import FakeTransport
from pipecat.frames.frames import ErrorFrame
from pipecat.observers.base_observer import BaseObserver, FramePushed
from realtime_server import RATE, Behaviour, RealtimeServer

from talkingmachines.conversation.call import CallCounts, CallOptions, run_call
from talkingmachines.conversation.persona import Persona
from talkingmachines.conversation.voices import openai_realtime
from talkingmachines.errors import ConfigError
from talkingmachines.streaming.pacing import LiveCall

ADA = Persona("Ada", "You are Ada.", "Hello there.")
ANSWER = (np.sin(np.arange(RATE) * 2 * np.pi * 200 / RATE) * 9000).astype("<i2")
"""One second."""

Act = Callable[[FakeTransport, CallCounts], Awaitable[None]]


class Errors(BaseObserver):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    async def on_push_frame(self, data: FramePushed) -> None:
        if isinstance(data.frame, ErrorFrame) and data.frame.error not in self.seen:
            self.seen.append(data.frame.error)


async def hold(options: CallOptions, act: Act, avatar: Painter | None = None) -> tuple[FakeTransport, CallCounts]:
    """A call during which `act` is played; it ends when the user leaves, at the latest after it."""
    transport, counts = FakeTransport(SHAPE), CallCounts()
    call = asyncio.create_task(run_call(transport, avatar or Painter(), PICTURE, options, counts=counts))
    try:
        await asyncio.wait_for(transport.come(), 20)
        await act(transport, counts)
        await transport.leave()
        await asyncio.wait_for(call, 20)
    finally:
        call.cancel()
        await asyncio.wait([call])
    return transport, counts


def realtime(server: RealtimeServer, persona: Persona = ADA) -> CallOptions:
    return CallOptions(persona, voice="openai-realtime", realtime_url=server.url, key="a-key", call_id="test")


def with_server(
    behaviours: list[Behaviour],
    act: Callable[[RealtimeServer], Act],
    persona: Persona = ADA,
    avatar: Painter | None = None,
):
    async def whole():
        async with RealtimeServer(ANSWER, behaviours).running() as server:
            transport, counts = await hold(realtime(server, persona), act(server), avatar)
            return server, transport, counts

    return asyncio.run(whole())


async def until(what: Callable[[], bool], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.02)


def spoken_seconds(transport: FakeTransport) -> float:
    return np.count_nonzero(np.abs(transport.heard.astype(int)) > 20) / 16000


def whole_answers(number: float) -> Callable[[RealtimeServer], Act]:
    def act(server: RealtimeServer) -> Act:
        async def play(transport: FakeTransport, counts: CallCounts) -> None:
            await until(lambda: spoken_seconds(transport) > 0.97 * number)
            await asyncio.sleep(0.2)

        return play

    return act


@pytest.mark.parametrize("behaviour", [Behaviour(), Behaviour(delay=0.05), Behaviour(split=True)])
def test_an_audio_model_is_heard_and_seen(behaviour: Behaviour) -> None:
    server, transport, counts = with_server([behaviour], whole_answers(1))
    assert spoken_seconds(transport) == pytest.approx(1, abs=0.03)
    assert counts.end_reason == "the user has left" and not counts.errors
    assert counts.spoken_frames >= 25 and counts.stacks["voice"].startswith("gpt-realtime")
    assert server.headers[0]["Authorization"] == "Bearer a-key"
    assert server.of("session.update")[0]["session"].get("audio")
    assert "You are Ada." in json_of(server.of("session.update")), "who the character is"
    assert "Hello there." in json_of(server.of("conversation.item.create")), "what it says first"


def test_a_call_that_is_over_keeps_no_session() -> None:
    """Its memory is the next caller's, at once and not when Python happens to look for cycles."""
    painter = Painter()
    with_server([Behaviour()], whole_answers(1), avatar=painter)
    gc.disable()
    try:
        with_server([Behaviour()], whole_answers(1), avatar=painter)
        sessions = [weakref.ref(session) for session in painter.sessions]
        painter.sessions.clear()
        assert [session() for session in sessions] == [None, None]
    finally:
        gc.enable()


def test_the_users_sound_reaches_the_model_and_interrupts_it() -> None:
    def act(server: RealtimeServer) -> Act:
        async def play(transport: FakeTransport, counts: CallCounts) -> None:
            await until(lambda: spoken_seconds(transport) > 0.3)
            await transport.say(np.full(1600, 500))
            await server.user_begins()
            await asyncio.sleep(0.15)
            said = len(transport.screen.played)
            await asyncio.sleep(0.5)
            assert len(transport.screen.played) == said, "nothing after an interruption"
            await server.user_speaks("And you?")
            await until(lambda: spoken_seconds(transport) > 1.3)

        return play

    server, _, counts = with_server([], act)
    assert server.of("input_audio_buffer.append") and server.of("conversation.item.truncate")
    assert counts.interruptions == 1 and counts.turns == 1 and counts.turn_times[0] < 2


@pytest.mark.parametrize(
    "behaviour", [Behaviour(cut_after=3), Behaviour(cut_after=3, politely=True), Behaviour(garbled_after=3)]
)
def test_a_connection_that_is_cut_is_made_again(behaviour: Behaviour) -> None:
    server, _, counts = with_server([behaviour], whole_answers(1.3))
    assert len(server.heard) == 2 and counts.end_reason == "the user has left"
    again = json_of(server.heard[1])
    assert "You are Ada." in again and "Hello there." in again, "the new session knows the conversation"


def test_a_service_that_hangs_in_the_middle_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_realtime.RealtimeVoice, "hang", 0.5)
    server, _, counts = with_server([Behaviour(hang_after=3)], whole_answers(1.3))
    assert len(server.heard) == 2 and counts.end_reason == "the user has left"


def test_a_service_that_stays_away_ends_the_call_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_realtime.RealtimeVoice, "pauses", (0.05, 0.05))

    def act(server: RealtimeServer) -> Act:
        async def play(transport: FakeTransport, counts: CallCounts) -> None:
            server.refuse = True
            await until(lambda: bool(counts.end_reason))

        return play

    _, _, counts = with_server([Behaviour(cut_after=2)], act)
    assert counts.end_reason == "the voice service cannot be reached any more" and counts.errors


def test_a_service_that_comes_late_is_waited_for() -> None:
    async def whole():
        async with RealtimeServer(ANSWER, []).running() as server:
            server.refuse = True

            async def act(transport: FakeTransport, counts: CallCounts) -> None:
                await asyncio.sleep(0.1)
                server.refuse = False
                await whole_answers(1)(server)(transport, counts)

            return await hold(realtime(server), act)

    transport, counts = asyncio.run(whole())
    assert counts.end_reason == "the user has left" and spoken_seconds(transport) > 0.97


def test_errors_of_the_service_do_not_make_it_try_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_realtime.RealtimeVoice, "pauses", (0.05, 0.05))

    def act(server: RealtimeServer) -> Act:
        async def play(transport: FakeTransport, counts: CallCounts) -> None:
            await until(lambda: bool(counts.end_reason))

        return play

    server, _, counts = with_server([Behaviour(error="no such voice")] * 9, act)
    assert len(server.heard) == 3 and "cannot be reached" in counts.end_reason


def test_a_call_leaves_nothing_behind() -> None:
    async def whole() -> set:
        async with RealtimeServer(ANSWER, []).running() as server:
            return await end_calls(realtime(server))

    before = call_threads()
    left = asyncio.run(whole())
    assert not left, left
    assert not call_threads() - before


async def end_calls(options: CallOptions) -> set:
    """Three calls that are ended sooner or later; the tasks that are left of them."""
    for number in range(3):
        transport, counts = FakeTransport(SHAPE), CallCounts()
        call = asyncio.create_task(run_call(transport, Painter(takes=0.02), PICTURE, options, counts=counts))
        await transport.come()
        await asyncio.sleep(0.1 * number)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert counts.end_reason == "the call was ended"
    for _ in range(20):
        if not (left := _tasks_of_calls()):
            break
        await asyncio.sleep(0.1)
    return left


def _tasks_of_calls() -> set:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    servers = "realtime_server", "live_server", "websockets"
    return {task for task in others if not any(name in repr(task) for name in servers)}


def test_an_avatar_that_fails_ends_the_call_with_a_reason() -> None:
    async def act(transport: FakeTransport, counts: CallCounts) -> None:
        await until(lambda: bool(counts.end_reason))

    _, counts = asyncio.run(hold(CallOptions(ADA, voice="echo"), act, Painter(fails_at=3)))
    assert counts.end_reason == "the avatar has failed: out of paint"


@pytest.mark.parametrize("opening_takes", [0, 0.3])
def test_what_cannot_begin_says_so_and_leaves_nothing(opening_takes: float) -> None:
    class Slow(Painter):
        def live(self, image: np.ndarray, seed: int = 0) -> LiveCall:
            time.sleep(opening_takes)
            return super().live(image, seed)

    painter, before = Slow(), call_threads()
    with pytest.raises(ConfigError, match="unknown voice"):
        asyncio.run(run_call(FakeTransport(SHAPE), painter, PICTURE, CallOptions(ADA, voice="loud")))
    assert [session.closed for session in painter.sessions] == [True] and not call_threads() - before


def test_pictures_flow_while_nobody_speaks() -> None:
    async def act(transport: FakeTransport, counts: CallCounts) -> None:
        await asyncio.sleep(2)

    transport, counts = asyncio.run(hold(CallOptions(ADA, voice="echo"), act))
    gaps = [after - before for before, after in pairwise(transport.screen.shown)]
    assert counts.frames > 40 and np.median(gaps) == pytest.approx(0.04, abs=0.01)


def json_of(events: object) -> str:
    import json

    return json.dumps(events)
