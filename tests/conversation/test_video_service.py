"""The avatar in a pipeline: all speech once and in order, each piece with its picture, nothing after a cut."""

import asyncio
import time

import numpy as np
import pytest
from call_parts import PICTURE, SIZE, Painter, call_threads, run_pipeline, speech
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputImageRawFrame,
    SpeechOutputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

from talkingmachines.conversation.counts import CallCounts
from talkingmachines.conversation.video_service import CUSHION, AvatarVideoService
from talkingmachines.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME


def said(samples: np.ndarray, rate: int = SAMPLE_RATE, channels: int = 1) -> TTSAudioRawFrame:
    return TTSAudioRawFrame(samples.tobytes(), rate, channels)


def run(play, avatar=None, counts=None):
    service = AvatarVideoService(avatar or Painter(), PICTURE, counts=counts)
    return asyncio.run(run_pipeline([service], play))


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Without the silence that fills the first and last picture's sound. Speech has no zero in these tests."""
    return samples[samples != 0]


@pytest.mark.parametrize("piece", [640, 333, 5000])
def test_all_speech_comes_out_once_and_in_order_with_its_pictures(piece: int) -> None:
    words = speech(0.9)

    async def play(worker) -> None:
        await asyncio.sleep(0.25)
        await worker.queue_frame(TTSStartedFrame())
        for start in range(0, len(words), piece):
            await worker.queue_frame(said(words[start : start + piece]))
        await worker.queue_frame(TTSStoppedFrame())

    counts = CallCounts()
    seen, errors = run(play, counts=counts)
    assert not errors
    assert np.array_equal(trimmed(seen.samples), words)
    for sound, shown in seen.pairs:
        assert len(sound) == SAMPLES_PER_FRAME and np.array_equal(sound[:4], shown)
    assert counts.spoken_frames == len(seen.pairs) and counts.frames == len(seen.of(OutputImageRawFrame))
    assert all(frame.sample_rate == SAMPLE_RATE for frame in seen.of(OutputAudioRawFrame))


def test_where_pictures_take_too_long_the_speech_goes_on_without_them() -> None:
    words = speech(3)

    async def play(worker) -> None:
        await worker.queue_frames([said(words), TTSStoppedFrame()])
        await asyncio.sleep(4.5)

    seen, errors = run(play, Painter(takes=0.25))
    assert not errors
    assert np.array_equal(trimmed(seen.samples), words)
    shown = [(sound, picture) for sound, picture in seen.pairs if picture is not None]
    assert 20 < len(shown) < len(seen.pairs) - 10
    assert all(np.array_equal(sound[:4], picture) for sound, picture in shown)
    times = [at for at, frame in seen.frames if isinstance(frame, OutputAudioRawFrame)]
    assert times[-1] - times[0] < 4, "3 s of speech"


def test_pictures_come_without_speech_and_bring_no_sound() -> None:
    async def play(worker) -> None:
        await asyncio.sleep(1.2)

    counts = CallCounts()
    seen, _ = run(play, counts=counts)
    pictures = seen.of(OutputImageRawFrame)
    assert 0.8 * FPS <= len(pictures) <= 1.5 * FPS and not seen.of(OutputAudioRawFrame)
    assert all(picture.sync_with_audio and picture.size == (SIZE, SIZE) for picture in pictures)
    assert counts.first_frame is not None and counts.first_frame < 1


