"""A character whose chunks are timed, for the latency panel and the metrics."""

import time
from collections import deque
from typing import Protocol

import numpy as np

from talkingmachines.media.face import Box
from talkingmachines.streaming.pacing import LiveCall
from talkingmachines.streaming.session import Session
from talkingmachines.types import VideoFrame

KEPT = 256


class Model(Protocol):
    """What is needed of an Avatar."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def session(self, image: np.ndarray, seed: int = 0, *, face_box: Box | None = None) -> Session: ...


class ChunkTimes:
    """latest: seconds that the last chunks took; total: how many there were. One thread adds, others read."""

    def __init__(self) -> None:
        self.latest: deque[float] = deque(maxlen=KEPT)
        self.total = 0

    def add(self, seconds: float) -> None:
        self.latest.append(seconds)
        self.total += 1


class TimedSession(Session):
    """A session that notes how long each of its chunks took."""

    def __init__(self, session: Session, times: ChunkTimes) -> None:
        self._session, self._times = session, times

    @property
    def samples_wanted(self) -> int:
        return self._session.samples_wanted

    @property
    def samples_ahead(self) -> int:
        return self._session.samples_ahead

    def push_audio(self, pcm: np.ndarray, coming: np.ndarray | None = None) -> list[VideoFrame]:
        began = time.perf_counter()
        frames = self._session.push_audio(pcm, coming)
        if frames:
            self._times.add(time.perf_counter() - began)
        return frames

    def end_segment(self) -> list[VideoFrame]:
        return self._session.end_segment()

    def interrupt(self) -> None:
        self._session.interrupt()

    def close(self) -> None:
        self._session.close()


class TimedCharacter:
    """One call's view of a model. chunk_frames: video frames of every chunk but the first; face_box: see
    Avatar.session.
    """

    def __init__(self, model: Model, chunk_frames: int, times: ChunkTimes, face_box: Box | None = None) -> None:
        self._model, self._chunk_frames, self._times, self._face_box = model, chunk_frames, times, face_box

    def live(self, image: np.ndarray, seed: int = 0) -> LiveCall:
        session = self._model.session(image, seed, face_box=self._face_box)
        return LiveCall(TimedSession(session, self._times), self._chunk_frames)
