"""The avatar as livekit-agents' VideoGenerator: all speech once, in order and in time with its pictures."""

import asyncio
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from call_parts import CHUNK, PICTURE, SIZE, Painter, call_threads, speech

pytest.importorskip("livekit.agents", reason="needs the [livekit] extra")

from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd

from talkingmachines.conversation.livekit_avatar import CUSHION, AvatarVideo, Hearing
from talkingmachines.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME


@dataclass
class Taken:
    """What came out, and when."""

    items: list[tuple[float, object]] = field(default_factory=list)

    def of(self, kind: type, since: float = 0) -> list:
        return [item for at, item in self.items if isinstance(item, kind) and at >= since]

    @property
    def samples(self) -> np.ndarray:
        """int16 [n]: all speech. It has no zero in these tests, silence around it has."""
        pieces = [np.frombuffer(frame.data, "<i2") for frame in self.of(rtc.AudioFrame)]
        samples = np.concatenate([np.zeros(0, "<i2"), *pieces])
        return samples[samples != 0]


def said(samples: np.ndarray, rate: int = SAMPLE_RATE, channels: int = 1) -> rtc.AudioFrame:
    return rtc.AudioFrame(samples.tobytes(), rate, channels, len(samples) // channels)


def shown(picture: rtc.VideoFrame) -> np.ndarray:
    """The sound that a picture shows, int16 [4]."""
    return np.frombuffer(bytes(picture.data[:8]), "<i2")


def run(play, avatar=None, delay=None) -> Taken:
    """What comes out while `play(video)` runs. delay: a coroutine that runs after each thing that was taken."""
    taken = Taken()

    async def take(video: AvatarVideo) -> None:
        async for item in video:
            taken.items.append((time.monotonic(), item))
            if delay:
                await delay(item)

    async def whole() -> None:
        video = AvatarVideo(avatar or Painter(), PICTURE)
        await video.open()
        taking = asyncio.create_task(take(video))
        try:
            await play(video)
        finally:
            await video.close()
            await taking
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())
    return taken


async def until_said(video: AvatarVideo, words: np.ndarray, piece: int = 1600) -> None:
    for start in range(0, len(words), piece):
        await video.push_audio(said(words[start : start + piece]))
    await video.push_audio(AudioSegmentEnd())
    await asyncio.sleep(len(words) / SAMPLE_RATE + 0.8)


@pytest.mark.parametrize("piece", [1600, 333])
def test_all_speech_comes_out_once_and_in_order_and_then_its_end(piece: int) -> None:
    words = speech(0.9)

    async def play(video: AvatarVideo) -> None:
        await asyncio.sleep(0.3)
        await until_said(video, words, piece)

    taken = run(play)
    assert np.array_equal(taken.samples, words)
    assert all(
        (frame.sample_rate, frame.samples_per_channel) == (SAMPLE_RATE, SAMPLES_PER_FRAME)
        for frame in taken.of(rtc.AudioFrame)
    )
    kinds = [type(item) for _, item in taken.items]
    last = len(kinds) - 1 - kinds[::-1].index(rtc.AudioFrame)
    assert kinds.count(AudioSegmentEnd) == 1 and last < kinds.index(AudioSegmentEnd) < last + 6