@pytest.mark.parametrize(("rate", "channels"), [(22050, 1), (24000, 1), (48000, 2), (19184, 1)])
def test_any_rate_becomes_sixteen_kilohertz(rate: int, channels: int) -> None:
    tone = np.sin(np.arange(round(0.6 * rate)) * 2 * np.pi * 220 / rate) * 12000
    pcm = np.repeat(tone.astype("<i2"), channels)

    async def play(worker) -> None:
        for start in range(0, len(pcm), 3000 * channels):
            await worker.queue_frame(said(pcm[start : start + 3000 * channels], rate, channels))
        await worker.queue_frame(TTSStoppedFrame())

    seen, _ = run(play)
    heard = seen.samples.astype(float)
    heard = heard[np.flatnonzero(np.abs(heard) > 50)[0] :]
    wanted = np.sin(np.arange(round(0.6 * SAMPLE_RATE)) * 2 * np.pi * 220 / SAMPLE_RATE) * 12000
    assert abs(np.count_nonzero(np.abs(heard) > 20) - len(wanted)) < 0.02 * len(wanted)
    middle = slice(1000, 8000)
    assert np.max(np.correlate(heard[: len(wanted)], wanted[middle], "valid")) > 0.98 * np.sum(wanted[middle] ** 2)


def test_speech_begins_with_a_cushion_so_that_the_transport_never_runs_dry() -> None:
    words = speech(0.8)

    async def play(worker) -> None:
        await asyncio.sleep(0.3)
        await worker.queue_frame(said(words))
        await asyncio.sleep(1.3)

    seen, _ = run(play)
    sounds = [at for at, frame in seen.frames if isinstance(frame, OutputAudioRawFrame)]
    lead = [index / FPS - (at - sounds[0]) for index, at in enumerate(sounds)]
    assert min(lead[1:]) > -0.02, "a sound came later than the ones before it last"
    assert max(lead) == pytest.approx(CUSHION / FPS, abs=0.03)


def test_an_interruption_drops_all_that_was_not_played() -> None:
    words, answer = speech(2.0, 1), speech(0.4, 2)
    cut_at = 0.0

    async def play(worker) -> None:
        nonlocal cut_at
        await worker.queue_frame(said(words))
        await worker.queue_frame(TTSTextFrame("never said", text_type="sentence"))
        await worker.queue_frame(TTSStoppedFrame())
        await asyncio.sleep(0.7)
        cut_at = time.monotonic()
        await worker.queue_frame(InterruptionFrame())
        await asyncio.sleep(0.6)
        await worker.queue_frame(said(answer))
        await worker.queue_frame(TTSStoppedFrame())

    counts = CallCounts()
    seen, _ = run(play, counts=counts)
    heard = trimmed(seen.samples)
    first = heard[: -len(answer)]
    assert np.array_equal(heard[-len(answer) :], answer), "what is said next comes out whole"
    assert 0 < len(first) < len(words) and np.array_equal(first, words[: len(first)])
    assert not seen.of(TTSTextFrame) and len(seen.of(TTSStoppedFrame)) == 1
    passed = [at for at, frame in seen.frames if isinstance(frame, InterruptionFrame)]
    assert passed[0] - cut_at < 0.1
    # A frame that was handed on in the same moment may arrive after the interruption, which overtakes it.
    after = [at for at, frame in seen.frames if isinstance(frame, OutputAudioRawFrame) and at > passed[0] + 1 / FPS]
    assert not after or after[0] > cut_at + 0.6
    silent = [at for at, frame in seen.frames if isinstance(frame, OutputImageRawFrame) and at > passed[0]]
    assert silent[0] - cut_at < 0.6, "the mouth shuts"
    assert counts.interruptions == 1


def test_interrupted_again_and_again_it_goes_on() -> None:
    async def play(worker) -> None:
        for seed in range(12):
            await worker.queue_frame(said(speech(0.5, seed)))
            await asyncio.sleep(0.03 * seed % 0.11)
            await worker.queue_frame(InterruptionFrame())
        await worker.queue_frame(said(last))
        await worker.queue_frame(TTSStoppedFrame())

    last = speech(0.3, 99)
    seen, errors = run(play)
    assert not errors and np.array_equal(trimmed(seen.samples)[-len(last) :], last)


