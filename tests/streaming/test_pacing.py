"""A live call on its threads, in fake time: the clock is a number, and chunks take as long as the test says."""

import itertools
import math
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from live_parts import AHEAD, CHUNK, OPENING, picture, read, speech
from stream_models import random_engine

from talkingmachines.errors import MediaError, SessionError
from talkingmachines.presets import tiny
from talkingmachines.streaming.pacing import LiveCall
from talkingmachines.streaming.session import Session
from talkingmachines.types import FPS, SAMPLES_PER_FRAME, VideoFrame


class Clock:
    """A time that goes on when both threads of a call wait for it, or one where the other has failed."""

    call: LiveCall

    def __init__(self) -> None:
        self.time = 0.0
        self._until: dict[int, float] = {}

    def now(self) -> float:
        return self.time

    def wait(self, changed: threading.Condition, until: float | None) -> None:
        me = threading.get_ident()
        self._until[me] = math.inf if until is None else until
        notified = changed.wait(0.002)
        denoises = self.call._stages[0].is_alive()
        if not notified and len(self._until) == 1 + denoises and min(self._until.values()) < math.inf:
            self.time = max(self.time, min(self._until.values()))
        self._until.pop(me)


class FakeSession:
    def __init__(self, clock: Clock, fails: int = -1, stage: str = "denoise") -> None:
        self.clock, self.fails, self.stage = clock, fails, stage
        self.log: list[object] = []
        self.coming: list[np.ndarray] = []
        self.closed = False

    @property
    def samples_wanted(self) -> int:
        return (CHUNK if self.log else OPENING) * SAMPLES_PER_FRAME

    samples_ahead = AHEAD

    def denoise(self, pcm: np.ndarray, coming: np.ndarray) -> tuple[int, int]:
        assert len(pcm) == self.samples_wanted and len(coming) <= AHEAD
        if len(self.log) == self.fails and self.stage == "denoise":
            raise RuntimeError("the models broke")
        self.log.append(pcm)
        self.coming.append(coming)
        return len(self.log), len(pcm) // SAMPLES_PER_FRAME

    def decode(self, chunk: tuple[int, int]) -> list[VideoFrame]:
        number, frames = chunk
        if number == self.fails + 1 and self.stage == "decode":
            raise RuntimeError("the models broke")
        return [VideoFrame(picture(number, n), 0.0) for n in range(frames)]

    def interrupt(self) -> None:
        self.log.append("interrupt")

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert not set(threading.enumerate()) - before


def live(fails: int = -1, stage: str = "denoise") -> tuple[LiveCall, FakeSession, Clock]:
    clock = Clock()
    session = FakeSession(clock, fails, stage)
    clock.call = LiveCall(session, CHUNK, clock)  # type: ignore[arg-type]
    return clock.call, session, clock


def test_a_call_in_fake_time() -> None:
    call, session, clock = live()
    said, heard = speech(2), []
    for index, frame in enumerate(call.frames()):
        assert clock.now() >= frame.pts - call.counts.hurried / 2 / FPS - 1e-5
        heard.append(frame.speech)
        if index == 30:
            call.push_audio(said)
            call.end_segment()
        if index == 150:
            call.interrupt()
        if index == 200:
            call.close()
    sound = np.concatenate(heard)
    np.testing.assert_array_equal(sound[sound != 0], said)
    told = next(coming for coming in session.coming if len(coming))
    assert len(told) == AHEAD and np.isin(told, said).all()
    assert len(heard) == 201 and session.closed and call.counts.frames == 201


@pytest.mark.parametrize("stage", ["denoise", "decode"])
def test_an_error_comes_after_the_frames_before_it(stage: str) -> None:
    call, session, _ = live(2, stage)
    seen = 0
    with pytest.raises(RuntimeError, match="the models broke"):
        for _ in call.frames():
            seen += 1
    assert seen == OPENING + CHUNK and session.closed
    with pytest.raises(SessionError, match="ended"):
        call.push_audio(speech(0.1))
    call.interrupt()
    call.close()


def test_a_call_that_nobody_takes_to_its_end() -> None:
    call, session, _ = live()
    frames = call.frames()
    assert len(list(itertools.islice(frames, 5))) == 5
    with pytest.raises(SessionError, match="already being taken"):
        next(call.frames())
    frames.close()  # type: ignore[attr-defined]
    assert session.closed
    with pytest.raises(SessionError, match="ended"):
        call.end_segment()


def test_the_first_chunk_is_there_before_its_frames_are_taken() -> None:
    call, session, clock = live()
    call.prepare()
    call.prepare()
    deadline = time.monotonic() + 10
    while not session.log and time.monotonic() < deadline:
        time.sleep(0.001)
    clock.time = 100.0
    first = list(itertools.islice(call.frames(), OPENING + CHUNK))
    assert [read(frame.pixels) for frame in first[:OPENING]] == [(1, n) for n in range(OPENING)]
    assert clock.now() == pytest.approx(100 + (OPENING + CHUNK - 1) / FPS)
    assert not call.counts.late and not call.counts.skipped


def test_a_call_that_is_prepared_and_never_taken() -> None:
    call, session, _ = live()
    call.prepare()
    call.close()
    call.prepare()
    assert session.closed


def test_sound_that_is_none() -> None:
    call, _, _ = live()
    with pytest.raises(MediaError, match="NaN"):
        call.push_audio(np.full(10, np.nan, np.float32))
    call.close()
    call.close()


def test_a_real_session_in_real_time() -> None:
    torch.manual_seed(0)
    spec = tiny()
    engine = random_engine()
    session = Session(engine, engine.open(np.zeros((64, 64, 3), np.uint8), 0))
    call = LiveCall(session, 4 * spec.chunk.frames)
    call.push_audio(speech(0.5))
    frames = list(itertools.islice(call.frames(), 20))
    call.close()
    assert frames[0].pixels.shape == (64, 64, 3)
    assert np.count_nonzero(np.concatenate([frame.speech for frame in frames])) == 8000
    with pytest.raises(SessionError, match="closed"):
        session.push_audio(speech(0.1))