def test_the_sound_is_handed_over_a_cushion_ahead_of_its_pictures() -> None:
    first, second = speech(0.7, 1), speech(0.5, 2)

    async def play(video: AvatarVideo) -> None:
        await asyncio.sleep(0.3)
        for words in (first, second):
            await until_said(video, words)

    taken = run(play)
    ends = [index for index, (_, item) in enumerate(taken.items) if isinstance(item, AudioSegmentEnd)]
    for words, items in zip((first, second), (taken.items[: ends[0]], taken.items[ends[0] :]), strict=True):
        ahead, sounds, pictures = [], 0, 0
        for _, item in items:
            if isinstance(item, rtc.AudioFrame):
                sounds += 1
            elif isinstance(item, rtc.VideoFrame) and (pictures or any(shown(item)) or sounds):
                ahead.append(sounds - pictures)
                pictures += 1
        count = -(-len(words) // SAMPLES_PER_FRAME)
        assert sounds - count in (0, 1)
        # One picture, its sound and the cushion; then a picture and a sound each; the last pictures bring none.
        begins = 0 if ahead[0] == 0 else 1
        assert ahead[begins:sounds] == [0, *[CUSHION] * (sounds - CUSHION - 1), *range(CUSHION, 0, -1)][begins:]


def test_pictures_come_evenly_without_speech_and_bring_no_sound() -> None:
    async def play(video: AvatarVideo) -> None:
        await asyncio.sleep(1.2)

    taken = run(play)
    times = [at for at, _ in taken.items]
    assert 0.8 * FPS <= len(times) <= 1.3 * FPS and len(taken.of(rtc.VideoFrame)) == len(times)
    assert np.median(np.diff(times)) == pytest.approx(1 / FPS, abs=0.015)
    assert all((frame.width, frame.height) == (SIZE, SIZE) for frame in taken.of(rtc.VideoFrame))


def test_colours_are_those_of_the_picture() -> None:
    async def play(video: AvatarVideo) -> None:
        await asyncio.sleep(0.3)

    picture = run(play).of(rtc.VideoFrame)[0]
    assert picture.type == rtc.VideoBufferType.RGB24 and len(picture.data) == SIZE * SIZE * 3
    assert len(picture.convert(rtc.VideoBufferType.I420).data) == SIZE * SIZE * 3 // 2


def test_an_interruption_drops_all_that_was_not_handed_over_and_the_mouth_shuts() -> None:
    words, answer = speech(2.0, 1), speech(0.4, 2)
    cut_at = 0.0

    async def play(video: AvatarVideo) -> None:
        nonlocal cut_at
        await video.push_audio(said(words))
        await asyncio.sleep(0.8)
        await video.clear_buffer()
        cut_at = time.monotonic()
        await video.push_audio(AudioSegmentEnd())  # of what was interrupted: the receiver sends it all the same
        await asyncio.sleep(0.5)
        await until_said(video, answer)

    taken = run(play)
    first = taken.samples[: -len(answer)]
    assert np.array_equal(taken.samples[-len(answer) :], answer), "what is said next comes out whole"
    assert 0 < len(first) < len(words) and np.array_equal(first, words[: len(first)])
    sounds = [at for at, item in taken.items if isinstance(item, rtc.AudioFrame) and at > cut_at]
    assert sounds[0] > cut_at + 0.5 and len(taken.of(AudioSegmentEnd)) == 1
    pictures = [(at, shown(item)) for at, item in taken.items if isinstance(item, rtc.VideoFrame) and at > cut_at]
    assert not any(pictures[0][1]) and pictures[0][0] - cut_at < (CHUNK + 4) / FPS


def test_interrupted_again_and_again_it_goes_on() -> None:
    last = speech(0.3, 99)

    async def play(video: AvatarVideo) -> None:
        for seed in range(12):
            await video.push_audio(said(speech(0.5, seed)))
            await asyncio.sleep(0.03 * seed % 0.11)
            await video.clear_buffer()
        await until_said(video, last)

    taken = run(play)
    assert np.array_equal(taken.samples[-len(last) :], last) and len(taken.of(AudioSegmentEnd)) == 1


def test_an_interruption_waits_for_the_sound_that_is_being_handed_over() -> None:
    handed_over = asyncio.Event()
    order: list[str] = []

    async def slowly(item: object) -> None:
        if isinstance(item, rtc.AudioFrame) and not handed_over.is_set():
            handed_over.set()
            await asyncio.sleep(0.1)
            order.append("handed over")

    async def play(video: AvatarVideo) -> None:
        await video.push_audio(said(speech(0.5)))
        await handed_over.wait()
        await video.clear_buffer()
        order.append("cleared")

    run(play, delay=slowly)
    assert order == ["handed over", "cleared"]


def test_a_delay_does_not_stay() -> None:
    slept = False

    async def once(item: object) -> None:
        nonlocal slept
        if not slept:
            slept = True
            await asyncio.sleep(1)  # nobody has subscribed yet

    async def play(video: AvatarVideo) -> None:
        await asyncio.sleep(2.2)

    taken = run(play, delay=once)
    times = [at - taken.items[0][0] - 1 for at, _ in taken.items[1:]]
    assert sum(at <= 0.1 for at in times) < 6, "what could not be shown in time is left out"
    assert sum(at > 0.1 for at in times) > 0.5 * FPS


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (22050, 1), (24000, 1), (48000, 2), (19184, 1)])
def test_any_rate_becomes_sixteen_kilohertz(rate: int, channels: int) -> None:
    tone = np.sin(np.arange(round(0.6 * rate)) * 2 * np.pi * 220 / rate) * 12000
    pcm = np.repeat(tone.astype("<i2"), channels)
    hearing = Hearing()
    pieces = [
        hearing.hear(said(pcm[at : at + 2400 * channels], rate, channels)) for at in range(0, len(pcm), 2400 * channels)
    ]
    heard = np.concatenate([*pieces, hearing.rest()])
    wanted = np.sin(np.arange(round(0.6 * SAMPLE_RATE)) * 2 * np.pi * 220 / SAMPLE_RATE) * 12000 / 32767
    assert heard.dtype == np.float32 and abs(len(heard) - len(wanted)) <= 2
    middle = slice(1000, 8000)
    assert np.max(np.abs(heard[middle] - wanted[middle])) < 0.01


def test_the_rate_may_change_and_nothing_is_lost() -> None:
    hearing = Hearing()
    heard = [hearing.hear(said(np.full(2400, 9, "<i2"), 24000)), hearing.hear(said(speech(0.1)))]
    samples = np.concatenate([*heard, hearing.rest()])
    assert abs(len(samples) - 3200) <= 2
    assert np.array_equal(np.round(samples[-1600:] * 32767).astype("<i2"), speech(0.1))


def test_an_avatar_that_fails_says_so() -> None:
    async def play(video: AvatarVideo) -> None:
        await asyncio.sleep(0.8)

    with pytest.raises(RuntimeError, match="out of paint"):
        run(play, avatar=Painter(fails_at=2))


def test_nothing_is_left_behind() -> None:
    before, avatar = call_threads(), Painter(takes=0.05)

    async def play(video: AvatarVideo) -> None:
        await video.push_audio(said(speech(3.0)))
        await asyncio.sleep(0.3)
        await video.close()

    run(play, avatar=avatar)
    assert not call_threads() - before and all(session.closed for session in avatar.sessions)
