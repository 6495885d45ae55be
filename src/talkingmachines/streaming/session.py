"""One call, for those who have sound and want pictures."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import numpy as np
from torch import Tensor

from talkingmachines.audio.samples import check_samples
from talkingmachines.errors import SessionError
from talkingmachines.streaming.engine import Call, Engine
from talkingmachines.types import FPS, VideoFrame

Latents = Tensor
"""Of a chunk that is denoised and not yet decoded."""


class Session:
    """A call: push sound as it comes, and get the pictures of every chunk whose sound is complete.

    Frame n is shown at n / 25 s of the sound that was pushed, dropped sound not counted. The memory that a session
    keeps does not grow. Sessions of one engine share its models; what goes wrong in one ends no other.

    One thread at a time: a second one gets a SessionError, and the work of the first is not disturbed. Only `close`
    may be called at any time, and `decode` beside the next `denoise`.
    """

    def __init__(self, engine: Engine, call: Call) -> None:
        self._engine, self._call = engine, call
        self._busy = threading.Lock()
        self._frames = 0
        self._closed = False
        self._failure: BaseException | None = None

    @property
    def samples_wanted(self) -> int:
        """How many samples are missing for the next chunk, at least 1: pushing so many gives its frames."""
        return self._call.audio.wanted

    @property
    def samples_ahead(self) -> int:
        """How many samples after a chunk its lips can make use of, see `push_audio`."""
        return self._call.audio.ahead

    def push_audio(self, pcm: np.ndarray, coming: np.ndarray | None = None) -> list[VideoFrame]:
        """Sound that goes on where the last push ended: float32 [n], mono 16 kHz, any n. Values are cut to [-1, 1].

        coming: what is already known to follow, to be pushed later, of any length. Lips shut more surely at the end of
        a chunk where it is heard ahead (`samples_ahead`). Unless given, nothing is: the pictures are the same then
        whatever the pieces.

        Returns the frames of all chunks that are complete with it, often none. Of a long sound these are many: push
        `samples_wanted` at a time to have no more than a chunk's at once.

        Raises MediaError for anything else, and then nothing has changed; SessionError after `close`, after an error,
        and when another thread is at work on this session. An error of the models ends the session.
        """
        with self._turn():
            check_samples(pcm)
            if coming is not None:
                check_samples(coming)
            made: list[VideoFrame] = []
            while True:
                pcm = self._call.audio.push(pcm)
                if not self._call.audio.ready:
                    return made
                made += self.decode(self._denoise(None if coming is None else self._ahead(pcm, coming)))

    def denoise(self, pcm: np.ndarray, coming: np.ndarray) -> Latents:
        """The first half of `push_audio`, of a chunk: exactly `samples_wanted` samples. What it gives is for `decode`,
        which another thread may do while this one goes on with the next chunk."""
        with self._turn():
            check_samples(pcm)
            check_samples(coming)
            left = self._call.audio.push(pcm)
            assert self._call.audio.ready and not len(left), "not a chunk"
            return self._denoise(coming[: self.samples_ahead])

    def decode(self, latents: Latents) -> list[VideoFrame]:
        """The frames of what `denoise` gave, each once and in order. An error of the models ends the session."""
        with self._or_failed():
            pixels = self._engine.decode(self._call, latents)
        first = self._frames
        self._frames += len(pixels)
        return [VideoFrame(picture, (first + index) / FPS) for index, picture in enumerate(pixels)]

    def end_segment(self) -> list[VideoFrame]:
        """Completes the chunk that has begun with silence, and returns its frames; none where no sound waits.

        For the end of an utterance, when no more sound is to be waited for. The frames of the silence are among those
        returned, and the call goes on after them.
        """
        with self._turn():
            if not self._call.audio.pending:
                return []
            self._call.audio.pad()
            return self.decode(self._denoise(None))

    def interrupt(self) -> None:
        """Drops the sound that no frame has been made of yet, less than a chunk; the picture goes on with what comes.

        What is pushed next is heard as after silence, so the cut is no click. Harmless when repeated or closed.
        """
        if not self._closed:
            with self._turn():
                self._call.audio.drop()

    def close(self) -> None:
        """Ends the call. Harmless when repeated. A push at work in another thread raises SessionError before its
        next chunk; one that is at its last returns."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ahead(self, left: np.ndarray, coming: np.ndarray) -> np.ndarray:
        return np.concatenate([left[: self.samples_ahead], coming[: self.samples_ahead]])

    def _denoise(self, coming: np.ndarray | None) -> Latents:
        self._check_open()
        with self._or_failed():
            return self._engine.denoise([self._call], None if coming is None else [coming])

    @contextmanager
    def _or_failed(self) -> Iterator[None]:
        """What goes wrong in here ends the session: what the call remembers may be half of this chunk, and to go on
        would show wrong frames."""
        try:
            yield
        except BaseException as error:
            self._failure = error
            raise

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """This thread's, alone."""
        if not self._busy.acquire(blocking=False):
            raise SessionError("another thread is at work on this session; use it from one thread at a time")
        try:
            self._check_open()
            yield
        finally:
            self._busy.release()

    def _check_open(self) -> None:
        if self._failure is not None:
            reason = str(self._failure) or type(self._failure).__name__
            raise SessionError(f"an error has ended this session ({reason}); open another") from self._failure
        if self._closed:
            raise SessionError("this session is closed; open another")
