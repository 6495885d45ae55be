"""What happened in a call so far, for those who watch it: a page, a metrics endpoint, a log."""

from collections import deque
from dataclasses import dataclass, field


def _latest(number: int) -> "deque[float]":
    return deque(maxlen=number)


@dataclass
class CallCounts:
    """Written on the call's event loop, read from anywhere. Times in seconds; of each the latest are kept.

    stacks: what is in use for each part of the voice, say {"recognition": "whisper"}.
    frames: pictures handed to the transport; spoken_frames: those among them that brought sound along; late, skipped
    and dropped: as in streaming's LiveCounts; first_frame: from opening the call to its first picture.
    turn_times: from the end of the user's speech to the first sound of the answer.
    av_offsets: a picture's departure minus the time at which its sound is due; positive: the sound led.
    end_reason: empty while the call runs.
    """

    call_id: str = ""
    voice: str = ""
    stacks: dict[str, str] = field(default_factory=dict)
    frames: int = 0
    spoken_frames: int = 0
    late: int = 0
    skipped: int = 0
    dropped: int = 0
    first_frame: float | None = None
    turns: int = 0
    interruptions: int = 0
    errors: int = 0
    turn_times: "deque[float]" = field(default_factory=lambda: _latest(256))
    av_offsets: "deque[float]" = field(default_factory=lambda: _latest(1024))
    end_reason: str = ""
