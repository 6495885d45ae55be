"""What a call is made with."""

from dataclasses import dataclass, field

from talkingmachines.conversation.persona import Persona, load_persona
from talkingmachines.errors import ConfigError


@dataclass(frozen=True)
class CallOptions:
    """voice: a name in VOICES; key: of the service behind the voice, if it wants one; llm_url and llm_model: a server
    that speaks OpenAI's protocol, for the voice "local"; realtime_url: a server that speaks OpenAI's Realtime protocol,
    for the voice "openai-realtime"; seed: of the avatar; call_id: for logs and metrics, drawn when empty.

    Raises ConfigError for a language model's server that is only half given, or that the voice would not use.
    """

    persona: Persona = field(default_factory=load_persona)
    voice: str = "local"
    key: str | None = field(default=None, repr=False)
    llm_url: str | None = None
    llm_model: str | None = None
    realtime_url: str | None = None
    seed: int = 0
    call_id: str = ""

    def __post_init__(self) -> None:
        if self.llm_model and not self.llm_url:
            raise ConfigError(f"the language model {self.llm_model!r} needs the address of its server: --llm-url")
        if self.llm_url and not self.llm_model:
            raise ConfigError(f"which of the language models at {self.llm_url}? Name it: --llm-model")
        if self.llm_url and not self.llm_url.startswith(("http://", "https://")):
            raise ConfigError(f"the language model's address must begin with http:// or https://, got {self.llm_url!r}")
        if self.llm_url and self.voice != "local":
            raise ConfigError(f"the voice {self.voice} thinks for itself: leave --llm-url out, or take --voice local")
