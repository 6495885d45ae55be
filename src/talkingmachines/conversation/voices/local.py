"""A voice on this machine: voice activity and end of turn (Pipecat's own), recognition, language model, speech."""

import itertools
from typing import Any

from openai import AsyncStream
from openai.types.chat import ChatCompletionChunk
from pipecat.frames.frames import Frame, TTSSpeakFrame
from pipecat.processors.aggregators.llm_context import LLMContext, LLMContextMessage, LLMSpecificMessage
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.services.llm_service import LLMService
from pipecat.services.openai.llm import OpenAILLMService

from talkingmachines.conversation.options import CallOptions
from talkingmachines.conversation.voices.fallback import first_that_works
from talkingmachines.conversation.voices.language import REPLIERS
from talkingmachines.conversation.voices.recognition import RECOGNISERS
from talkingmachines.conversation.voices.services import (
    LocalLanguage,
    LocalRecognition,
    LocalSpeech,
    PauseAnalyzer,
)
from talkingmachines.conversation.voices.speech import PLAIN, SPEAKERS
from talkingmachines.conversation.voices.voice import Voice

_KNOWN = "You are a helpful AI assistant named {name}. {character}"
"""A small model keeps to its name and to English when it is told who it is in the words that it was trained with."""

REMEMBERED = 40
"""Messages that a server is told, of all that was said: a long call would be more than it can read."""

LONGEST = 120
"""Tokens of an answer from a server: a minute of talk is no conversation."""


def build(options: CallOptions) -> Voice:
    persona = options.persona
    hearing, recognise = first_that_works("recognition", RECOGNISERS)
    context = LLMContext()
    thinking, llm = _language(options, context)
    speaking, speak = first_that_works("voice", SPEAKERS)
    recognition = LocalRecognition(recognise, hearing, llm.expect if isinstance(llm, LocalLanguage) else None)
    # A noise that is no words is nothing to be answered: pipecat would ask by a role that not every server knows.
    listening = LLMUserAggregatorParams(vad_analyzer=PauseAnalyzer(recognition.paused), empty_user_turn=None)
    user, assistant = LLMContextAggregatorPair(context, user_params=listening)
    greeting: list[Frame] = [TTSSpeakFrame(persona.greeting)] if persona.greeting else []
    return Voice(
        before=[
            recognition,
            user,
            llm,
            LocalSpeech(speak, speaking, persona.voice or PLAIN),
        ],
        after=[assistant],
        greeting=greeting,
        stacks={"recognition": hearing, "language model": thinking, "voice": speaking},
    )


def _language(options: CallOptions, context: LLMContext) -> tuple[str, LLMService[Any]]:
    """The model of this machine, or that of a server that speaks OpenAI's protocol."""
    persona = options.persona
    if not options.llm_url or not options.llm_model:
        name, reply = first_that_works("language model", REPLIERS)
        character = _KNOWN.format(name=persona.name, character=persona.character)
        return name, LocalLanguage(reply, name, character, context)
    settings = OpenAILLMService.Settings(
        model=options.llm_model, system_instruction=persona.character, max_tokens=LONGEST, temperature=0.7
    )
    # Servers of one's own want no key, but the client insists on one.
    service = ServedLanguage(base_url=options.llm_url, api_key=options.key or "none", settings=settings)
    return options.llm_model, service


def _no_users(message: LLMContextMessage) -> bool:
    return isinstance(message, LLMSpecificMessage) or message["role"] != "user"


class ServedLanguage(OpenAILLMService):
    """A language model on a server, which remembers the last REMEMBERED messages."""

    async def get_chat_completions(self, context: LLMContext) -> AsyncStream[ChatCompletionChunk]:
        messages = context.messages
        if len(messages) > REMEMBERED:
            # Some models refuse a conversation that a user does not begin.
            context = LLMContext(list(itertools.dropwhile(_no_users, messages[-REMEMBERED:])))
        return await super().get_chat_completions(context)
