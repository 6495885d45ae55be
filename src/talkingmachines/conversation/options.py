"""What a call is made with."""

from dataclasses import dataclass, field

from talkingmachines.conversation.persona import Persona, load_persona


@dataclass(frozen=True)
class CallOptions:
    """voice: a name in VOICES; key: of the service behind the voice, if it wants one; llm_url and llm_model: a server
    that speaks OpenAI's protocol, for the voice "local"; realtime_url: a server that speaks OpenAI's Realtime protocol,
    for the voice "openai-realtime"; seed: of the avatar; call_id: for logs and metrics, drawn when empty.
    """

    persona: Persona = field(default_factory=load_persona)
    voice: str = "local"
    key: str | None = field(default=None, repr=False)
    llm_url: str | None = None
    llm_model: str | None = None
    realtime_url: str | None = None
    seed: int = 0
    call_id: str = ""
