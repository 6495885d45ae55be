"""Time, as something that is handed in: a call can be tried out without waiting for it."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since any moment; never goes back."""

    def wait(self, changed: threading.Condition, until: float | None) -> None:
        """Waits until that time, or until `changed`, which the caller holds, is notified. None: for ever."""


class MonotonicClock:
    """The time of the machine, whatever happens to its date."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, changed: threading.Condition, until: float | None) -> None:
        changed.wait(None if until is None else max(0.0, until - self.now()))
