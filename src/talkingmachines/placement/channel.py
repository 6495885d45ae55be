"""What joins two stages that run at the same time: a queue that holds only a few items."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Stopped(Exception):
    """The consumer wants nothing more: the producer ends. Never seen by a user."""


class Channel(Generic[Item]):
    """A bounded queue from one thread to another.

    The producer puts items, and closes at the end, with its error if it failed. The consumer iterates: it gets the
    items in order, then the error if there was one. A consumer that wants no more calls `stop`.
    """

    def __init__(self, capacity: int = 1) -> None:
        """capacity: items that may lie here; at least 1."""
        assert capacity >= 1, capacity
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._closed = self._stopped = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, item: Item) -> None:
        """Adds an item, waiting while the channel is full. Raises Stopped once the consumer wants no more."""
        with self._changed:
            assert not self._closed, "put after close"
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._capacity)
            if self._stopped:
                raise Stopped
            self._items.append(item)
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """No more items come; `error` is why, if the producer failed."""
        with self._changed:
            self._closed, self._error = True, error
            self._changed.notify_all()

    def get(self) -> Item:
        """The next item, waited for. After the last one: the producer's error, or StopIteration."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items)
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
        if self._error is not None:
            raise self._error
        raise StopIteration

    def stop(self) -> None:
        """The consumer wants no more: what lies here is dropped, and the next `put` raises Stopped."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        return self.get()
