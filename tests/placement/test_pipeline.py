"""The two stages: the same frames as one after the other, and an end in every way that a call can end."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from talkingmachines.dit.model import DiT
from talkingmachines.evaluation.random_avatar import random_features
from talkingmachines.placement.pipeline import Place, _send, places, stream_frames
from talkingmachines.presets import tiny
from talkingmachines.streaming.engine import Call, Engine
from talkingmachines.types import SAMPLES_PER_FRAME
from talkingmachines.vae.model import CausalVAE

CPU = torch.device("cpu")
ONE_EACH = Place(CPU, 1), Place(CPU, 1)


@pytest.fixture(scope="module")
def engine() -> Engine:
    torch.manual_seed(0)
    spec = tiny()
    student, vae = DiT(spec.dit).eval(), CausalVAE(spec.vae).eval()
    for parameter in [*student.parameters(), *vae.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    features = random_features(spec)
    assert features is not None
    return Engine(student, vae, spec.chunk, spec.size, CPU, spec.sampling.face_box, features=features)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No thread, and torch's number of threads as it was, here and in threads to come."""
    usual, before = torch.get_num_threads(), set(threading.enumerate())
    torch.set_num_threads(1)
    yield
    assert not set(threading.enumerate()) - before
    born_later: list[int] = []
    thread = threading.Thread(target=lambda: born_later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (born_later, torch.get_num_threads()) == ([1], 1)
    torch.set_num_threads(usual)


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def speech(frames: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(frames * SAMPLES_PER_FRAME)).astype(np.float32)


def one_after_the_other(engine: Engine, call: Call, sound: np.ndarray) -> list[np.ndarray]:
    made = []
    while len(sound):
        sound = call.audio.push(sound)
        if not call.audio.ready:
            call.audio.pad()
        made.append(engine.decode(call, engine.denoise([call], [sound])))
    return made


@pytest.mark.parametrize("piece", [333, 640, 5 * 640, 100_000])
def test_the_same_frames_as_one_after_the_other(engine: Engine, piece: int) -> None:
    sound = speech(5 + 3 * 8 + 2.5)
    expected = one_after_the_other(engine, engine.open(picture(), 3), sound)
    pieces = ([sound[start : start + piece]] for start in range(0, len(sound), piece))
    made = [frames for [frames] in stream_frames(engine, [engine.open(picture(), 3)], pieces, ONE_EACH)]
    assert [len(frames) for frames in made] == [5, 8, 8, 8, 8]
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_calls_in_step(engine: Engine) -> None:
    sounds = [speech(21, seed) for seed in range(3)]
    together = list(stream_frames(engine, [engine.open(picture(), seed) for seed in range(3)], [sounds], ONE_EACH))
    for seed, sound in enumerate(sounds):
        alone = one_after_the_other(engine, engine.open(picture(), seed), sound)
        for one, other in zip(alone, (chunk[seed] for chunk in together), strict=True):
            assert np.abs(one.astype(int) - other).max() <= 1


def test_no_sound_no_frames(engine: Engine) -> None:
    assert list(stream_frames(engine, [engine.open(picture(), 0)], [], ONE_EACH)) == []
    assert list(stream_frames(engine, [engine.open(picture(), 0)], [[speech(0)]], ONE_EACH)) == []


class Gated(Engine):
    """An engine whose stages say when they begin, and may be held or fail."""

    def __init__(self, engine: Engine) -> None:
        models = engine.student, engine.vae
        super().__init__(*models, engine.chunk, engine.size, engine.device, engine.face_box, features=engine.features)
        self.denoised: list[int] = []
        self.decoded: list[int] = []
        self.decode_may_go = threading.Event()
        self.decode_may_go.set()
        self.fails: tuple[str, int] = ("", -1)

    def denoise(self, calls: Sequence[Call], coming: Sequence[np.ndarray] | None = None) -> Tensor:
        if self.fails == ("denoise", calls[0].chunk):
            raise RuntimeError("denoise broke")
        self.denoised.append(calls[0].chunk)
        return super().denoise(calls, coming)

    def decode(self, call: Call, latents: Tensor) -> np.ndarray:
        assert self.decode_may_go.wait(10)
        if self.fails == ("decode", len(self.decoded)):
            raise RuntimeError("decode broke")
        self.decoded.append(len(self.decoded))
        return super().decode(call, latents)


def until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_the_next_chunk_is_denoised_while_one_is_decoded(engine: Engine) -> None:
    gated = Gated(engine)
    gated.decode_may_go.clear()
    frames = stream_frames(gated, [gated.open(picture(), 0)], [[speech(200)]], ONE_EACH)
    first: list[list[np.ndarray]] = []
    reader = threading.Thread(target=lambda: first.append(next(frames)))
    reader.start()
    # One in the decoder, one between the stages, one that waits to be put there; and no more.
    until(lambda: len(gated.denoised) == 3)
    time.sleep(0.05)
    assert (gated.denoised, gated.decoded) == ([0, 1, 2], [])
    gated.decode_may_go.set()
    reader.join(10)
    assert len(first) == 1
    frames.close()


@pytest.mark.parametrize("stage", ["denoise", "decode"])
@pytest.mark.parametrize("chunk", [0, 2])
def test_an_error_ends_its_own_stream_and_no_other(engine: Engine, stage: str, chunk: int) -> None:
    broken = Gated(engine)
    broken.fails = stage, chunk
    sound = speech(5 + 8 * 3)
    good = stream_frames(engine, [engine.open(picture(), 0)], [[sound]], ONE_EACH)
    next(good)
    made = []
    with pytest.raises(RuntimeError, match=f"{stage} broke"):
        for frames in stream_frames(broken, [broken.open(picture(), 0)], [[sound]], ONE_EACH):
            made.append(frames)
    assert len(made) == chunk
    assert len(list(good)) == 3


def test_an_error_of_the_sound_comes_after_the_chunks_before_it(engine: Engine) -> None:
    def pieces() -> Iterator[list[np.ndarray]]:
        yield [speech(13)]
        raise OSError("the line is dead")

    frames = stream_frames(engine, [engine.open(picture(), 0)], pieces(), ONE_EACH)
    assert [len(next(frames)[0]), len(next(frames)[0])] == [5, 8]
    with pytest.raises(OSError, match="line is dead"):
        next(frames)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_ending_early_ends_the_stages(engine: Engine, taken: int) -> None:
    gated = Gated(engine)
    frames = stream_frames(gated, [gated.open(picture(), 0)], itertools.repeat([speech(3)]), ONE_EACH)
    for _ in range(taken):
        next(frames)
    frames.close()
    # One waits at each end of a stage and one is at hand in it.
    assert len(gated.denoised) <= (taken + 5 if taken else 0)
    assert list(frames) == []


def test_each_stage_has_its_share_of_the_threads(engine: Engine) -> None:
    seen: dict[str, int] = {}

    class Counting(Engine):
        def denoise(self, calls: Sequence[Call], coming: Sequence[np.ndarray] | None = None) -> Tensor:
            seen["denoise"] = torch.get_num_threads()
            return super().denoise(calls, coming)

        def decode(self, call: Call, latents: Tensor) -> np.ndarray:
            seen["decode"] = torch.get_num_threads()
            return super().decode(call, latents)

    counting = Counting(engine.student, engine.vae, engine.chunk, engine.size, engine.device, engine.face_box)
    stages = Place(CPU, 3), Place(CPU, 2)
    assert len(list(stream_frames(counting, [engine.open(picture(), 0)], [[speech(5)]], stages))) == 1
    assert seen == {"denoise": 3, "decode": 2}


@pytest.mark.parametrize(("threads", "share"), [(1, (1, 1)), (2, (1, 1)), (3, (2, 1)), (4, (3, 1)), (16, (11, 5))])
def test_shares_add_up(engine: Engine, threads: int, share: tuple[int, int]) -> None:
    denoiser, decoder = places(engine, threads)
    assert (denoiser.threads, decoder.threads) == share


def test_on_a_gpu_latents_are_handed_over_in_order_and_no_thread_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each stream is told, in order: the copy follows the denoiser's work, and the decoder's work the copy."""
    said: list[tuple[str, str]] = []

    class Stream:
        def __init__(self, device: torch.device, name: str = "copying") -> None:
            self.name = name

        def wait_stream(self, other: "Stream") -> None:
            said.append((self.name, f"waits for {other.name}"))

        def record_event(self) -> str:
            said.append((self.name, "marks"))
            return f"mark of {self.name}"

        def wait_event(self, event: str) -> None:
            said.append((self.name, f"waits for {event}"))

    class Latents:
        device = torch.device("cuda")

        def to(self, device: torch.device, non_blocking: bool) -> "Latents":
            assert non_blocking
            said.append((streams[-1].name, "copies"))
            return self

        def record_stream(self, stream: Stream) -> None:
            said.append((stream.name, "keeps the memory"))

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        streams.append(stream)
        yield
        streams.pop()

    streams = [Stream(Latents.device, "denoiser")]
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams[-1])
    monkeypatch.setattr(torch.cuda, "stream", on)
    sent = _send(Latents(), Latents.device)  # type: ignore[arg-type]
    with on(Stream(Latents.device, "decoder")):
        sent.receive()
    assert said == [
        ("copying", "waits for denoiser"),
        ("copying", "copies"),
        ("copying", "keeps the memory"),
        ("copying", "marks"),
        ("decoder", "waits for mark of copying"),
        ("decoder", "keeps the memory"),
    ]
