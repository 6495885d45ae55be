"""OpenAI's Realtime models, and servers that speak their protocol: speech goes in, speech comes out."""

import asyncio
from typing import Any

from loguru import logger
from pipecat.frames.frames import Frame, LLMFullResponseEndFrame, LLMRunFrame, TTSStoppedFrame
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService

from talkingmachines.conversation.options import CallOptions
from talkingmachines.conversation.voices.voice import Voice
from talkingmachines.errors import ConfigError

MODEL = "gpt-realtime-2.1"

SPEAKERS = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")

PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each attempt to connect again. An answer that was heard to its end starts them anew."""

HANG = 8.0
"""Seconds of silence in the middle of an answer after which nothing more is expected of a connection."""


class RealtimeVoice(OpenAIRealtimeLLMService):
    """Pipecat's service, which by itself would go on silently after its connection was cut or hangs.

    This one ends the answer at hand, connects again, tells the new session what was said so far, and lets it answer if
    it was cut in an answer. When that fails too often the service is unusable, which ends the call.
    """

    hang, pauses = HANG, PAUSES

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._attempts = 0
        self._watch: asyncio.TimerHandle | None = None
        self._rescue: asyncio.Task[None] | None = None
        self._ended = False

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]
        await super().setup(setup)
        if not self._websocket and self.is_usable:
            self._lost()

    async def _disconnect(self) -> None:
        self._expect(False)
        await super()._disconnect()

    async def cleanup(self) -> None:
        self._ended = True
        if self._rescue:
            await self.cancel_task(self._rescue)
            self._rescue = None
        await super().cleanup()

    async def _receive_task_handler(self) -> None:
        try:
            await super()._receive_task_handler()
        except Exception as error:  # cut, or an event that pipecat does not know how to read
            logger.warning("the connection to the voice service was cut: {}", error)
        self._lost()

    def _lost(self) -> None:
        if self._disconnecting or self._ended or (self._rescue and not self._rescue.done()):
            return
        self._rescue = self.create_task(self._connect_again())

    async def _connect_again(self) -> None:
        answering = self._response_active or self._watch is not None
        await self._end_answer()
        await self._disconnect()
        self._llm_needs_conversation_setup = True
        while self._attempts < len(self.pauses):
            pause, self._attempts = self.pauses[self._attempts], self._attempts + 1
            await asyncio.sleep(pause)
            logger.info("connecting to the voice service again, attempt {}", self._attempts)
            self._run_llm_when_api_session_ready |= answering and self._context is not None
            await self._connect()
            if self._websocket or not self.is_usable:
                return
        await self.push_error("the voice service cannot be reached any more", force_treat_as_permanent=True)

    async def _end_answer(self) -> None:
        if self._current_audio_response:
            self._current_audio_response = None
            await self.push_frame(TTSStoppedFrame())
        if self._response_active:
            await self.push_frame(LLMFullResponseEndFrame())
        self._current_assistant_response = None

    async def _handle_evt_session_updated(self, evt: Any) -> None:
        await super()._handle_evt_session_updated(evt)
        if self._attempts and self._llm_needs_conversation_setup and self._context:
            parameters = await self.get_llm_adapter().get_llm_invocation_params(self._context)
            for item in parameters["messages"]:
                event = events.ConversationItemCreateEvent(item=item)
                self._messages_added_manually[event.item.id] = True
                await self.send_client_event(event)
            self._llm_needs_conversation_setup = False

    async def _handle_evt_speech_started(self, evt: Any) -> None:
        self._expect(False)
        await super()._handle_evt_speech_started(evt)

    async def _handle_evt_speech_stopped(self, evt: Any) -> None:
        self._expect(True)
        await super()._handle_evt_speech_stopped(evt)

    async def _handle_evt_response_created(self, evt: Any) -> None:
        self._expect(True)
        await super()._handle_evt_response_created(evt)

    async def _handle_evt_audio_delta(self, evt: Any) -> None:
        self._expect(True)
        await super()._handle_evt_audio_delta(evt)

    async def _handle_evt_response_done(self, evt: Any) -> None:
        self._expect(False)
        self._attempts = 0
        await super()._handle_evt_response_done(evt)

    def _expect(self, more: bool) -> None:
        """More of an answer should come soon, or none."""
        if self._watch:
            self._watch.cancel()
        self._watch = asyncio.get_running_loop().call_later(self.hang, self._hangs) if more else None

    def _hangs(self) -> None:
        logger.warning("the voice service has said nothing for {:.0f} s", self.hang)
        self._lost()


def build(options: CallOptions) -> Voice:
    """Raises ConfigError without a key, which servers of one's own may not need."""
    persona = options.persona
    if not options.key and not options.realtime_url:
        raise ConfigError("the voice openai-realtime needs a key: set OPENAI_API_KEY")
    speaker = persona.voice if persona.voice in SPEAKERS else None
    session = events.SessionProperties(
        audio=events.AudioConfiguration(
            input=events.AudioInput(transcription=events.InputAudioTranscription()),
            output=events.AudioOutput(voice=speaker),
        )
    )
    settings = RealtimeVoice.Settings(model=MODEL, system_instruction=persona.character, session_properties=session)
    address = {"base_url": options.realtime_url} if options.realtime_url else {}
    service = RealtimeVoice(api_key=options.key or "none", settings=settings, **address)
    return Voice(**conversation(options, service), stacks={"voice": MODEL})


def conversation(options: CallOptions, service: Any) -> dict[str, Any]:
    """What every speech-to-speech model is surrounded with."""
    greeting = options.persona.greeting
    opening = f"Greet me with these words: {greeting}" if greeting else ""
    context = LLMContext([{"role": "user", "content": opening}] if opening else [])
    user, assistant = LLMContextAggregatorPair(context)
    run: list[Frame] = [LLMRunFrame()] if opening else []
    return {"before": [user, service], "after": [assistant], "greeting": run}
