"""A character that paints its sound, and pipelines to put it in."""

import asyncio
import importlib.util
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
from pipecat.frames.frames import Frame, OutputAudioRawFrame, OutputImageRawFrame, StartFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from talkingmachines.streaming.pacing import LiveCall
from talkingmachines.types import SAMPLE_RATE, SAMPLES_PER_FRAME, VideoFrame

SIZE = 8
SHAPE = SIZE, SIZE
OPENING, CHUNK = 3, 4
PICTURE = np.zeros((SIZE, SIZE, 3), np.uint8)


def paint(sound: np.ndarray) -> np.ndarray:
    """A picture [8, 8, 3] that shows the first four samples of its sound, as int16, and nothing else."""
    pixels = np.zeros(SIZE * SIZE * 3, np.uint8)
    pixels[:8] = np.round(sound[:4] * 32767).astype("<i2").view(np.uint8)
    return pixels.reshape(SIZE, SIZE, 3)


class PaintingSession:
    """What LiveCall needs of a Session. fails_at: the chunk that cannot be made."""

    def __init__(self, fails_at: int | None = None, takes: float = 0.0) -> None:
        self.chunks, self.fails_at, self.takes = 0, fails_at, takes
        self.closed = False

    @property
    def samples_wanted(self) -> int:
        return (CHUNK if self.chunks else OPENING) * SAMPLES_PER_FRAME

    samples_ahead = 0

    def denoise(self, pcm: np.ndarray, coming: np.ndarray) -> np.ndarray:
        assert len(pcm) == self.samples_wanted
        if self.chunks == self.fails_at:
            raise RuntimeError("out of paint")
        time.sleep(self.takes)
        self.chunks += 1
        return pcm

    def decode(self, pcm: np.ndarray) -> list[VideoFrame]:
        return [VideoFrame(paint(sound), 0.0) for sound in pcm.reshape(-1, SAMPLES_PER_FRAME)]

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Painter:
    """A character for calls."""

    shape = SHAPE

    def __init__(self, fails_at: int | None = None, takes: float = 0.0) -> None:
        self.fails_at, self.takes = fails_at, takes
        self.sessions: list[PaintingSession] = []

    def live(self, image: np.ndarray, seed: int = 0) -> LiveCall:
        self.sessions.append(PaintingSession(self.fails_at, self.takes))
        return LiveCall(self.sessions[-1], CHUNK)  # type: ignore[arg-type]


@dataclass
class Seen:
    """What came out of a pipeline, and when."""

    frames: list[tuple[float, Frame]] = field(default_factory=list)

    def of(self, *kinds: type[Frame]) -> list[Frame]:
        return [frame for _, frame in self.frames if isinstance(frame, kinds)]

    @property
    def samples(self) -> np.ndarray:
        """int16 [n]: all sound, in order."""
        pieces = [np.frombuffer(frame.audio, "<i2") for frame in self.of(OutputAudioRawFrame)]
        return np.concatenate(pieces) if pieces else np.zeros(0, "<i2")

    @property
    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each sound, int16 [640], and the picture before it, as the sound that it shows, int16 [4]."""
        found, shown = [], None
        for _, frame in self.frames:
            if isinstance(frame, OutputImageRawFrame):
                shown = np.frombuffer(frame.image[:8], "<i2")
            elif isinstance(frame, OutputAudioRawFrame):
                found.append((np.frombuffer(frame.audio, "<i2"), shown))
                shown = None
        return found


class Watcher(FrameProcessor):
    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction == FrameDirection.DOWNSTREAM and not isinstance(frame, StartFrame):
            self._seen.frames.append((time.monotonic(), frame))
        await self.push_frame(frame, direction)


async def run_pipeline(
    processors: Sequence[FrameProcessor], play: Callable[[PipelineWorker], Awaitable[None]]
) -> tuple[Seen, list[str]]:
    """Runs a pipeline while `play` does, then ends it. What came out at its end, and the errors that were reported."""
    seen, errors, started = Seen(), [], asyncio.Event()
    worker = PipelineWorker(
        Pipeline([*processors, Watcher(seen)]),
        params=PipelineParams(audio_in_sample_rate=SAMPLE_RATE, audio_out_sample_rate=SAMPLE_RATE),
        cancel_on_idle_timeout=False,
        enable_rtvi=False,
    )

    async def note(_: PipelineWorker, frame: Frame) -> None:
        errors.append(frame.error)

    async def start(*_: object) -> None:
        started.set()

    worker.add_event_handler("on_pipeline_error", note)
    worker.add_event_handler("on_pipeline_started", start)

    async def act() -> None:
        await asyncio.wait_for(started.wait(), 10)
        try:
            await play(worker)
        finally:
            await worker.stop_when_done()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await asyncio.wait_for(asyncio.gather(runner.run(), act()), 60)
    return seen, errors


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise, int16 [n], no sample of which is zero."""
    rng = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    return (rng.integers(1000, 30000, count) * rng.choice([-1, 1], count)).astype("<i2")


def call_threads() -> set[threading.Thread]:
    """The threads that belong to calls and models, not to Python or the event loop.

    A test asks only for those that began during it: what an earlier one started may end late.
    """
    return {
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.name.startswith(("asyncio_", "ThreadPoolExecutor"))
    }


def load_example(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
