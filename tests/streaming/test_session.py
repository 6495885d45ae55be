"""A session as its user sees it."""

import threading
from queue import SimpleQueue

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_models import picture, random_engine, samples_of, sound, whole_call
from torch import Tensor

from talkingmachines.errors import MediaError, SessionError
from talkingmachines.streaming.engine import Call, Engine
from talkingmachines.streaming.session import Session
from talkingmachines.types import VideoFrame


def open_session(engine: Engine, seed: int = 0) -> Session:
    return Session(engine, engine.open(picture(), seed))


def pixels(frames: list[VideoFrame]) -> np.ndarray:
    return np.stack([frame.pixels for frame in frames])


@pytest.mark.parametrize("size", [1, 639, 641, 5760, 10**6])
def test_pieces_of_any_size_equal_the_whole(engine: Engine, size: int) -> None:
    samples = sound(samples_of(engine, 5))
    session, frames = open_session(engine, 3), []
    for start in range(0, len(samples), size):
        frames += session.push_audio(samples[start : start + size])
    whole = whole_call(engine, picture(), samples, 3)[1]
    assert len(frames) == len(whole) and np.abs(pixels(frames).astype(int) - whole).max() <= 1
    assert [frame.pts for frame in frames] == [index / 25 for index in range(len(frames))]
    assert frames[7].pts == 0.28 and frames[0].pixels.dtype == np.uint8


@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(0, 20_000), min_size=1, max_size=5).filter(any))
def test_any_pieces_give_the_same_frames_to_the_bit(engine: Engine, sizes: list[int]) -> None:
    samples = sound(samples_of(engine, 3) + 500)
    expected = open_session(engine).push_audio(samples)
    session, frames, start, turn = open_session(engine), [], 0, 0
    while start < len(samples):
        frames += session.push_audio(samples[start : start + sizes[turn % len(sizes)]])
        start, turn = start + sizes[turn % len(sizes)], turn + 1
    assert np.array_equal(pixels(frames), pixels(expected))


def test_what_is_coming_changes_the_end_of_a_chunk_and_nothing_later(engine: Engine) -> None:
    samples = sound(samples_of(engine, 3))
    first, later = np.split(samples, [samples_of(engine, 1)])
    told, untold = open_session(engine), open_session(engine)
    assert told.samples_ahead == 2 * 640
    frames, plain = told.push_audio(first, later), untold.push_audio(first)
    assert not np.array_equal(pixels(frames), pixels(plain))
    at_once = open_session(engine).push_audio(samples, np.zeros(0, np.float32))
    frames += told.push_audio(later, np.zeros(0, np.float32))
    assert np.array_equal(pixels(frames), pixels(at_once))
    with pytest.raises(MediaError, match="NaN"):
        told.push_audio(samples, np.full(640, np.nan, np.float32))
    assert len(told.push_audio(later)) == 16


def test_halves_on_two_threads_give_the_same_frames(engine: Engine) -> None:
    samples, whole = sound(samples_of(engine, 5)), open_session(engine)
    expected = whole.push_audio(samples, np.zeros(0, np.float32))
    session, denoised, frames = open_session(engine), SimpleQueue[Tensor | None](), list[VideoFrame]()

    def decode() -> None:
        while (latents := denoised.get()) is not None:
            frames.extend(session.decode(latents))

    decoder = threading.Thread(target=decode)
    decoder.start()
    while len(samples):
        now, samples = np.split(samples, [session.samples_wanted])
        denoised.put(session.denoise(now, samples))
    denoised.put(None)
    decoder.join()
    assert np.array_equal(pixels(frames), pixels(expected))
    assert [frame.pts for frame in frames] == [frame.pts for frame in expected]


def test_samples_wanted_are_what_a_chunk_takes(engine: Engine) -> None:
    session = open_session(engine)
    assert session.samples_wanted == 5 * 640
    assert session.push_audio(np.zeros(session.samples_wanted - 1, np.float32)) == []
    assert session.samples_wanted == 1
    assert len(session.push_audio(np.zeros(1, np.float32))) == 5
    assert session.samples_wanted == 8 * 640
    assert session.push_audio(np.zeros(0, np.float32)) == [] and session.samples_wanted == 8 * 640


def test_end_of_a_segment_is_silence_up_to_the_chunk(engine: Engine) -> None:
    begun = samples_of(engine, 2) - 3000
    ended, spelt_out = open_session(engine), open_session(engine)
    frames = ended.push_audio(sound(begun)) + ended.end_segment()
    assert ended.end_segment() == []
    frames += ended.push_audio(sound(8 * 640, 1))
    silence = np.zeros(3000, np.float32)
    expected = spelt_out.push_audio(np.concatenate([sound(begun), silence, sound(8 * 640, 1)]))
    assert np.array_equal(pixels(frames), pixels(expected))
    assert [frame.pts for frame in frames] == [frame.pts for frame in expected]


