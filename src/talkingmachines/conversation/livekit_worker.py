"""A process that gives LiveKit agents a face: it registers with the LiveKit server, which sends it calls.

livekit-agents does the registering, and the server the choosing: every worker reports how full it is, is asked before
it gets a call, and says no when all its places are taken; the server then asks another. A call is a job like any
agent's, run on a thread of this process, so that all calls share one model.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
from livekit import rtc
from livekit.agents import AgentServer, AutoSubscribe, JobContext, JobExecutorType, JobRequest, utils
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF
from livekit.agents.voice.avatar import AvatarOptions, AvatarRunner, DataStreamAudioReceiver

from talkingmachines.conversation.live_thread import Character
from talkingmachines.conversation.livekit_agent import Invitation
from talkingmachines.conversation.livekit_avatar import AvatarVideo
from talkingmachines.types import FPS, SAMPLE_RATE

AGENT_COMES = 30.0
"""Seconds in which the agent that asked for a face has to be in the room."""

CLOSING = 20.0
"""Seconds that closing may take at the end."""

_log = logging.getLogger(__name__)


class FramedCharacter(Character, Protocol):
    """What is needed of an Avatar."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of its pictures."""


class AvatarWorker:
    """Takes calls from a LiveKit server, whose address and key livekit-agents reads from the environment.

    max_calls: at the same time. name: what agents ask for. host, port: where `/` says whether the worker is well and
    `/worker` how full it is.
    """

    def __init__(
        self, avatar: FramedCharacter, image: np.ndarray, max_calls: int, name: str, host: str, port: int
    ) -> None:
        self._avatar, self._image, self._max_calls = avatar, image, max_calls
        self._answering = 0  # calls that were accepted and do not run yet
        self.server = AgentServer(
            job_executor_type=JobExecutorType.THREAD,
            load_fnc=self._load,
            # Full at max_calls, not at one more or less for a rounding error.
            load_threshold=1 - 0.5 / max_calls,
            num_idle_processes=max_calls,
            host=host,
            port=port,
        )
        self.server.rtc_session(self._call, agent_name=name, on_request=self._answer)

    async def run(self) -> None:
        """Until SIGINT or SIGTERM. No more calls are taken then; those going on end by themselves, or at the next one.

        Raises OSError when it cannot listen, RuntimeError when the LiveKit server cannot be reached.
        """
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        serving = asyncio.create_task(self.server.run())
        try:
            await _first(serving, stop)
            if not serving.done():
                stop.clear()
                if calls := len(self.server.active_jobs):
                    _log.info("no more calls; waiting for %d to end. The same signal again ends them now", calls)
                draining = asyncio.create_task(self.server.drain())
                await _first(draining, stop)
                draining.cancel()
                with suppress(asyncio.CancelledError, TimeoutError):
                    await draining
            try:
                await asyncio.wait_for(self.server.aclose(), CLOSING)
            except TimeoutError:  # livekit-agents waits for ever for a job's thread that is just beginning
                _log.warning("not everything could be closed in %.0f s", CLOSING)
                await self._close_threads()
                serving.cancel()
            await asyncio.wait({serving})
            if not serving.cancelled():
                serving.result()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def _close_threads(self) -> None:
        """Ends the threads that `AgentServer.aclose` has not come to: Python would wait for them."""
        closing = [asyncio.create_task(thread.aclose()) for thread in self.server._proc_pool.processes]
        if closing:
            await asyncio.wait(closing, timeout=CLOSING)

    def _load(self) -> float:
        return len(self.server.active_jobs) / self._max_calls

    async def _answer(self, request: JobRequest) -> None:
        """Takes a call that the LiveKit server offers, or says no."""
        try:
            invitation = Invitation.from_json(request.job.metadata)
        except ValueError as error:
            _log.warning("a call without an agent was refused (%s); ask for it with AvatarSession", error)
            await request.reject(terminate=True)
            return
        if len(self.server.active_jobs) + self._answering >= self._max_calls:
            await request.reject(terminate=False)  # another worker may have a place
            return
        self._answering += 1
        try:
            await request.accept(identity=invitation.avatar, attributes={ATTRIBUTE_PUBLISH_ON_BEHALF: invitation.agent})
        finally:
            self._answering -= 1

    async def _call(self, job: JobContext) -> None:
        """The call's job: begins it and returns; it ends with the room, the agent or a failure."""
        invitation = Invitation.from_json(job.job.metadata)
        call = AvatarCall(self._avatar, self._image, job.room, invitation.agent, job.shutdown)
        job.add_shutdown_callback(call.close)
        await job.connect(auto_subscribe=AutoSubscribe.SUBSCRIBE_NONE)
        await call.begin()


class AvatarCall:
    """A character in a room, which speaks what the agent there says.

    room: connected when `begin` is called; end: called with the reason when there is no sense in going on.
    """

    def __init__(
        self, avatar: FramedCharacter, image: np.ndarray, room: rtc.Room, agent: str, end: Callable[[str], None]
    ) -> None:
        self._shape, self._room, self._agent, self._end = avatar.shape, room, agent, end
        self._video = AvatarVideo(avatar, image)
        self._runner: AvatarRunner | None = None
        self._watch: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Waits for the agent. Raises what `Avatar.live` raises."""
        self._room.on("participant_disconnected", self._left)
        try:
            await asyncio.wait_for(utils.wait_for_participant(self._room, identity=self._agent), AGENT_COMES)
        except TimeoutError:
            self._end("the agent did not come")
            return
        await self._video.open()
        runner = AvatarRunner(
            self._room,
            audio_recv=_receiver(self._room, self._agent),
            video_gen=self._video,
            options=AvatarOptions(
                video_width=self._shape[1],
                video_height=self._shape[0],
                video_fps=FPS,
                audio_sample_rate=SAMPLE_RATE,
                audio_channels=1,
            ),
        )
        await runner.start()
        self._runner = runner
        self._watch = asyncio.create_task(self._until_it_ends(runner))

    async def close(self) -> None:
        """Ends the call, its tasks and its threads. Harmless when repeated."""
        self._room.off("participant_disconnected", self._left)
        watch, self._watch = self._watch, None
        if watch:
            await utils.aio.cancel_and_wait(watch)
        runner, self._runner = self._runner, None
        if runner:
            await runner.aclose()
        await self._video.close()

    async def _until_it_ends(self, runner: AvatarRunner) -> None:
        try:
            await runner.wait_for_complete()
        except Exception as error:
            self._end(f"the avatar has failed: {error}")
        else:
            self._end("the avatar has ended")

    def _left(self, participant: rtc.RemoteParticipant) -> None:
        if participant.identity == self._agent:
            self._end("the agent has left")


def _receiver(room: rtc.Room, agent: str) -> DataStreamAudioReceiver:
    """What hears the agent. Each has a class of its own: the class keeps the receivers by the identity of their agents,
    for ever, and all calls of this process would share it.
    """

    class Receiver(DataStreamAudioReceiver):
        _clear_buffer_handlers: dict = {}  # noqa: RUF012

    return Receiver(room, sender_identity=agent)


async def _first(task: asyncio.Task[Any], event: asyncio.Event) -> None:
    """Until the task is done or the event is set."""
    waiting: asyncio.Task[Any] = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
