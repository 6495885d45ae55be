"""A character in a room, spoken for by livekit-agents' own sender: only the room itself is made up."""

import asyncio
import json
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from call_parts import PICTURE, Painter, call_threads, load_example, speech

pytest.importorskip("livekit.agents", reason="needs the [livekit] extra")

from livekit import rtc
from livekit.agents import AgentSession, llm
from livekit.agents.voice import avatar as livekit_avatar
from livekit.agents.voice.avatar import DataStreamAudioOutput
from livekit_room import FakeRoom, Place

from talkingmachines.conversation import livekit_agent, livekit_worker
from talkingmachines.conversation.livekit_agent import AvatarSession, Invitation
from talkingmachines.conversation.livekit_worker import AvatarCall
from talkingmachines.types import SAMPLE_RATE


@pytest.fixture(name="played")
def _played(monkeypatch) -> list:
    """What was handed to LiveKit, and when. It goes on to LiveKit's own sources."""
    played: list = []

    class Synchronizer(rtc.AVSynchronizer):
        async def push(self, frame, timestamp=None) -> None:
            played.append((time.monotonic(), frame))
            await super().push(frame, timestamp)

    monkeypatch.setattr(rtc, "AVSynchronizer", Synchronizer)
    return played


def sound(played: list, since: float = 0) -> np.ndarray:
    pieces = [
        np.frombuffer(frame.data, "<i2") for at, frame in played if isinstance(frame, rtc.AudioFrame) and at > since
    ]
    return np.concatenate([np.zeros(0, "<i2"), *pieces])


class Agent:
    """The agent's end of a call, with what it is told about its speech."""

    def __init__(self, room: FakeRoom) -> None:
        self.output = DataStreamAudioOutput(
            room,
            destination_identity="avatar",
            sample_rate=SAMPLE_RATE,
            wait_remote_track=rtc.TrackKind.KIND_VIDEO,
            wait_playback_start=True,
        )
        self.started: list[float] = []
        self.output.on("playback_started", lambda event: self.started.append(time.monotonic()))

    async def say(self, words: np.ndarray) -> None:
        for start in range(0, len(words), 1600):
            piece = words[start : start + 1600]
            await self.output.capture_frame(rtc.AudioFrame(piece.tobytes(), SAMPLE_RATE, 1, len(piece)))

    async def said(self):
        return await asyncio.wait_for(self.output.wait_for_playout(), 20)


def run(play, avatar=None) -> list[str]:
    """Runs a call while `play(place, agent, call)` does; why the call was to end."""
    reasons: list[str] = []

    async def whole() -> None:
        place = Place()
        agent = Agent(place.join("agent"))
        call = AvatarCall(avatar or Painter(), PICTURE, place.join("avatar"), "agent", reasons.append)
        try:
            await call.begin()
            await play(place, agent, call)
        finally:
            await call.close()
            await call.close()
        await asyncio.sleep(0.05)
        left = {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}
        assert not {name for name in left if "Avatar" in name}

    before = call_threads()
    asyncio.run(whole())
    assert not {thread for thread in call_threads() - before if "live call" in thread.name}
    return reasons


def test_what_the_agent_says_is_seen_and_heard_and_reported(played) -> None:
    words = speech(0.8)
    told = []

    async def play(place: Place, agent: Agent, call: AvatarCall) -> None:
        await agent.say(words)
        agent.output.flush()
        told.append(await agent.said())
        told.append(agent.started)

    assert not run(play)
    heard = sound(played)
    assert np.array_equal(heard[heard != 0], words)
    end, started = told
    assert len(started) == 1 and not end.interrupted and end.playback_position == pytest.approx(0.8, abs=0.09)
    assert sum(isinstance(frame, rtc.VideoFrame) for _, frame in played) > 20


def test_an_interruption_stops_the_speech_and_the_next_is_heard_whole(played) -> None:
    words, answer = speech(4.0, 1), speech(0.5, 2)
    told, cut_at = [], []

    async def play(place: Place, agent: Agent, call: AvatarCall) -> None:
        await agent.say(words)
        while not agent.started:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.4)
        agent.output.clear_buffer()
        agent.output.flush()
        told.append(await agent.said())
        cut_at.append(time.monotonic())
        await agent.say(answer)
        agent.output.flush()
        told.append(await agent.said())
        told.append(agent.started)

    run(play)
    first, second, started = told
    before = sound(played)[: -len(sound(played, cut_at[0]))]
    assert first.interrupted and first.playback_position == pytest.approx(len(before) / SAMPLE_RATE)
    assert first.playback_position < 2
    heard = sound(played, cut_at[0])
    assert np.array_equal(heard[heard != 0], answer)
    assert not second.interrupted and second.playback_position == pytest.approx(0.5, abs=0.09) and len(started) == 2


def test_calls_of_one_process_share_nothing_by_the_names_of_their_agents(played) -> None:
    async def whole() -> None:
        calls = []
        for _ in range(2):
            place = Place()
            agent = Agent(place.join("agent"))
            calls.append((agent, AvatarCall(Painter(), PICTURE, place.join("avatar"), "agent", print)))
            await calls[-1][1].begin()
        agent, _ = calls[0]
        await agent.say(speech(3.0))
        await asyncio.sleep(0.3)
        agent.output.clear_buffer()
        await agent.output._clear_buffer_atask
        assert [call._video._cuts for _, call in calls] == [1, 0]
        for _, call in calls:
            await call.close()

    asyncio.run(whole())
    assert "agent" not in livekit_avatar.DataStreamAudioReceiver._clear_buffer_handlers


