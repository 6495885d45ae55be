"""Chunk n + 1 is denoised while chunk n is decoded: two stages, each on a thread of its own.

B calls, C latent channels, f latent frames of a chunk, h w latent rows and columns, T video frames, H W pixels.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from talkingmachines.placement.channel import Channel, Stopped
from talkingmachines.streaming.engine import Call, Engine

Item = TypeVar("Item")

AHEAD = 1
"""Chunks that may lie between the stages, and finished ones behind the decoder. More would only cost memory and
latency: the stages differ in speed, but the speed of each hardly changes from chunk to chunk."""

DECODER_SHARE = 1 / 3
"""The decoder's part of the processor's threads: to be about its part of the work of a chunk, which `bench` measures;
until then a guess. Two stages that both took all threads would wait for each other in every layer."""


@dataclass(frozen=True)
class Place:
    """Where a stage runs. threads: of the processor, for its operations; they do not matter on other devices."""

    device: torch.device
    threads: int


def places(engine: Engine, threads: int | None = None) -> tuple[Place, Place]:
    """Where the two stages of an engine run: the denoiser, and the decoder.

    threads: those of the processor that they share; torch's own number unless given.
    """
    threads = torch.get_num_threads() if threads is None else threads
    devices = engine.device, engine.vae.latent_mean.device
    if any(device.type != "cpu" for device in devices):
        return Place(devices[0], threads), Place(devices[1], threads)
    decoder = max(1, round(threads * DECODER_SHARE))
    return Place(devices[0], max(1, threads - decoder)), Place(devices[1], decoder)


def stream_frames(
    engine: Engine,
    calls: Sequence[Call],
    pieces: Iterable[Sequence[np.ndarray]],
    stages: tuple[Place, Place] | None = None,
) -> Generator[list[np.ndarray], None, None]:
    """The video of calls that go in step: for every chunk, in order, [T, H, W, 3] uint8 of each call.

    pieces: sound of any length, float32 [n] for each call, the same n for all of them; a last chunk that is not full
    is completed with silence. They are taken on a thread of their own, as they are needed: each chunk hears a little of
    what comes after it. stages: see `places`.

    What a stage or `pieces` raises is raised here, after the chunks before it. Ending early (`close`, or an error in
    the caller) waits for the chunk at hand and leaves no thread behind.
    """
    denoiser, decoder = stages or places(engine)
    # Threads that are born later begin with the number that was set last, whoever set it.
    usual = torch.get_num_threads()

    def denoised() -> Generator[_Sent, None, None]:
        for latents in _latents(engine, calls, pieces):
            yield _send(latents, decoder.device)

    def decoded() -> Generator[list[np.ndarray], None, None]:
        with closing(_in_background(denoised, denoiser, usual)) as chunks:
            for sent in chunks:
                latents = sent.receive()
                yield [engine.decode(call, latents[row : row + 1]) for row, call in enumerate(calls)]

    with closing(_in_background(decoded, decoder, usual)) as frames:
        yield from frames


def _latents(
    engine: Engine, calls: Sequence[Call], pieces: Iterable[Sequence[np.ndarray]]
) -> Generator[Tensor, None, None]:
    """[B, C, f, h, w] of every chunk."""
    sound = _Sound(calls, pieces)
    while True:
        sound.gather(calls[0].audio.wanted + calls[0].audio.ahead)
        sound.left = [call.audio.push(rest) for call, rest in zip(calls, sound.left, strict=True)]
        if not calls[0].audio.ready:
            break
        yield engine.denoise(calls, sound.left)
    if sound.failure:
        raise sound.failure
    if calls[0].audio.pending:
        for call in calls:
            call.audio.pad()
        yield engine.denoise(calls)


class _Sound:
    """What comes in pieces for calls in step. left: float32 [n] of each call, not used yet; failure: what ended it."""

    def __init__(self, calls: Sequence[Call], pieces: Iterable[Sequence[np.ndarray]]) -> None:
        self.left = [np.zeros(0, np.float32) for _ in calls]
        self.failure: BaseException | None = None
        self._calls, self._pieces = calls, iter(pieces)

    def gather(self, samples: int) -> None:
        """Takes pieces until so many samples are left, or no more come."""
        while len(self.left[0]) < samples and self.failure is None:
            try:
                piece = next(self._pieces, None)
            except BaseException as error:  # it comes after the chunks whose sound is there
                self.failure = error
                return
            if piece is None:
                return
            assert len(piece) == len(self._calls), (len(piece), len(self._calls))
            states = {(call.audio.wanted, len(one)) for call, one in zip(self._calls, piece, strict=True)}
            assert len(states) == 1, "not in step"
            # The first piece is often all there is, and long.
            waits = len(self.left[0]) > 0
            self.left = [np.concatenate(both) for both in zip(self.left, piece, strict=True)] if waits else list(piece)


def _in_background(
    items: Callable[[], Generator[Item, None, None]], place: Place, usual: int
) -> Generator[Item, None, None]:
    """What a generator function yields, run at `place` on a thread of its own, AHEAD items before they are asked for.

    usual: the number of threads that torch gives to threads born later. Closing it ends the generator, and the thread.
    """
    channel: Channel[Item] = Channel(AHEAD)

    def run() -> None:
        error: BaseException | None = None
        try:
            with _placed(place, usual), suppress(Stopped), closing(items()) as made:
                for item in made:
                    channel.put(item)
        except BaseException as raised:  # it belongs to the consumer, whatever it is
            error = raised
        channel.close(error)

    # A daemon: a caller that never closes the iterator can still end the program.
    thread = threading.Thread(target=run, daemon=True)
    if place.device.type == "cuda":
        # The stage has a stream of its own, which knows nothing of what the caller has queued before.
        torch.cuda.synchronize(place.device)
    thread.start()
    try:
        yield from channel
    finally:
        channel.stop()
        thread.join()


@contextmanager
def _placed(place: Place, usual: int) -> Generator[None, None, None]:
    """On this thread: the place's number of threads, or a stream of its own on its device."""
    if place.device.type == "cuda":
        stream = torch.cuda.Stream(place.device)
        with torch.cuda.device(place.device), torch.cuda.stream(stream):
            yield
        stream.synchronize()
        return
    # The number is this thread's own, but also what later threads begin with. A thread that ends at once sets that
    # back without changing this one, which has to have begun (by asking) to stay as it is.
    torch.get_num_threads()
    torch.set_num_threads(place.threads)
    reset = threading.Thread(target=torch.set_num_threads, args=(usual,))
    reset.start()
    reset.join()
    yield


@dataclass(frozen=True)
class _Sent:
    """Latents on their way to another stage. ready: when they are there, on devices that work on their own."""

    latents: Tensor
    ready: torch.cuda.Event | None = None

    def receive(self) -> Tensor:
        """The latents, for what this thread queues from now on."""
        if self.ready is not None and self.latents.device.type == "cuda":
            stream = torch.cuda.current_stream(self.latents.device)
            stream.wait_event(self.ready)
            # Their memory was another stream's, and is not to be used again before this one is done with it.
            self.latents.record_stream(stream)
        elif self.ready is not None:
            self.ready.synchronize()
        return self.latents


def _send(latents: Tensor, device: torch.device) -> _Sent:
    """Starts the way to `device`. On CUDA nothing waits: the copy has a stream of its own, beside the next chunk's."""
    if latents.device.type != "cuda":
        return _Sent(latents.to(device))
    copying = torch.cuda.Stream(latents.device)
    copying.wait_stream(torch.cuda.current_stream(latents.device))
    with torch.cuda.stream(copying):
        moved = latents.to(device, non_blocking=True)
        latents.record_stream(copying)
        return _Sent(moved, copying.record_event())
