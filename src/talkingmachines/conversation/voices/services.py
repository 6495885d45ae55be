"""Models that run here as Pipecat's services. Nothing of them runs on the event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import numpy as np
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADState
from pipecat.frames.frames import (
    AggregatedTextFrame,
    ErrorFrame,
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings, STTSettings, TTSSettings
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.utils.text.base_text_aggregator import TextType
from pipecat.utils.text.transforms import strip_markdown
from pipecat.utils.time import time_now_iso8601

from talkingmachines.conversation.pcm import from_bytes, to_bytes
from talkingmachines.conversation.voices.clauses import clauses
from talkingmachines.conversation.voices.language import Message, Reply
from talkingmachines.conversation.voices.recognition import Recognise
from talkingmachines.conversation.voices.speech import Speak
from talkingmachines.conversation.voices.streams import Begun
from talkingmachines.types import SAMPLE_RATE

_SLOWEST = 2.0
"""Seconds after the end of speech in which nearly every transcript is there."""


_PAUSE = 0.08
"""Seconds of silence after which what was said may be all. A turn is over after 0.2."""


class PauseAnalyzer(SileroVADAnalyzer):
    """Voice activity that also tells of pauses, before it is known whether the user has finished.

    paused: called on the event loop with True _PAUSE after speech, and with False when speech goes on.
    """

    def __init__(self, paused: Callable[[bool], None]) -> None:
        super().__init__()
        self._paused, self._silence = paused, 0

    async def analyze_audio(self, buffer: bytes) -> VADState:
        state = await super().analyze_audio(buffer)
        before, enough = self._silence, 2 * _PAUSE * self.sample_rate
        self._silence = before + len(buffer) if state is VADState.STOPPING else 0
        if before < enough <= self._silence:
            self._paused(True)
        elif state is VADState.SPEAKING and before >= enough:
            self._paused(False)
        return state


class LocalRecognition(SegmentedSTTService):
    """What was said between two pauses, as text; recognised while it is still being found out whether that was all.

    expect: called on the event loop with that text as soon as it is there, and with None when speech goes on.
    """

    def __init__(self, recognise: Recognise, name: str, expect: Callable[[str | None], None] | None = None) -> None:
        settings = STTSettings(model=name, language=None)
        super().__init__(sample_rate=SAMPLE_RATE, ttfs_p99_latency=_SLOWEST, settings=settings)
        self._recognise, self._expect = recognise, expect or (lambda text: None)
        self._begun: tuple[bytes, asyncio.Future[str]] | None = None

    def paused(self, paused: bool) -> None:
        """See PauseAnalyzer: begins with what was said so far, or forgets it."""
        self._expect(None)
        said = bytes(self._audio_buffer)
        self._begun = (said, self._recognised(said + self._trailing_silence())) if paused else None
        if self._begun:
            self._begun[1].add_done_callback(self._guessed)

    def _guessed(self, text: asyncio.Future[str]) -> None:
        if not text.cancelled() and not text.exception() and self._begun and self._begun[1] is text:
            self._expect(text.result().strip())

    def _recognised(self, audio: bytes) -> asyncio.Future[str]:
        return asyncio.get_running_loop().run_in_executor(None, self._recognise, from_bytes(audio))

    @property
    def wants_wav_segments(self) -> bool:
        return False

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        await self.start_processing_metrics()
        # What has begun may be of the next segment, where recognition is slower than speech.
        begun = self._begun if self._begun and audio.startswith(self._begun[0]) else None
        said = (await (begun[1] if begun else self._recognised(audio))).strip()
        if begun and self._begun is begun:
            self._begun = None
        await self.stop_processing_metrics()
        if said:
            yield TranscriptionFrame(said, self._user_id, time_now_iso8601())


class LocalLanguage(LLMService):
    """An answer to the conversation so far, in parts to be spoken: handing on every token takes a core, too.

    context: of the conversation, where answers may be begun before they are asked for, see `expect`.
    """

    def __init__(self, reply: Reply, name: str, system: str, context: LLMContext | None = None) -> None:
        unused: dict[str, Any] = dict.fromkeys(_UNUSED)
        settings = LLMSettings(model=name, system_instruction=system, **unused)
        settings.filter_incomplete_user_turns = False
        super().__init__(settings=settings)
        self._reply, self._system, self._context = reply, system, context or LLMContext()
        self._begun: tuple[list[Message], Begun[str]] | None = None

    def expect(self, said: str | None) -> None:
        """The user may have finished with these words: begins to answer. Or goes on (None): forgets that."""
        if self._begun:
            self._begun[1].stop()
            self._begun = None
        if said:
            messages = [*self._messages(self._context), {"role": "user", "content": said}]
            self._begun = messages, self._begin(messages)

    async def cleanup(self) -> None:
        self.expect(None)
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            await self._answer(frame.context)
        except Exception as error:
            await self.push_error(f"the language model failed: {error}", error)
        finally:
            await self.push_frame(LLMFullResponseEndFrame())

    async def _answer(self, context: LLMContext) -> None:
        messages = self._messages(context)
        begun, self._begun = self._begun, None
        if begun and begun[0] != messages:
            begun[1].stop()
            begun = None
        await self.start_processing_metrics()
        await self.start_ttfb_metrics()
        async for clause in (begun[1] if begun else self._begin(messages)).items():
            await self.stop_ttfb_metrics()
            await self.push_frame(AggregatedTextFrame(clause, TextType.SENTENCE))
        await self.stop_processing_metrics()

    def _begin(self, messages: list[Message]) -> Begun[str]:
        return Begun(lambda stopped: clauses(self._reply(messages, stopped)))

    def _messages(self, context: LLMContext) -> list[Message]:
        return [{"role": "system", "content": self._system}, *_messages(context)]


_UNUSED = (
    "temperature",
    "max_tokens",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "user_turn_completion_config",
)


def _messages(context: LLMContext) -> list[Message]:
    """What was said; pictures, tools and instructions from elsewhere are beyond a small model."""
    found = []
    for message in context.get_messages():
        if isinstance(message, dict) and message.get("role") in {"user", "assistant"}:
            content = message.get("content")
            if isinstance(content, str) and content:
                found.append({"role": str(message["role"]), "content": content})
    return found


class LocalSpeech(TTSService):
    """A sentence as sound, bit by bit, at whatever rate the voice has."""

    def __init__(self, speak: Speak, name: str, voice: str) -> None:
        super().__init__(
            push_start_frame=True,
            push_stop_frames=True,
            text_transforms=[("*", strip_markdown)],
            settings=TTSSettings(model=name, voice=voice, language=None),
        )
        self._speak, self._voice = speak, voice

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        try:
            async for samples, rate in Begun(lambda _: self._say(text)).items():
                await self.stop_ttfb_metrics()
                yield TTSAudioRawFrame(to_bytes(samples), rate, 1, context_id=context_id)
        except Exception as error:
            logger.error("the voice cannot say {!r}: {}", text, error)
            yield ErrorFrame(f"the voice failed: {error}")
        finally:
            await self.stop_ttfb_metrics()

    def _say(self, text: str) -> Iterator[tuple[np.ndarray, int]]:
        if any(letter.isalnum() for letter in text):
            yield from self._speak(text, self._voice)
        else:
            yield np.zeros(SAMPLE_RATE // 5, np.float32), SAMPLE_RATE
