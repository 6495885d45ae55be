"""The voices that a call can have, by name."""

from collections.abc import Callable
from importlib import import_module

from talkingmachines.conversation.options import CallOptions
from talkingmachines.conversation.voices.voice import Voice
from talkingmachines.errors import ConfigError, MissingPackageError

VOICES = ("local", "echo", "openai-realtime", "gemini-live")

Build = Callable[[CallOptions], Voice]


def build_voice(options: CallOptions) -> Voice:
    """A voice for one call. Blocks while models are read, the first time in a process: for threads.

    Raises ConfigError for a voice that is unknown or lacks a key, MissingPackageError for what is not installed.
    """
    if options.voice not in VOICES:
        raise ConfigError(f"unknown voice {options.voice!r}: use one of {', '.join(VOICES)}")
    try:
        module = import_module(f"{__name__}.{options.voice.replace('-', '_')}")
    except ImportError as error:
        raise MissingPackageError(
            f"the voice {options.voice} needs more packages ({error}): pip install 'talkingmachines[call]'"
        ) from error
    build: Build = module.build
    return build(options)
