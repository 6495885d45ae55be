"""What travels with speech leaves when that speech has left: captions, ends of sentences, ends of turns."""

from collections import deque

from pipecat.frames.frames import Frame


class SpeechOrder:
    """Counts samples in and out, and keeps the frames that came between them in their place."""

    def __init__(self) -> None:
        self._pushed = 0
        self._left = 0
        self._held: deque[tuple[int, Frame]] = deque()

    @property
    def ahead(self) -> int:
        """Samples that were pushed and have not left."""
        return self._pushed - self._left

    def push(self, samples: int) -> None:
        self._pushed += samples

    def hold(self, frame: Frame) -> list[Frame]:
        """The frames that may go on now: this one if no speech is ahead of it."""
        self._held.append((self._pushed, frame))
        return self._due()

    def leave(self, samples: int) -> list[Frame]:
        """The frames that may go on now that so many more samples have left."""
        self._left += samples
        return self._due()

    def cut(self) -> list[Frame]:
        """Drops the speech and what travels with it; returns the frames that no interruption may drop."""
        kept = [frame for _, frame in self._held if not frame.interruptible]
        self._held.clear()
        self._left = self._pushed
        return kept

    def _due(self) -> list[Frame]:
        due = []
        while self._held and self._held[0][0] <= self._left:
            due.append(self._held.popleft()[1])
        return due
