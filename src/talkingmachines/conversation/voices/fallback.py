"""The first that works of several ways to do one thing, said aloud."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from loguru import logger

from talkingmachines.errors import MissingPackageError

Tool = TypeVar("Tool")

_lock = threading.Lock()
_loaded: dict[str, Any] = {}


class Candidate(NamedTuple, Generic[Tool]):
    """load: imports what it needs and reads its weights; ImportError or MissingPackageError when that is not there."""

    name: str
    load: Callable[[], Tool]


def first_that_works(what: str, candidates: Sequence[Candidate[Tool]]) -> tuple[str, Tool]:
    """Name and tool of the first candidate that can be loaded. Each is loaded once in a process.

    Raises MissingPackageError when none can. Blocks while a model is read: for threads, not for an event loop.
    """
    missing = []
    for name, load in candidates:
        try:
            with _lock:
                if name not in _loaded:
                    _loaded[name] = load()
                tool = _loaded[name]
        except (ImportError, MissingPackageError, OSError) as error:
            logger.warning("{}: {} cannot be used ({})", what, name, error)
            missing.append(name)
            continue
        logger.info("{}: {}{}", what, name, f", instead of {' and '.join(missing)}" if missing else "")
        return name, tool
    raise MissingPackageError(
        f"nothing for {what}: {', '.join(missing)} are missing: pip install 'talkingmachines[call]'"
    )
