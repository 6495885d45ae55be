"""A LiveKit room in memory, as far as avatars and their agents use it; and a LiveKit server for workers."""

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace

from aiohttp import WSMsgType, web
from livekit import rtc
from livekit.protocol import agent


class Place:
    """Where rooms of the same name meet. unheard: how many publications nobody subscribes to yet."""

    def __init__(self) -> None:
        self.rooms: dict[str, FakeRoom] = {}
        self.subscribed = asyncio.Event()
        self.subscribed.set()

    def join(self, identity: str) -> "FakeRoom":
        room = FakeRoom(self, identity)
        self.rooms[identity] = room
        for other in self.others(identity):
            other.emit("participant_active", room.participant)
        return room

    def leave(self, identity: str) -> None:
        gone = self.rooms.pop(identity)
        for other in self.rooms.values():
            other.emit("participant_disconnected", gone.participant)

    def others(self, identity: str) -> "list[FakeRoom]":
        return [room for name, room in self.rooms.items() if name != identity]


class FakeRoom(rtc.EventEmitter):
    """What one participant sees."""

    name = "kitchen"

    def __init__(self, place: Place, identity: str) -> None:
        super().__init__()
        self._place = place
        self.streams: dict[str, Callable] = {}
        self.participant = SimpleNamespace(
            identity=identity,
            kind=rtc.ParticipantKind.PARTICIPANT_KIND_AGENT,
            state=rtc.ParticipantState.PARTICIPANT_STATE_ACTIVE,
            track_publications={},
        )
        self.local_participant = FakeLocal(place, self)

    def isconnected(self) -> bool:
        return True

    @property
    def remote_participants(self) -> dict:
        return {room.participant.identity: room.participant for room in self._place.others(self.participant.identity)}

    def register_byte_stream_handler(self, topic: str, handler: Callable) -> None:
        assert topic not in self.streams
        self.streams[topic] = handler


class FakeLocal:
    def __init__(self, place: Place, room: FakeRoom) -> None:
        self._place, self._room, self._rpc_handlers = place, room, {}
        self.identity = room.participant.identity

    def register_rpc_method(self, name: str, handler: Callable) -> None:
        self._rpc_handlers[name] = handler

    async def perform_rpc(self, *, destination_identity: str, method: str, payload: str) -> str:
        await asyncio.sleep(0)
        handler = self._place.rooms[destination_identity].local_participant._rpc_handlers[method]
        return handler(rtc.RpcInvocationData("1", self.identity, payload, 10))

    async def publish_track(self, track: rtc.LocalTrack, options: rtc.TrackPublishOptions) -> SimpleNamespace:
        publication = SimpleNamespace(
            kind=track.kind, name=track.name, wait_for_subscription=self._place.subscribed.wait
        )
        self._room.participant.track_publications[track.name] = publication
        for other in self._place.others(self.identity):
            other.emit("track_published", publication, self._room.participant)
        return publication

    async def stream_bytes(
        self, name: str, topic: str, destination_identities: list[str], attributes: dict[str, str]
    ) -> "FakeStream":
        stream = FakeStream(attributes)
        for identity in destination_identities:
            self._place.rooms[identity].streams[topic](stream, self.identity)
        return stream


class FakeStream:
    """Both ends of a byte stream."""

    def __init__(self, attributes: dict[str, str]) -> None:
        self.info = SimpleNamespace(attributes=attributes, stream_id="1")
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def write(self, data: bytes) -> None:
        self._pieces.put_nowait(data)

    async def aclose(self) -> None:
        self._pieces.put_nowait(None)

    def __aiter__(self) -> "FakeStream":
        return self

    async def __anext__(self) -> bytes:
        piece = await self._pieces.get()
        if piece is None:
            raise StopAsyncIteration
        return piece


class FakeServer:
    """Speaks the worker's protocol: what it was told, and jobs that it offers."""

    def __init__(self) -> None:
        self.registered: agent.RegisterWorkerRequest | None = None
        self.told: list[tuple[float, agent.WorkerMessage]] = []
        self._changed = asyncio.Condition()
        self._socket: web.WebSocketResponse | None = None

    async def start(self) -> str:
        """Its address."""
        app = web.Application()
        app.router.add_get("/agent", self._serve)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"ws://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        await self._runner.cleanup()

    async def offer(self, name: str, metadata: str) -> agent.AvailabilityResponse:
        """Offers a job, and assigns it when the worker wants it."""
        job = agent.Job(id=name, type=agent.JobType.JT_ROOM, metadata=metadata)
        job.room.name = "kitchen"
        message = agent.ServerMessage()
        message.availability.job.CopyFrom(job)
        await self._send(message)
        answer = (await self.wait(lambda told: told.availability.job_id == name)).availability
        if answer.available:
            message = agent.ServerMessage()
            message.assignment.job.CopyFrom(job)
            message.assignment.token = "token"
            await self._send(message)
            await self.wait(lambda told: told.update_job.job_id == name)
        return answer

    async def wait(self, wanted: Callable[[agent.WorkerMessage], bool], since: float = 0) -> agent.WorkerMessage:
        """The first message that is wanted."""

        def found() -> list[agent.WorkerMessage]:
            return [told for at, told in self.told if at >= since and wanted(told)]

        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(found), 20)
        return found()[0]

    async def _send(self, message: agent.ServerMessage) -> None:
        assert self._socket
        await self._socket.send_bytes(message.SerializeToString())

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        assert request.headers["Authorization"].startswith("Bearer ")
        self._socket = socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for received in socket:
            assert received.type == WSMsgType.BINARY
            message = agent.WorkerMessage.FromString(received.data)
            async with self._changed:
                if message.HasField("register"):
                    self.registered = message.register
                    answer = agent.ServerMessage()
                    answer.register.worker_id = "worker"
                    await self._send(answer)
                self.told.append((time.monotonic(), message))
                self._changed.notify_all()
        return socket
