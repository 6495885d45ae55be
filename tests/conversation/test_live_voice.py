"""Whole calls with the voice gemini-live, over a wire that fails."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("google.genai")

from call_parts import call_threads, speech
from fake_transport import FakeTransport
from live_server import RATE, Behaviour, LiveServer
from test_run_call import Act, end_calls, hold, json_of, spoken_seconds, until

from talkingmachines.conversation.call import CallCounts, CallOptions
from talkingmachines.conversation.persona import Persona
from talkingmachines.conversation.voices.gemini_live import LiveVoice

PUCK = Persona("Puck", "You are Puck.", "Hello there.", "Puck")
ANSWER = (np.sin(np.arange(RATE) * 2 * np.pi * 200 / RATE) * 9000).astype("<i2")
"""One second."""

QUESTION = np.concatenate([speech(0.4) // 8, np.zeros(6400, "<i2")])


@pytest.fixture(name="server")
def _server(tmp_path: Path) -> LiveServer:
    return LiveServer(ANSWER, tmp_path)


@pytest.fixture(name="served")
def _served(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """served(what, persona): runs what(options) while that server runs."""

    async def whole(what: Callable, persona: Persona) -> Any:
        async with server.running():
            monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
            monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
            return await what(CallOptions(persona, voice="gemini-live", key="a-key"))

    return lambda what, persona=PUCK: asyncio.run(whole(what, persona))


@pytest.fixture(name="call")
def _call(served: Callable) -> Callable:
    """call(act, persona): a call during which `act` is played."""
    return lambda act, persona=PUCK: served(lambda options: hold(options, act), persona)


def listen(seconds: float) -> Act:
    async def play(transport: FakeTransport, counts: CallCounts) -> None:
        await until(lambda: spoken_seconds(transport) > 0.97 * seconds)
        await asyncio.sleep(0.2)

    return play


async def ask(transport: FakeTransport, counts: CallCounts) -> None:
    """After the greeting; listens to the answer."""
    await listen(1)(transport, counts)
    await transport.say(QUESTION)
    await listen(2)(transport, counts)


@pytest.mark.parametrize("behaviour", [Behaviour(), Behaviour(delay=0.03), Behaviour(split=True)])
def test_a_question_reaches_the_model_and_its_answer_is_heard(
    server: LiveServer, call: Callable, behaviour: Behaviour
) -> None:
    server.behaviours = [behaviour]
    transport, counts = call(ask)
    (session,) = server.sessions
    assert spoken_seconds(transport) == pytest.approx(2, abs=0.06)
    assert counts.end_reason == "the user has left" and not counts.errors and counts.spoken_frames >= 50
    assert counts.stacks["voice"].startswith("models/gemini")
    setup = session.heard[0]["setup"]
    assert setup["model"] == counts.stacks["voice"]
    assert "You are Puck." in json_of(setup) and '"voice_name": "Puck"' in json_of(setup)
    assert "Hello there." in json_of(session.heard[1]["client_content"]), "what it says first"
    heard = np.concatenate(session.sound)
    assert np.array_equal(heard[: len(QUESTION)], QUESTION), "sample by sample"


def test_speaking_into_an_answer_stops_it(server: LiveServer, call: Callable) -> None:
    server.behaviours = [Behaviour(delay=0.06)]

    async def act(transport: FakeTransport, counts: CallCounts) -> None:
        await until(lambda: spoken_seconds(transport) > 0.3)
        await transport.say(QUESTION[:3200])
        said = len(transport.screen.played)
        await asyncio.sleep(0.4)
        assert len(transport.screen.played) == said, "nothing after an interruption"
        await transport.say(QUESTION[-6400:])
        await listen(1.3)(transport, counts)

    transport, counts = call(act)
    assert counts.interruptions == 1 and not counts.errors and spoken_seconds(transport) < 1.8


@pytest.mark.parametrize("behaviour", [Behaviour(cut_after=3), Behaviour(cut_after=3, politely=True)])
@pytest.mark.parametrize("pieces", [0, 3])
def test_a_connection_that_is_cut_is_made_again(
    server: LiveServer, call: Callable, behaviour: Behaviour, pieces: int
) -> None:
    """Before the first sound too: an answer is due then."""
    server.behaviours = [replace(behaviour, cut_after=pieces)]

    async def act(transport: FakeTransport, counts: CallCounts) -> None:
        await asyncio.gather(listen(1 + pieces / 8)(transport, counts), transport.say(np.zeros(24000)))

    _, counts = call(act)
    assert len(server.sessions) == 2 and counts.end_reason == "the user has left" and not counts.errors
    again = json_of(server.sessions[1].heard)
    assert "You are Puck." in again and "Hello there." in again, "the new session knows the conversation"


@pytest.mark.parametrize("pieces", [0, 3])
def test_a_service_that_hangs_is_left(
    server: LiveServer, call: Callable, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    """Before the first sound of an answer, and in the middle of one; and one that has no answer to give is not."""
    monkeypatch.setattr(LiveVoice, "hang", 0.5)
    server.behaviours = [Behaviour(hang_after=pieces)]

    async def act(transport: FakeTransport, counts: CallCounts) -> None:
        await asyncio.gather(listen(1 + pieces / 8)(transport, counts), transport.say(np.zeros(24000)))
        await asyncio.sleep(1)
        await transport.say(QUESTION)
        await listen(2 + pieces / 8)(transport, counts)

    _, counts = call(act)
    assert len(server.sessions) == 2 and counts.end_reason == "the user has left" and not counts.errors
    assert "Hello there." in json_of(server.sessions[1].heard)


def test_what_was_said_is_told_to_the_next_session(server: LiveServer, call: Callable) -> None:
    async def act(transport: FakeTransport, counts: CallCounts) -> None:
        await ask(transport, counts)
        server.sessions[0].socket.transport.abort()
        await until(lambda: len(server.sessions) == 2 and len(server.sessions[1].heard) > 1)
        await transport.say(QUESTION)
        await listen(3)(transport, counts)

    transport, _ = call(act)
    told = server.sessions[1].heard[1]["client_content"]
    assert [turn["role"] for turn in told["turns"]] == ["user", "model", "user", "model"]
    assert "And you?" in json_of(told) and "w7" in json_of(told)
    assert not told["turnComplete"], "nothing was due"
    assert spoken_seconds(transport) == pytest.approx(3, abs=0.09)


def test_who_greets_nobody_listens(server: LiveServer, call: Callable) -> None:
    async def act(transport: FakeTransport, counts: CallCounts) -> None:
        await until(lambda: bool(server.sessions) and bool(server.sessions[0].heard))
        await asyncio.sleep(0.3)
        assert not spoken_seconds(transport)
        await transport.say(QUESTION)
        await listen(1)(transport, counts)

    _, counts = call(act, Persona("Puck", "You are Puck."))
    assert not counts.errors and len(server.sessions) == 1


async def wait_for_the_end(transport: FakeTransport, counts: CallCounts) -> None:
    await until(lambda: bool(counts.end_reason))


def test_a_service_that_is_refused_ends_the_call_with_a_reason(
    server: LiveServer, call: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveVoice, "pauses", (0.05, 0.05))
    server.behaviours = [Behaviour(error="no such key")] * 9
    _, counts = call(wait_for_the_end)
    assert len(server.sessions) == 3
    assert counts.end_reason == "the voice service cannot be reached any more" and counts.errors == 1


def test_a_service_that_stays_away_ends_the_call_with_a_reason(
    server: LiveServer, call: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveVoice, "pauses", (0.05, 0.05))
    server.behaviours = [Behaviour(cut_after=2)]

    async def act(transport: FakeTransport, counts: CallCounts) -> None:
        server.refuse = True
        await wait_for_the_end(transport, counts)

    _, counts = call(act)
    assert counts.end_reason == "the voice service cannot be reached any more"


def test_a_service_that_comes_late_is_waited_for(server: LiveServer, call: Callable) -> None:
    server.refuse = True

    async def act(transport: FakeTransport, counts: CallCounts) -> None:
        await asyncio.sleep(0.1)
        server.refuse = False
        await listen(1)(transport, counts)

    _, counts = call(act)
    assert counts.end_reason == "the user has left" and not counts.errors


@pytest.mark.parametrize("behaviour", [Behaviour(), Behaviour(cut_after=0)])
def test_a_call_leaves_nothing_behind(server: LiveServer, served: Callable, behaviour: Behaviour) -> None:
    """Also when it is ended while connections are made again."""
    server.behaviours = [behaviour] * 9
    before = call_threads()
    left = served(end_calls)
    assert not left, left
    assert not call_threads() - before
