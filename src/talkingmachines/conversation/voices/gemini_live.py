"""Google's Gemini Live models: speech goes in, speech comes out. Pipecat's service connects again by itself."""

from pipecat.services.google.gemini_live.llm import GeminiLiveLLMService

from talkingmachines.conversation.options import CallOptions
from talkingmachines.conversation.voices.openai_realtime import conversation
from talkingmachines.conversation.voices.voice import Voice
from talkingmachines.errors import ConfigError

MODEL = "models/gemini-3.8-live"

SPEAKERS = ("Aoede", "Charon", "Fenrir", "Kore", "Leda", "Orus", "Puck", "Zephyr")


def build(options: CallOptions) -> Voice:
    """Raises ConfigError without a key."""
    persona = options.persona
    if not options.key:
        raise ConfigError("the voice gemini-live needs a key: set GOOGLE_API_KEY")
    settings = GeminiLiveLLMService.Settings(model=MODEL, system_instruction=persona.character)
    if persona.voice in SPEAKERS:
        settings.voice = persona.voice
    service = GeminiLiveLLMService(api_key=options.key, settings=settings)
    return Voice(**conversation(options, service), stacks={"voice": MODEL})