def test_what_belongs_to_the_speech_keeps_its_place() -> None:
    one, two = speech(0.3, 1), speech(0.3, 2)

    async def play(worker) -> None:
        for words, text in ((one, "One."), (two, "Two.")):
            await worker.queue_frame(said(words))
            await worker.queue_frame(TTSTextFrame(text, text_type="sentence"))
        await worker.queue_frame(TTSStoppedFrame())

    seen, _ = run(play)
    order: list[str] = []
    for frame in seen.of(OutputAudioRawFrame, TTSTextFrame, TTSStoppedFrame):
        name = frame.text if isinstance(frame, TTSTextFrame) else type(frame).__name__
        if order[-1:] != [name]:
            order.append(name)
    assert order == ["TTSAudioRawFrame", "One.", "TTSAudioRawFrame", "Two.", "TTSStoppedFrame"]


def test_sound_keeps_its_kind() -> None:
    async def play(worker) -> None:
        await worker.queue_frame(SpeechOutputAudioRawFrame(speech(0.2).tobytes(), SAMPLE_RATE, 1))

    seen, _ = run(play)
    assert {type(frame) for frame in seen.of(OutputAudioRawFrame)} == {SpeechOutputAudioRawFrame}


def test_the_time_of_a_turn_runs_from_the_end_of_the_users_speech() -> None:
    async def play(worker) -> None:
        await worker.queue_frame(VADUserStoppedSpeakingFrame(stop_secs=0.2))
        await asyncio.sleep(0.4)
        await worker.queue_frame(said(speech(0.5)))
        await worker.queue_frame(TTSStoppedFrame())
        await asyncio.sleep(0.8)

    counts = CallCounts()
    run(play, counts=counts)
    assert counts.turns == 1 and 0.6 <= counts.turn_times[0] < 1.4


def test_what_the_user_has_begun_to_say_is_not_answered_yet() -> None:
    async def play(worker) -> None:
        await worker.queue_frame(VADUserStoppedSpeakingFrame(stop_secs=0.2))
        await worker.queue_frame(VADUserStartedSpeakingFrame())
        await worker.queue_frame(said(speech(0.5)))
        await worker.queue_frame(TTSStoppedFrame())
        await asyncio.sleep(0.8)

    counts = CallCounts()
    run(play, counts=counts)
    assert counts.turns == 0


def test_the_event_loop_is_not_blocked() -> None:
    longest = 0.0

    async def play(worker) -> None:
        nonlocal longest
        await worker.queue_frame(said(speech(0.6)))
        end = time.monotonic() + 1
        while (before := time.monotonic()) < end:
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - before)

    run(play, avatar=Painter(takes=0.12))
    assert longest < 0.1, "a chunk takes 0.12 s to make"


def test_an_avatar_that_fails_is_reported() -> None:
    async def play(worker) -> None:
        await asyncio.sleep(0.8)

    _, errors = run(play, avatar=Painter(fails_at=2))
    assert errors == ["the avatar has failed: out of paint"]


@pytest.mark.parametrize("end", [EndFrame, CancelFrame])
def test_nothing_is_left_behind(end: type) -> None:
    avatar = Painter(takes=0.05)

    async def play(worker) -> None:
        await worker.queue_frame(said(speech(3.0 if end is CancelFrame else 0.4)))
        await asyncio.sleep(0.3)
        await worker.queue_frame(end())

    async def whole() -> set:
        service = AvatarVideoService(avatar, PICTURE)
        await run_pipeline([service], play)
        return asyncio.all_tasks() - {asyncio.current_task()}

    before = call_threads()
    assert not asyncio.run(whole())
    assert avatar.sessions[0].closed and not call_threads() - before


def test_two_calls_do_not_hear_each_other() -> None:
    one, two = speech(0.6, 1), speech(0.6, 2)
    avatar = Painter()

    async def talk(words: np.ndarray):
        async def play(worker) -> None:
            await worker.queue_frame(said(words))
            await worker.queue_frame(TTSStoppedFrame())

        return await run_pipeline([AvatarVideoService(avatar, PICTURE)], play)

    async def both():
        return await asyncio.gather(talk(one), talk(two))

    (first, _), (second, _) = asyncio.run(both())
    assert np.array_equal(trimmed(first.samples), one) and np.array_equal(trimmed(second.samples), two)
