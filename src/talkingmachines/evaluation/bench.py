"""How fast an avatar is. Each figure has a pass of its own, so that no stopwatch slows the pass that counts frames.

1. First frames: calls are opened, given the sound of their first chunk, and timed until its frames are there.
2. Stages: chunks are made one stage after the other, and each part is timed.
3. Throughput: chunks are made by the pipeline, without end, and only their arrival is noted.
4. Age, on a processor: the calls of 3 and new ones make chunks in turns.

Before each pass some chunks are made that do not count.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from talkingmachines.attention.masks import seen_chunks
from talkingmachines.audio.alignment import FRAMES_PER_LATENT, frames_in
from talkingmachines.avatar import Avatar
from talkingmachines.dit.fp8 import Float8Linear
from talkingmachines.errors import ConfigError
from talkingmachines.evaluation.evaluate import shipped_recordings
from talkingmachines.evaluation.flops import TERA, floor_seconds, measured_peak, pass_flops
from talkingmachines.evaluation.machine import forget_peak_memory, machine, memory_mb, peak_memory_mb
from talkingmachines.media.audio import read_audio
from talkingmachines.media.image import fit_image
from talkingmachines.placement.pipeline import places, stream_frames
from talkingmachines.streaming.engine import Call, Engine
from talkingmachines.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from talkingmachines.vae.pixels import to_frames

Progress = Callable[[int, int], None]

PAUSE = 1.0
"""Seconds of silence after each recording."""

MINUTE = 60.0
"""Growth compares the last minute with the first, or the last tenth of what is too short for that."""

TURNS = 120
"""Chunks that old and new calls make in turns, at most."""


@dataclass(frozen=True)
class BenchConfig:
    """seconds: of video, of each session, after the warm-up; sessions: calls made together, in one pass per step;
    openings: calls whose first frame is timed; staged: chunks timed stage by stage.
    """

    seconds: float = 30.0
    sessions: int = 1
    openings: int = 5
    staged: int = 12

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf or min(self.sessions, self.openings, self.staged) < 1:
            raise ConfigError(f"seconds, sessions, openings and chunks must be positive, got {self}")


def bench(
    avatar: Avatar, image: np.ndarray, config: BenchConfig | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """All figures, ready for JSON. image: [H, W, 3] uint8; progress(done, total) counts chunks.

    Times are in seconds of the clock on the wall, but for those called ms.
    """
    config = config or BenchConfig()
    bench_calls = _Calls(avatar, fit_image(image, avatar.shape), config.sessions)
    first = _first_frame(bench_calls, config.openings)
    stages = _stages(bench_calls, config.staged)
    calls = bench_calls.open()
    arrivals, memory = _throughput(bench_calls, calls, config.seconds, progress)
    peak_memory = peak_memory_mb(bench_calls.devices)
    chunk_s = np.diff(arrivals)
    frames = bench_calls.chunk_frames * config.sessions * len(chunk_s)
    fps = frames / float(arrivals[-1] - arrivals[0])
    denoiser, decoder = places(avatar.engine)
    return {
        "preset": avatar.preset.name,
        "size": "{1}x{0}".format(*avatar.shape),
        "steps": avatar.engine.chunk.steps,
        "dtype": str(avatar.engine.dtype).removeprefix("torch."),
        "attention": avatar.engine.attention.backend.name,
        "device": str(avatar.device),
        "sessions": config.sessions,
        "seconds": round(len(chunk_s) * bench_calls.chunk_frames / FPS, 2),
        "warmup_chunks": bench_calls.warmup,
        "fps": round(fps, 2),
        "real_time_factor": round(fps / FPS / config.sessions, 3),
        "first_frame_s": round(first, 4),
        "chunk_ms": {f"p{share}": round(float(np.percentile(chunk_s, share)) * 1000, 2) for share in (50, 95, 99)},
        "stage_ms": {name: round(seconds * 1000, 2) for name, seconds in stages.items()},
        "arithmetic": arithmetic(avatar.engine, stages, config.sessions),
        "growth": growth(chunk_s, memory[1:], bench_calls.chunk_frames / FPS) | _age(bench_calls, calls, len(chunk_s)),
        "peak_memory_mb": round(peak_memory, 1),
        "machine": machine(avatar.device) | {"stage_threads": [denoiser.threads, decoder.threads]},
    }


def arithmetic(engine: Engine, stages: dict[str, float], sessions: int = 1) -> dict[str, Any]:
    """What a pass computes, in 10^12 operations; how many of them a second, and as a share of this machine's peak.

    stages: seconds of each, as _stages has them. floor: the least time of a chunk of all sessions, and the frames a
    second that this allows; see floor_seconds.
    """
    config, tokens = engine.student.config, engine.tokens
    keys, device = len(seen_chunks(2)) * tokens, engine.device
    of_pass = pass_flops(config, tokens, keys)
    fp8 = any(isinstance(module, Float8Linear) for module in engine.student.modules())
    plain_peak = measured_peak(device, engine.dtype)
    peak = measured_peak(device, engine.dtype, fp8=True) if fp8 else plain_peak
    rates = {
        name: sessions * of_pass.total / seconds for name, seconds in stages.items() if name.startswith("dit_step")
    }
    floor = sessions * floor_seconds(config, tokens, keys, engine.chunk.steps, peak, plain_peak)
    return {
        "pass_tflop": {"linear": of_pass.linear / TERA, "attention": of_pass.attention / TERA},
        "tflops": {name: rate / TERA for name, rate in rates.items()},
        "peak_tflops": peak / TERA,
        "share_of_peak": {name: round(rate / peak, 3) for name, rate in rates.items()},
        "floor": {
            "chunk_ms": round(floor * 1000, 3),
            "fps": round(sessions * FRAMES_PER_LATENT * engine.chunk.frames / floor, 1),
        },
    }


def growth(chunk_s: np.ndarray, memory: np.ndarray, chunk_length: float) -> dict[str, float]:
    """Medians of the end over those of the beginning; part_seconds: how much of the video these are.

    chunk_s, memory: of each chunk, which lasts chunk_length seconds.
    """
    part = min(round(MINUTE / chunk_length), len(chunk_s) // 2 or 1)
    if len(chunk_s) * chunk_length < 2 * MINUTE:
        part = max(1, len(chunk_s) // 10)
    pairs = {"chunk_time": chunk_s, "memory": memory}
    ratios = {name: float(np.median(of[-part:]) / np.median(of[:part])) for name, of in pairs.items()}
    return {name: round(ratio, 4) for name, ratio in ratios.items()} | {"part_seconds": round(part * chunk_length, 2)}


def looped_speech() -> np.ndarray:
    """A shipped recording and a pause, float32 [n], to be heard again and again."""
    recordings = shipped_recordings()
    if not recordings:
        raise ConfigError("this installation lacks the shipped recordings; install talkingmachines again")
    return np.pad(read_audio(recordings[0]), (0, round(PAUSE * SAMPLE_RATE)))


class _Calls:
    """Calls that go in step, and their sound. Each session begins at another place of the recording."""

    def __init__(self, avatar: Avatar, image: np.ndarray, sessions: int) -> None:
        self.engine, self.sessions, self._image = avatar.engine, sessions, image
        self._told = avatar.encoders.tell(image) if avatar.encoders else (None, None)
        engine = self.engine
        self._speech = looped_speech()
        self.opening_frames = frames_in(engine.chunk.frames)
        self.chunk_frames = FRAMES_PER_LATENT * engine.chunk.frames
        # Until the window has slid, chunks see fewer others and are faster.
        self.warmup = engine.chunk.window + 2

    @property
    def devices(self) -> set[torch.device]:
        """Of the transformer and the autoencoder, as their tensors say it."""
        return {self.engine.student.patch_embedding.weight.device, self.engine.vae.latent_mean.device}

    def open(self, seed: int = 0) -> list[Call]:
        text, picture = self._told
        return [
            self.engine.open(self._image, seed + session, text=text, picture=picture)
            for session in range(self.sessions)
        ]

    def pieces(self) -> Iterator[list[np.ndarray]]:
        """The sound of one chunk after the other, for ever."""
        position, count = 0, self.opening_frames * SAMPLES_PER_FRAME
        starts = [session * len(self._speech) // self.sessions for session in range(self.sessions)]
        while True:
            yield [
                self._speech.take(range(start + position, start + position + count), mode="wrap") for start in starts
            ]
            position, count = position + count, self.chunk_frames * SAMPLES_PER_FRAME

    def make(self, calls: list[Call], coming: list[np.ndarray], watch: "_Watch") -> None:
        """The next chunk of all calls, whose sound is there, and what comes after it."""
        with watch.part("denoise"):
            latents = self.engine.denoise(calls, coming)
        for row, call in enumerate(calls):
            with watch.part("decode"):
                parts = self.engine.decode_video(call, latents[row : row + 1])
            with watch.part("transfer"):
                for part in parts:
                    to_frames(part)


class _Watch:
    """Seconds spent in each part, on devices that work on their own as well."""

    def __init__(self, devices: set[torch.device]) -> None:
        self._devices = [device for device in devices if device.type == "cuda"]
        self._began: list[float] = []
        self.spent: dict[str, float] = {}

    def now(self) -> float:
        for device in self._devices:
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def begin(self) -> None:
        self._began.append(self.now())

    def end(self, name: str) -> None:
        self.spent[name] = self.spent.get(name, 0.0) + self.now() - self._began.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.begin()
        yield
        self.end(name)

    @contextmanager
    def passes(self, engine: Engine, name: Callable[[], str]) -> Iterator[None]:
        """Times every pass of the engine's student, also those that are replayed."""
        usual = engine.model_for

        def timed(calls: Sequence[Call]) -> Callable[..., Tensor]:
            model = usual(calls)

            def run(*given: Any) -> Tensor:
                with self.part(name()):
                    return model(*given)

            return run

        with patched(engine, "model_for", timed):
            yield


