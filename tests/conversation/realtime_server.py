"""A server that speaks the wire protocol of OpenAI Realtime, on loopback, and misbehaves when told to."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection, serve

RATE = 24_000


@dataclass
class Behaviour:
    """delay: seconds before each event; split: whether messages come in fragments of a few bytes; cut_after: pieces
    of sound after which the connection is cut; hang_after: those after which nothing more comes; garbled_after:
    those after which one comes without its sound; politely: closes by the book instead; error: sent instead of an
    answer.
    """

    delay: float = 0.0
    split: bool = False
    cut_after: int | None = None
    hang_after: int | None = None
    garbled_after: int | None = None
    politely: bool = False
    error: str | None = None


@dataclass
class RealtimeServer:
    """behaviours: of the first connections, one each; later ones behave. heard: every event of the clients."""

    answer: np.ndarray
    behaviours: list[Behaviour] = field(default_factory=list)
    heard: list[list[dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self._ids = itertools.count()
        self._sockets: list[ServerConnection] = []
        self.refuse = False

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for events in self.heard for event in events if event["type"] == kind]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["RealtimeServer"]:
        async with serve(self._talk, "127.0.0.1", 0, process_request=self._refuse) as server:
            self.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/realtime"
            yield self

    def _refuse(self, connection: ServerConnection, request: Any) -> Any:
        return connection.respond(503, "later\n") if self.refuse else None

    async def user_speaks(self, text: str) -> None:
        """The server's own voice activity detection: a turn of the user begins and ends, and is answered."""
        socket, behaviour = self._sockets[-1], self._behaviour(len(self._sockets) - 1)
        await self._send(socket, behaviour, "input_audio_buffer.speech_started", audio_start_ms=0, item_id="user")
        await asyncio.sleep(0.1)
        await self._send(socket, behaviour, "input_audio_buffer.speech_stopped", audio_end_ms=100, item_id="user")
        kind = "conversation.item.input_audio_transcription.completed"
        await self._send(socket, behaviour, kind, item_id="user", content_index=0, transcript=text)
        await self._answer(socket, behaviour)

    async def user_begins(self) -> None:
        """The user speaks up, in the middle of an answer perhaps."""
        event = {"audio_start_ms": 0, "item_id": "user"}
        await self._send(self._sockets[-1], Behaviour(), "input_audio_buffer.speech_started", **event)

    def _behaviour(self, number: int) -> Behaviour:
        return self.behaviours[number] if number < len(self.behaviours) else Behaviour()

    async def _talk(self, socket: ServerConnection) -> None:
        number = len(self._sockets)
        self._sockets.append(socket)
        self.heard.append([])
        self.headers.append(dict(socket.request.headers.raw_items()))
        behaviour = self._behaviour(number)
        await self._send(socket, behaviour, "session.created", session={})
        answers: list[asyncio.Task[None]] = []
        async for message in socket:
            event = json.loads(message)
            self.heard[number].append(event)
            if event["type"] == "session.update":
                await self._send(socket, behaviour, "session.updated", session={})
            elif event["type"] == "response.create":
                answers.append(asyncio.create_task(self._answer(socket, behaviour)))
        for answer in answers:
            answer.cancel()

    async def _answer(self, socket: ServerConnection, behaviour: Behaviour) -> None:
        if behaviour.error:
            error = {"type": "server_error", "code": "broken", "message": behaviour.error}
            await self._send(socket, behaviour, "error", error=error)
            return
        name = f"response-{next(self._ids)}"
        place = {"response_id": name, "item_id": f"{name}-item", "output_index": 0, "content_index": 0}
        await self._send(socket, behaviour, "response.created", response={"id": name, "status": "in_progress"})
        item = {"id": place["item_id"], "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        await self._send(socket, behaviour, "conversation.item.added", item=item)
        pieces = np.array_split(self.answer, 8)
        for index, piece in enumerate(pieces):
            if behaviour.cut_after == index:
                await (socket.close() if behaviour.politely else _cut(socket))
                return
            if behaviour.hang_after == index:
                return
            if behaviour.garbled_after == index:
                await self._send(socket, behaviour, "response.output_audio.delta", response_id=name)
            sound = base64.b64encode(piece.astype("<i2").tobytes()).decode()
            await self._send(socket, behaviour, "response.output_audio.delta", delta=sound, **place)
            await self._send(socket, behaviour, "response.output_audio_transcript.delta", delta=f"w{index} ", **place)
        await self._send(socket, behaviour, "response.output_audio.done", **place)
        await self._send(socket, behaviour, "response.done", response={"id": name, "status": "completed", "output": []})

    async def _send(self, socket: ServerConnection, behaviour: Behaviour, kind: str, **content: Any) -> None:
        await asyncio.sleep(behaviour.delay)
        message = json.dumps({"event_id": f"event-{next(self._ids)}", "type": kind, **content})
        if behaviour.split:
            size = max(7, len(message) // 5)
            await socket.send([message[start : start + size] for start in range(0, len(message), size)])
        else:
            await socket.send(message)


async def _cut(socket: ServerConnection) -> None:
    socket.transport.abort()
    await asyncio.sleep(0)
