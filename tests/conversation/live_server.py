"""A server that speaks the wire protocol of Gemini Live, on loopback, and misbehaves when told to.

Google's client speaks to TLS only, so this has a certificate of its own.
"""

import asyncio
import base64
import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.server import ServerConnection, serve

RATE = 24_000
LOUD = 300
PAUSE = 0.2
"""Seconds of silence after which a turn of the user is over."""


@dataclass
class Behaviour:
    """delay: seconds before each message; split: whether messages come in fragments of a few bytes; cut_after: pieces
    of sound after which the connection is cut; hang_after: those after which nothing more comes; politely: closes by
    the book instead; error: closes with that reason when a session is set up.
    """

    delay: float = 0.0
    split: bool = False
    cut_after: int | None = None
    hang_after: int | None = None
    politely: bool = False
    error: str = ""


@dataclass
class Session:
    """One connection. heard: its messages but for sound; sound: int16 pieces."""

    socket: ServerConnection
    behaviour: Behaviour
    heard: list[dict[str, Any]] = field(default_factory=list)
    sound: list[np.ndarray] = field(default_factory=list)
    speaking: bool = False
    quiet: float = 0.0
    answer: "asyncio.Task[None] | None" = None

    async def send(self, **message: Any) -> None:
        await asyncio.sleep(self.behaviour.delay)
        data = json.dumps(message).encode()
        size = max(7, len(data) // 5) if self.behaviour.split else len(data)
        await self.socket.send([data[start : start + size] for start in range(0, len(data), size)])

    async def content(self, **content: Any) -> None:
        await self.send(serverContent=content)


@dataclass
class LiveServer:
    """behaviours: of the first connections, one each; later ones behave. transcript: of whatever the user says."""

    answer: np.ndarray
    folder: Path
    behaviours: list[Behaviour] = field(default_factory=list)
    transcript: str = "And you?"
    sessions: list[Session] = field(default_factory=list)
    url: str = ""
    refuse: bool = False

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["LiveServer"]:
        key = self.folder / "key.pem"
        _write_certificate(self.certificate, key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        async with serve(self._talk, "127.0.0.1", 0, ssl=context, process_request=self._refuse) as server:
            self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    def _refuse(self, connection: ServerConnection, request: Any) -> Any:
        if self.refuse:
            return connection.respond(503, "later\n")
        wanted = request.path.endswith(".GenerativeService.BidiGenerateContent")
        return None if wanted and request.headers["x-goog-api-key"] else connection.respond(404, "what?\n")

    async def _talk(self, socket: ServerConnection) -> None:
        number = len(self.sessions)
        behaviour = self.behaviours[number] if number < len(self.behaviours) else Behaviour()
        session = Session(socket, behaviour)
        self.sessions.append(session)
        async for message in socket:
            event = json.loads(message)
            sound = event.get("realtime_input", {}).get("audio")
            if sound:
                await self._hear(session, sound)
                continue
            session.heard.append(event)
            if "setup" in event and behaviour.error:
                await socket.close(1007, behaviour.error)
            elif "setup" in event:
                await session.send(setupComplete={})
            elif event.get("realtime_input", {}).get("text"):
                # What comes before, as content, is answered only now.
                self._begin_answer(session)
        if session.answer:
            session.answer.cancel()

    async def _hear(self, session: Session, sound: dict[str, str]) -> None:
        """The server's own voice activity detection."""
        assert sound["mime_type"] == "audio/pcm;rate=16000"
        samples = np.frombuffer(base64.urlsafe_b64decode(sound["data"]), "<i2")
        session.sound.append(samples)
        if np.abs(samples.astype(int)).max() > LOUD:
            session.speaking, session.quiet = True, 0.0
            if session.answer and not session.answer.done():
                session.answer.cancel()
                await session.content(interrupted=True)
                await session.content(turnComplete=True)
            return
        session.quiet += len(samples) / 16_000
        if session.speaking and session.quiet > PAUSE:
            session.speaking = False
            for word in self.transcript.split():
                await session.content(inputTranscription={"text": f" {word}"})
            self._begin_answer(session)

    def _begin_answer(self, session: Session) -> None:
        session.answer = asyncio.create_task(self._answer(session))

    async def _answer(self, session: Session) -> None:
        for index, piece in enumerate(np.array_split(self.answer, 8)):
            if session.behaviour.cut_after == index:
                await (session.socket.close() if session.behaviour.politely else _cut(session.socket))
                return
            if session.behaviour.hang_after == index:
                return
            data = base64.b64encode(piece.astype("<i2").tobytes()).decode()
            sound = {"mimeType": f"audio/pcm;rate={RATE}", "data": data}
            await session.content(modelTurn={"role": "model", "parts": [{"inlineData": sound}]})
            await session.content(outputTranscription={"text": f"w{index} "})
        await session.content(generationComplete=True)
        await session.send(serverContent={"turnComplete": True}, usageMetadata={"totalTokenCount": 8})
        await session.send(sessionResumptionUpdate={"newHandle": f"handle-{len(self.sessions)}", "resumable": True})


async def _cut(socket: ServerConnection) -> None:
    socket.transport.abort()
    await asyncio.sleep(0)


def _write_certificate(certificate: Path, key: Path) -> None:
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "live")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    secret_format = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, *secret_format))