@contextmanager
def patched(thing: object, name: str, value: object) -> Iterator[None]:
    """`value` in place of a method, for a while."""
    setattr(thing, name, value)
    try:
        yield
    finally:
        delattr(thing, name)


def _first_frame(calls: _Calls, openings: int) -> float:
    """Seconds from the sound of the first chunk to its frames, as a session makes them; the median."""
    took = []
    for opening in range(openings + 1):
        opened = calls.open(opening)
        sound, coming = islice(calls.pieces(), 2)
        for call, samples in zip(opened, sound, strict=True):
            call.audio.push(samples)
        watch = _Watch(calls.devices)
        with watch.part("all"):
            calls.make(opened, coming, watch)
        took.append(watch.spent["all"])
        # The next call's memory may be as large as all that is left.
        del opened, call
    return median(took[1:])


def _stages(calls: _Calls, chunks: int) -> dict[str, float]:
    """Median seconds of each part of a chunk of all calls; their sum is a chunk made without the pipeline.

    audio: features of the sound, and all else that comes before a pass; transfer: from the decoder's output to
    pixels in the processor's memory. Once the window has slid passes are replayed where they are recorded, and
    compilation is done: both happen in the chunks that do not count.
    """
    engine, opened = calls.engine, calls.open()
    steps = [f"dit_step_{step + 1}" for step in range(engine.chunk.steps)]
    seen: list[dict[str, float]] = []
    for pieces, coming in islice(pairwise(calls.pieces()), calls.warmup + chunks):
        watch, step = _Watch(calls.devices), iter(steps)
        with watch.part("push"):
            for call, samples in zip(opened, pieces, strict=True):
                call.audio.push(samples)
        # Calls in step share every pass, so the model is passed once per step.
        with watch.passes(engine, partial(next, step)):
            calls.make(opened, coming, watch)
        spent = watch.spent
        passes = {name: spent[name] for name in steps}
        audio = spent["push"] + spent["denoise"] - sum(passes.values())
        seen.append({"audio": audio, **passes, "decode": spent["decode"], "transfer": spent["transfer"]})
    return {name: median(one[name] for one in seen[calls.warmup :]) for name in seen[0]}


