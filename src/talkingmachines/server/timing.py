"""A character whose chunks are timed, for the latency panel and the metrics."""

import time
from collections import deque
from typing import Any, Protocol

import numpy as np

from talkingmachines.media.face import Box
from talkingmachines.streaming.pacing import LiveCall, LiveSession
from talkingmachines.types import VideoFrame

KEPT = 256


class Model(Protocol):
    """What is needed of an Avatar."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def session(self, image: np.ndarray, seed: int = 0, *, face_box: Box | None = None) -> LiveSession: ...


class ChunkTimes:
    """latest: seconds that the last chunks took; total: how many there were. One thread adds, others read."""

    def __init__(self) -> None:
        self.latest: deque[float] = deque(maxlen=KEPT)
        self.total = 0

    def add(self, seconds: float) -> None:
        self.latest.append(seconds)
        self.total += 1


class TimedSession:
    """A session for a LiveCall that notes how long each of its chunks took, from its sound to its pictures."""

    def __init__(self, session: LiveSession, times: ChunkTimes) -> None:
        self._session, self._times = session, times
        self._begun: deque[float] = deque()

    @property
    def samples_wanted(self) -> int:
        return self._session.samples_wanted

    @property
    def samples_ahead(self) -> int:
        return self._session.samples_ahead

    def denoise(self, pcm: np.ndarray, coming: np.ndarray) -> Any:
        self._begun.append(time.perf_counter())
        return self._session.denoise(pcm, coming)

    def decode(self, latents: Any) -> list[VideoFrame]:
        frames = self._session.decode(latents)
        self._times.add(time.perf_counter() - self._begun.popleft())
        return frames

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
