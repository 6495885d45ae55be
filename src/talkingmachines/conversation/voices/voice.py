"""What a voice is: Pipecat processors around the avatar."""

from dataclasses import dataclass, field

from pipecat.frames.frames import Frame
from pipecat.processors.frame_processor import FrameProcessor


@dataclass
class Voice:
    """One call's voice.

    before: from the user's sound to the bot's speech; after: behind the transport's output, which they hear of what was
    played; greeting: what is queued when the user is there; stacks: the models in use, by what they do.
    """

    before: list[FrameProcessor]
    after: list[FrameProcessor] = field(default_factory=list)
    greeting: list[Frame] = field(default_factory=list)
    stacks: dict[str, str] = field(default_factory=dict)