def _throughput(
    calls: _Calls, opened: list[Call], seconds: float, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """When each chunk came out of the pipeline, [n + 1], and the memory in use then, in megabytes."""
    wanted = max(2, round(seconds * FPS / calls.chunk_frames))
    total = calls.warmup + wanted + 1
    arrivals, memory = np.zeros(total), np.zeros(total)
    forget_peak_memory(calls.devices)
    with closing(stream_frames(calls.engine, opened, calls.pieces())) as chunks:
        for index, _ in zip(range(total), chunks, strict=False):
            arrivals[index] = time.perf_counter()
            memory[index] = memory_mb(calls.devices)
            if progress:
                progress(index + 1, total)
    return arrivals[calls.warmup :], memory[calls.warmup :]


def _age(calls: _Calls, old: list[Call], made: int) -> dict[str, float]:
    """old_over_new: seconds of a chunk of calls that have made so many over those of new ones; a median.

    A processor is faster in one minute than in another. So they take turns, and whatever slows it slows both. On other
    devices there may be no memory for so many calls again, and nothing is measured.
    """
    if calls.engine.device.type != "cpu":
        return {}
    new, ratios = calls.open(), []
    for pieces, coming in islice(pairwise(calls.pieces()), calls.warmup + min(TURNS, made // 10 + 1)):
        spent = []
        for opened in (old, new):
            watch = _Watch(calls.devices)
            with watch.part("all"):
                for call, samples in zip(opened, pieces, strict=True):
                    call.audio.push(samples)
                    call.audio.pad()  # the first piece is a short one: a new call's first chunk is
                calls.make(opened, coming, watch)
            spent.append(watch.spent["all"])
        ratios.append(spent[0] / spent[1])
    return {"old_over_new": round(median(ratios[calls.warmup :]), 4)}
