"""A server without WebRTC and without models, and a model that only shows how loud it is."""

import asyncio
import io
from typing import Any

import numpy as np
from PIL import Image

from talkingmachines.server.app import build_app
from talkingmachines.server.config import ServerConfig
from talkingmachines.types import SAMPLES_PER_FRAME, VideoFrame

SIZE = 64
SHAPE = SIZE, SIZE
CHARACTER = {"character": "character:red-scarf"}
OFFER = {"type": "offer", "sdp": "v=0"}


class FakeConnection:
    def __init__(self) -> None:
        self.connected, self.closed = True, False

    def is_connected(self) -> bool:
        return self.connected

    async def disconnect(self) -> None:
        self.closed = True


class FakeSignalling:
    """Answers everything but "bad"; each restart is a new name for the same connection."""

    def __init__(self) -> None:
        self.connection, self.answers, self.found = None, 0, []

    async def offer(self, offer: dict[str, Any], connected: Any) -> dict[str, str]:
        if offer["sdp"] == "bad":
            raise ValueError("no such line")
        self.answers += 1
        if self.connection is None:
            self.connection = FakeConnection()
            await connected(self.connection)
        return {"type": "answer", "sdp": "v=0", "pc_id": f"pc-{self.answers}"}

    async def candidates(self, candidates: list[dict[str, Any]]) -> None:
        if any("candidate" not in candidate for candidate in candidates):
            raise KeyError("candidate")
        self.found += candidates


class BrightWhenLoud:
    """A session whose picture is as bright as its sound is loud."""

    samples_ahead = 0

    def __init__(self):
        self.samples_wanted, self._left = 9 * SAMPLES_PER_FRAME, np.zeros(0, np.float32)

    def denoise(self, pcm, coming):
        self.samples_wanted = 12 * SAMPLES_PER_FRAME
        return pcm

    def decode(self, pcm):
        loud = np.abs(pcm.reshape(-1, SAMPLES_PER_FRAME)).mean(axis=1)
        return [VideoFrame(np.full((SIZE, SIZE, 3), min(255, 1500 * x), np.uint8), 0.0) for x in loud]

    def interrupt(self):
        pass

    def close(self):
        pass


class FakeModel:
    shape = SHAPE

    def session(self, image, seed=0, *, face_box=None):
        return BrightWhenLoud()


async def wait_for_ever(connection: Any, call: Any) -> None:
    """A call that goes on until it is ended."""
    await asyncio.Event().wait()


def fake_app(
    make_call: Any = wait_for_ever,
    make_signalling: Any = FakeSignalling,
    shape: tuple[int, int] = SHAPE,
    fit: Any = None,
    **config: Any,
) -> Any:
    return build_app(ServerConfig(**config), make_call, make_signalling, shape, name="Nova", voice="echo", fit=fit)


def png(width: int = 80, height: int = 60) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()
