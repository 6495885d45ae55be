"""Give it one picture of a character and speech, and it makes a video of that character speaking."""

from typing import TYPE_CHECKING, Any

from talkingmachines.errors import (
    CheckpointError,
    ConfigError,
    MediaError,
    MissingPackageError,
    SessionError,
    TalkingMachinesError,
    TrainingError,
)
from talkingmachines.types import VideoFrame

if TYPE_CHECKING:
    from talkingmachines.avatar import Avatar, load
    from talkingmachines.streaming.session import Session

__version__ = "0.1.0"

__all__ = [
    "Avatar",
    "CheckpointError",
    "ConfigError",
    "MediaError",
    "MissingPackageError",
    "Session",
    "SessionError",
    "TalkingMachinesError",
    "TrainingError",
    "VideoFrame",
    "load",
]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, so what needs it comes when it is first asked for.
    if name in ("Avatar", "load"):
        from talkingmachines import avatar

        return getattr(avatar, name)
    if name == "Session":
        from talkingmachines.streaming.session import Session

        return Session
    raise AttributeError(f"module 'talkingmachines' has no attribute {name!r}")
