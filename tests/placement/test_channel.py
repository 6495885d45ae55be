"""The bounded channel between two stages."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from talkingmachines.placement.channel import Channel, Stopped


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_everything_arrives_in_order(capacity: int) -> None:
    channel: Channel[int] = Channel(capacity)

    def produce() -> None:
        for number in range(50):
            channel.put(number)
        channel.close()

    thread = in_thread(produce)
    assert list(channel) == list(range(50))
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("capacity", [1, 3])
def test_put_waits_while_full(capacity: int) -> None:
    channel: Channel[int] = Channel(capacity)
    done: list[int] = []

    def produce() -> None:
        with suppress(Stopped):
            for number in range(10):
                channel.put(number)
                done.append(number)

    in_thread(produce)
    until(lambda: len(done) == capacity)
    time.sleep(0.02)
    assert len(done) == capacity
    assert channel.get() == 0
    until(lambda: len(done) == capacity + 1)
    time.sleep(0.02)
    assert len(done) == capacity + 1
    channel.stop()


def test_get_waits_while_empty() -> None:
    channel: Channel[str] = Channel()
    got: list[str] = []
    thread = in_thread(lambda: got.append(channel.get()))
    time.sleep(0.02)
    assert not got
    channel.put("late")
    thread.join(10)
    assert got == ["late"]


def test_an_error_comes_after_what_was_made_before_it() -> None:
    channel: Channel[int] = Channel(3)
    channel.put(1)
    channel.put(2)
    channel.close(ValueError("the third"))
    assert [channel.get(), channel.get()] == [1, 2]
    for _ in range(2):
        with pytest.raises(ValueError, match="the third"):
            channel.get()


def test_the_end_stays_the_end() -> None:
    channel: Channel[int] = Channel()
    channel.close()
    assert list(channel) == list(channel) == []


def test_stop_wakes_a_producer_that_waits() -> None:
    channel: Channel[int] = Channel()
    seen: list[type] = []

    def produce() -> None:
        try:
            for number in range(10):
                channel.put(number)
        except Stopped as error:
            seen.append(type(error))

    thread = in_thread(produce)
    channel.get()
    channel.stop()
    thread.join(10)
    assert seen == [Stopped]
    with pytest.raises(Stopped):
        channel.put(1)


def test_a_consumer_that_waits_is_woken_by_the_end() -> None:
    channel: Channel[int] = Channel()
    got: list[list[int]] = []
    thread = in_thread(lambda: got.append(list(channel)))
    channel.close()
    thread.join(10)
    assert got == [[]]
