"""The example for Pipecat is run, so that it stays true."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from call_parts import SHAPE, Painter, load_example
from fake_transport import FakeTransport
from PIL import Image
from pipecat.runner.types import SmallWebRTCRunnerArguments
from test_run_call import until
from test_spoken_calls import ModelServer, question

import talkingmachines as tm


def test_the_pipecat_bot_answers_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its services speak to a server on loopback; the character paints."""
    Image.new("RGB", (64, 64)).save(tmp_path / "face.png")
    transport = FakeTransport(SHAPE)
    monkeypatch.setenv("PICTURE", str(tmp_path / "face.png"))
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    monkeypatch.setattr(tm, "load", lambda preset: Painter())
    example = load_example("pipecat_bot")
    monkeypatch.setattr(example, "AvatarWebRTCTransport", lambda connection, shape: transport)

    async def whole() -> ModelServer:
        async with ModelServer().running() as server, asyncio.timeout(60), asyncio.TaskGroup() as group:
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            group.create_task(example.bot(SmallWebRTCRunnerArguments(webrtc_connection=None)))
            await transport.come()
            await transport.say(question())
            await until(lambda: np.count_nonzero(transport.heard) > 2 * 3900)
            await asyncio.sleep(1)
            await transport.leave()
            return server

    server = asyncio.run(whole())
    (asked,) = server.requests
    roles = [(message["role"], message["content"]) for message in asked["messages"]]
    assert roles[0][0] == "system" and roles[0][1].startswith("You are Nova.")
    assert roles[1:] == [("user", "What is the capital of France?")]
    assert server.spoken == ["Paris, of course.", "It is lovely."]
    assert np.count_nonzero(transport.heard) < 2 * 4200, "6000 samples of 24 kHz a sentence take as long at 16 kHz"
    assert len(transport.screen.shown) > 25, "it is seen"