def test_the_call_ends_with_its_agent(played) -> None:
    async def play(place: Place, agent: Agent, call: AvatarCall) -> None:
        place.leave("agent")

    assert run(play) == ["the agent has left"]


def test_an_avatar_that_fails_ends_the_call(played) -> None:
    async def play(place: Place, agent: Agent, call: AvatarCall) -> None:
        await asyncio.sleep(1)

    assert run(play, avatar=Painter(fails_at=2)) == ["the avatar has failed: out of paint"]


def test_an_agent_that_does_not_come(monkeypatch) -> None:
    monkeypatch.setattr(livekit_worker, "AGENT_COMES", 0.1)
    reasons: list[str] = []

    async def whole() -> None:
        call = AvatarCall(Painter(), PICTURE, Place().join("avatar"), "agent", reasons.append)
        await call.begin()
        await call.close()

    asyncio.run(whole())
    assert reasons == ["the agent did not come"]


def in_a_job(monkeypatch, asked: list) -> SimpleNamespace:
    """As if this were an agent's job in the room "kitchen"; what it asks LiveKit for is noted."""

    async def ask(request) -> None:
        asked.append(request)

    job = SimpleNamespace(
        local_participant_identity="agent",
        api=SimpleNamespace(
            agent_dispatch=SimpleNamespace(create_dispatch=ask), room=SimpleNamespace(remove_participant=ask)
        ),
        job=SimpleNamespace(room=SimpleNamespace(name="kitchen")),
        add_shutdown_callback=lambda callback: None,
    )
    monkeypatch.setattr(livekit_agent, "get_job_context", lambda: job)
    monkeypatch.setattr(livekit_avatar._types, "get_job_context", lambda required=True: job)
    return job


def test_an_agent_asks_for_a_worker_and_sends_it_its_speech(monkeypatch) -> None:
    """The agent's side: the job that it asks for, and where its speech goes."""
    asked: list = []
    output = SimpleNamespace(replace_audio_tail=asked.append)
    in_a_job(monkeypatch, asked)

    async def whole() -> None:
        place = Place()
        room = place.join("agent")
        session = SimpleNamespace(output=output, on=lambda *_: None, off=lambda *_: None, emit=lambda *_: None)
        avatar = AvatarSession("faces")
        await avatar.start(session, room)
        request, sink = asked
        assert (request.agent_name, request.room) == ("faces", "kitchen")
        assert json.loads(request.metadata) == {"agent": "agent", "avatar": avatar.avatar_identity}
        call = AvatarCall(Painter(), PICTURE, place.join(avatar.avatar_identity), "agent", print)
        await call.begin()
        await avatar.wait_for_join(timeout=20)
        await sink.capture_frame(rtc.AudioFrame(speech(0.3).tobytes(), SAMPLE_RATE, 1, 4800))
        sink.flush()
        assert not (await asyncio.wait_for(sink.wait_for_playout(), 20)).interrupted
        await avatar.aclose()
        assert asked[-1].identity == avatar.avatar_identity
        await call.close()

    asyncio.run(whole())


@pytest.mark.parametrize("free", [True, False])
def test_the_example_gives_an_agent_a_face(free: bool, monkeypatch) -> None:
    """Without its model and its microphone: it asks for a worker, begins, and ends when none is free."""
    asked: list = []
    job = in_a_job(monkeypatch, asked)

    class Model(llm.RealtimeModel):
        def __init__(self) -> None:
            super().__init__(capabilities=llm.RealtimeCapabilities(*[True] * 6))

        def session(self) -> llm.RealtimeSession: ...

        async def aclose(self) -> None: ...

    async def begin(session, agent, room) -> None:
        asked.append((agent.instructions, session.output.audio))

    plugin = SimpleNamespace(realtime=SimpleNamespace(RealtimeModel=Model))
    monkeypatch.setitem(sys.modules, "livekit.plugins", SimpleNamespace(openai=plugin))
    monkeypatch.setattr(AgentSession, "start", begin)
    example = load_example("livekit_agent")

    async def nobody_comes(self, timeout) -> None:
        raise TimeoutError

    if not free:
        monkeypatch.setattr(AvatarSession, "wait_for_join", nobody_comes)

    async def whole() -> None:
        place = Place()
        job.room, job.shutdown = place.join("agent"), asked.append
        talk = asyncio.create_task(example.call(job))
        while not asked:
            await asyncio.sleep(0.01)
        avatar = json.loads(asked[0].metadata)["avatar"]
        face = AvatarCall(Painter(), PICTURE, place.join(avatar), "agent", print)
        await face.begin()
        await asyncio.wait_for(talk, 20)
        await face.close()

    asyncio.run(whole())
    request, (instructions, speech_goes) = asked[:2]
    assert request.agent_name == "talkingmachines" and request.room == "kitchen"
    assert instructions.startswith("You are Nova.") and isinstance(speech_goes, DataStreamAudioOutput)
    assert asked[2:] == ([] if free else ["no face"])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"agent": "a"}', '{"agent": "a", "avatar": 3}'])
def test_a_job_that_says_nothing_of_an_agent(text: str) -> None:
    with pytest.raises(ValueError):
        Invitation.from_json(text)
    assert Invitation.from_json(Invitation("a", "b").to_json()) == Invitation("a", "b")
