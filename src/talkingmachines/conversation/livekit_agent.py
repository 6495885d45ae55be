"""The agent's side of `talkingmachines livekit`: one line in a LiveKit agent gives it a face.

    avatar = AvatarSession()
    await avatar.start(session, ctx.room)
    await session.start(agent, room=ctx.room)

It needs nothing of this package but this file, so an agent's machine needs no torch: copy it there if that is easier.
"""

import json
from dataclasses import asdict, dataclass

from livekit import api, rtc
from livekit.agents import AgentSession, get_job_context, utils
from livekit.agents.voice.avatar import AvatarSession as LiveKitAvatarSession
from livekit.agents.voice.avatar import DataStreamAudioOutput

WORKER = "talkingmachines"
"""The name under which workers register, unless they are told another."""

SPEECH_RATE = 16_000
"""Samples per second of what is sent to the worker: what it hears."""


@dataclass(frozen=True)
class Invitation:
    """What a worker is told with its job. agent: who speaks; avatar: who the worker is to be. Both identities."""

    agent: str
    avatar: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Invitation":
        """Raises ValueError for anything else."""
        told = json.loads(text)
        if not isinstance(told, dict):
            raise ValueError("not an object")
        agent, avatar = told.get("agent"), told.get("avatar")
        if not (isinstance(agent, str) and agent and isinstance(avatar, str) and avatar):
            raise ValueError("agent or avatar is missing")
        return cls(agent, avatar)


class AvatarSession(LiveKitAvatarSession):  # type: ignore[type-arg]
    """Asks LiveKit for a worker and sends it the agent's speech instead of the room. `aclose` sends the worker away.

    worker: the name that the workers were given with `--name`.
    """

    def __init__(self, worker: str = WORKER) -> None:
        super().__init__()
        self._worker = worker
        self._identity = utils.shortuuid("avatar-")

    @property
    def avatar_identity(self) -> str:
        return self._identity

    @property
    def provider(self) -> str:
        return "talkingmachines"

    async def start(self, agent_session: AgentSession, room: rtc.Room) -> None:
        """Before the session starts, inside of a job. `wait_for_join` then says whether a worker was free."""
        await super().start(agent_session, room)
        job = get_job_context()
        invitation = Invitation(job.local_participant_identity, self._identity)
        await job.api.agent_dispatch.create_dispatch(
            api.CreateAgentDispatchRequest(
                agent_name=self._worker, room=job.job.room.name, metadata=invitation.to_json()
            )
        )
        agent_session.output.replace_audio_tail(
            DataStreamAudioOutput(
                room,
                destination_identity=self._identity,
                sample_rate=SPEECH_RATE,
                wait_remote_track=rtc.TrackKind.KIND_VIDEO,
                wait_playback_start=True,
            )
        )