def test_nothing_pends_at_first_so_no_segment_ends(engine: Engine) -> None:
    assert open_session(engine).end_segment() == []


def test_an_interrupt_drops_what_was_not_spoken_and_the_picture_goes_on(engine: Engine) -> None:
    two = samples_of(engine, 2)
    cut, never = open_session(engine), open_session(engine)
    frames = cut.push_audio(sound(two + 4000))
    expected = never.push_audio(sound(two))
    for session in (cut, never):
        session.interrupt()
        session.interrupt()
    silence = np.zeros(8 * 640, np.float32)
    frames += cut.push_audio(silence)
    expected += never.push_audio(silence)
    assert np.array_equal(pixels(frames), pixels(expected))
    assert [frame.pts for frame in frames] == [index / 25 for index in range(samples_of(engine, 3) // 640)]


def test_a_closed_session_says_so(engine: Engine) -> None:
    with open_session(engine) as session:
        session.push_audio(sound(1000))
    session.close()
    session.interrupt()
    for call in (lambda: session.push_audio(sound(10)), session.end_segment):
        with pytest.raises(SessionError, match="closed"):
            call()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.full(9000, np.nan, np.float32), "NaN"),
        (np.append(np.zeros(9000, np.float32), np.float32(-np.inf)), "infinite"),
        (np.zeros((2, 9000), np.float32), r"mono.*\[2, 9000\]"),
        (np.zeros(9000, np.int16), "int16"),
        (np.float32(0.5), "float32"),
        ([0.0] * 9000, "list"),
    ],
)
def test_wrong_sound_changes_nothing(engine: Engine, bad: np.ndarray, words: str) -> None:
    session, undisturbed = open_session(engine), open_session(engine)
    samples = sound(samples_of(engine, 2))
    frames = session.push_audio(samples[:4000])
    with pytest.raises(MediaError, match=words) as caught:
        session.push_audio(bad)
    assert "\n" not in str(caught.value)
    frames += session.push_audio(samples[4000:])
    assert np.array_equal(pixels(frames), pixels(undisturbed.push_audio(samples)))


def test_too_loud_sound_is_cut(engine: Engine) -> None:
    samples = 9 * sound(samples_of(engine, 2)).astype(np.float64)
    assert np.abs(samples).max() > 1
    frames, expected = (open_session(engine).push_audio(one) for one in (samples, samples.clip(-1, 1)))
    assert np.array_equal(pixels(frames), pixels(expected))


def test_a_second_thread_is_told_and_disturbs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = random_engine()
    samples = sound(samples_of(engine, 2))
    expected = open_session(engine).push_audio(samples)
    inside, go_on = threading.Event(), threading.Event()
    decode = engine.decode

    def slow(call: Call, latents: Tensor) -> np.ndarray:
        inside.set()
        assert go_on.wait(20)
        return decode(call, latents)

    monkeypatch.setattr(engine, "decode", slow)
    session, frames = open_session(engine), []
    thread = threading.Thread(target=lambda: frames.extend(session.push_audio(samples)))
    thread.start()
    assert inside.wait(20)
    for call in (lambda: session.push_audio(samples), session.end_segment, session.interrupt):
        with pytest.raises(SessionError, match="another thread"):
            call()
    go_on.set()
    thread.join(20)
    assert np.array_equal(pixels(frames), pixels(expected))


def test_closing_ends_a_push_at_work_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = random_engine()
    session, decode = open_session(engine), engine.decode

    def closing(call: Call, latents: Tensor) -> np.ndarray:
        thread = threading.Thread(target=session.close)
        thread.start()
        thread.join()
        return decode(call, latents)

    monkeypatch.setattr(engine, "decode", closing)
    with pytest.raises(SessionError, match="closed"):
        session.push_audio(sound(samples_of(engine, 3)))


@pytest.mark.parametrize("stage", ["denoise", "decode"])
def test_a_stage_that_raises_ends_its_session_alone(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = random_engine()
    samples = sound(samples_of(engine, 3))
    expected = open_session(engine).push_audio(samples)
    broken, other = open_session(engine), open_session(engine)
    frames = other.push_audio(samples[:6000])

    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine, stage, fails)
        with pytest.raises(RuntimeError, match="out of memory"):
            broken.push_audio(samples)
    for call in (lambda: broken.push_audio(samples), broken.end_segment, broken.interrupt):
        with pytest.raises(SessionError, match=r"ended this session .out of memory"):
            call()
    broken.close()
    broken.interrupt()
    frames += other.push_audio(samples[6000:])
    assert np.array_equal(pixels(frames), pixels(expected))
