"""Google's Gemini Live models: speech goes in, speech comes out."""

import asyncio
import time
from typing import Any

from google.genai.types import LiveConnectConfig, LiveServerMessage
from loguru import logger
from pipecat.frames.frames import LLMRunFrame
from pipecat.services.google.gemini_live.llm import CONNECTION_ESTABLISHED_THRESHOLD, GeminiLiveLLMService

from talkingmachines.conversation.options import CallOptions
from talkingmachines.conversation.voices.openai_realtime import HANG, PAUSES, conversation
from talkingmachines.conversation.voices.voice import Voice
from talkingmachines.errors import ConfigError

MODEL = "models/gemini-3.8-live"

SPEAKERS = ("Aoede", "Charon", "Fenrir", "Kore", "Leda", "Orus", "Puck", "Zephyr")


class LiveVoice(GeminiLiveLLMService):
    """Pipecat's service, which by itself would go on silently after it was refused, or cut in an answer, or hangs.

    This one ends the answer at hand, connects again, tells the new session what was said so far, and lets it answer if
    an answer is due. When that fails too often the service is unusable, which ends the call.
    """

    hang, pauses = HANG, PAUSES
    _patience: asyncio.Timeout

    async def _connection_task_handler(self, config: LiveConnectConfig) -> None:
        attempts = 0
        while True:
            self._connection_start_time = None
            try:
                async with asyncio.timeout(None) as self._patience:
                    return await super()._connection_task_handler(config)
            except TimeoutError:
                logger.warning("the voice service has said nothing for {:.0f} s", self.hang)
            except Exception as error:
                logger.warning("the connection to the voice service has failed: {}", error)
            # The service ends every connection after some minutes; that is none of the failures that are counted.
            began = self._connection_start_time
            if began and time.time() - began > CONNECTION_ESTABLISHED_THRESHOLD:
                attempts = 0
            if attempts == len(self.pauses):
                break
            await self._leave_session()
            await asyncio.sleep(self.pauses[attempts])
            attempts += 1
            logger.info("connecting to the voice service again, attempt {}", attempts)
        await self.push_error("the voice service cannot be reached any more", force_treat_as_permanent=True)

    async def _handle_server_message(self, message: LiveServerMessage) -> None:
        await super()._handle_server_message(message)
        content = message.server_content
        if content and (content.turn_complete or content.interrupted):
            self._expect(False)
        elif self._bot_is_responding or (content and content.input_transcription):
            self._expect(True)

    async def _create_initial_response(self, for_reconnect: bool = False) -> None:
        await super()._create_initial_response(for_reconnect)
        if self._session and self._inference_on_context_initialization:
            self._expect(True)

    def _expect(self, more: bool) -> None:
        """More of an answer should come soon, or none."""
        self._patience.reschedule(asyncio.get_running_loop().time() + self.hang if more else None)

    async def _handle_connection_error(self, error: Exception) -> bool:
        raise error  # to where connections are made again

    async def _leave_session(self) -> None:
        messages: list[Any] = list(self._context.get_messages()) if self._context else []
        due = self._bot_is_responding or bool(messages and messages[-1]["role"] == "user")
        self._session, self._session_resumption_handle = None, None
        self._ready_for_realtime_input = False
        self._inference_on_context_initialization |= due
        self._run_llm_when_session_ready |= due
        await self._handle_msg_turn_complete(LiveServerMessage())


def build(options: CallOptions) -> Voice:
    """Raises ConfigError without a key."""
    persona = options.persona
    if not options.key:
        raise ConfigError("the voice gemini-live needs a key: set GOOGLE_API_KEY")
    settings = GeminiLiveLLMService.Settings(model=MODEL, system_instruction=persona.character)
    if persona.voice in SPEAKERS:
        settings.voice = persona.voice
    service = LiveVoice(
        api_key=options.key, settings=settings, inference_on_context_initialization=bool(persona.greeting)
    )
    # The service hears nothing before it has been given a context, be it empty.
    return Voice(**{**conversation(options, service), "greeting": [LLMRunFrame()]}, stacks={"voice": MODEL})
