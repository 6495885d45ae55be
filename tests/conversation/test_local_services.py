"""The services of the local voice: what each hears, thinks and says, and when it is told to stop."""

import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from call_parts import run_pipeline
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADState
from pipecat.frames.frames import AggregatedTextFrame, LLMContextFrame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.processors.aggregators.llm_context import LLMContext

from talkingmachines.conversation.voices.services import LocalLanguage, LocalRecognition, LocalSpeech, PauseAnalyzer
from talkingmachines.conversation.voices.streams import Begun


def test_a_thread_is_told_when_nobody_wants_more() -> None:
    told = threading.Event()

    def make(stopped: threading.Event):
        for number in range(1000):
            yield number
            time.sleep(0.005)
            if stopped.is_set():
                told.set()
                return

    async def take() -> list[int]:
        taken = []
        items = Begun(make).items()
        async for item in items:
            taken.append(item)
            if item == 3:
                break
        await items.aclose()
        return taken

    assert asyncio.run(take()) == [0, 1, 2, 3] and told.wait(2)


def test_an_error_on_the_thread_comes_out() -> None:
    def make(stopped: threading.Event):
        yield 1
        raise ValueError("broken")

    async def take() -> None:
        async for _ in Begun(make).items():
            pass

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(take())


def test_a_local_model_answers_part_by_part() -> None:
    heard: list = []

    def reply(messages, stopped):
        heard.extend(messages)
        yield from ("Fine, ", "so far ", "at least, ", "thanks.")

    context = LLMContext([{"role": "user", "content": "How are you?"}])

    async def play(worker) -> None:
        await worker.queue_frame(LLMContextFrame(context))

    seen, errors = asyncio.run(run_pipeline([LocalLanguage(reply, "test", "You are Ada.")], play))
    assert [frame.text for frame in seen.of(AggregatedTextFrame)] == [
        "Fine, so far at least,",
        "thanks.",
    ] and not errors
    assert heard == [{"role": "system", "content": "You are Ada."}, {"role": "user", "content": "How are you?"}]


@pytest.mark.parametrize(("expected", "asked"), [("How are you?", 1), ("How are", 2), (None, 2)])
def test_an_answer_is_begun_before_it_is_asked_for(expected: str | None, asked: int) -> None:
    """None: it was begun, and then speech went on."""
    heard: list[str] = []
    answered, given_up = threading.Event(), threading.Event()

    def reply(messages, stopped):
        heard.append(messages[-1]["content"])
        forgotten = len(heard) < asked
        answered.set()
        try:
            yield "Fine, so far. "
            assert not forgotten or stopped.wait(5)
        finally:
            if forgotten and stopped.is_set():
                given_up.set()

    context = LLMContext()
    language = LocalLanguage(reply, "test", "You are Ada.", context)

    async def play(worker) -> None:
        language.expect(expected or "How are you?")
        await asyncio.to_thread(answered.wait, 5)
        if expected is None:
            language.expect(None)
        context.add_message({"role": "user", "content": "How are you?"})
        await worker.queue_frame(LLMContextFrame(context))

    seen, errors = asyncio.run(run_pipeline([language], play))
    assert [frame.text for frame in seen.of(AggregatedTextFrame)] == ["Fine, so far."] and not errors
    assert len(heard) == asked and heard[-1] == "How are you?" and given_up.wait(5 * (asked - 1)) == (asked == 2)


def test_a_local_model_that_fails_is_reported_and_the_call_goes_on() -> None:
    def reply(messages, stopped):
        yield "Well"
        raise RuntimeError("out of words")

    async def play(worker) -> None:
        await worker.queue_frame(LLMContextFrame(LLMContext([{"role": "user", "content": "?"}])))

    _, errors = asyncio.run(run_pipeline([LocalLanguage(reply, "test", "")], play))
    assert errors == ["the language model failed: out of words"]


def test_pauses_are_told_before_a_turn_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pieces are of 40 ms; a pause counts from its second one on, once, and ends with speech."""
    speaking, stopping, quiet = VADState.SPEAKING, VADState.STOPPING, VADState.QUIET
    states = iter([speaking, stopping, speaking, stopping, stopping, stopping, speaking, stopping, stopping, quiet])

    async def analyze_audio(self: SileroVADAnalyzer, buffer: bytes) -> VADState:
        return next(states)

    monkeypatch.setattr(SileroVADAnalyzer, "analyze_audio", analyze_audio)
    told: list[bool] = []
    analyzer = PauseAnalyzer(told.append)
    analyzer.set_sample_rate(16_000)

    async def feed() -> list[int]:
        counts = []
        for _ in range(10):
            await analyzer.analyze_audio(bytes(2 * 640))
            counts.append(len(told))
        return counts

    assert asyncio.run(feed()) == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert told == [True, False, True]


def test_what_was_said_is_recognised_in_the_pause() -> None:
    """Once, and anew when more was said after the pause."""
    heard: list[int] = []

    def recognise(samples: np.ndarray) -> str:
        heard.append(len(samples))
        return f"{len(samples)} samples"

    expected: list[str | None] = []

    async def said(more: bool) -> str:
        recognition = paused_after(bytes(2 * 1000), recognise, expected.append)
        if more:
            recognition.paused(False)
        return await text_of(recognition, bytes(2 * 12_000))

    assert asyncio.run(said(more=False)) == "9000 samples" and heard == [9000]
    assert expected == [None, "9000 samples"]
    assert asyncio.run(said(more=True)) == "12000 samples" and heard == [9000, 9000, 12000]
    assert expected == [None, "9000 samples", None, None]


def test_a_pause_in_the_next_sentence_does_not_take_the_place_of_one_that_waits() -> None:
    """Where recognition is slower than speech, the segment before is still to be recognised."""
    waiting, next_one = bytes(2 * 1000), b"\1" * 2 * 2000

    async def said() -> list[str]:
        recognition = paused_after(next_one, lambda samples: f"{len(samples)} samples")
        silence = bytes(2 * 8000)
        return [await text_of(recognition, sound + silence) for sound in (waiting, next_one)]

    assert asyncio.run(said()) == ["9000 samples", "10000 samples"]


def paused_after(
    sound: bytes, recognise: Callable[[np.ndarray], str], expect: Callable[[str | None], None] | None = None
) -> LocalRecognition:
    recognition = LocalRecognition(recognise, "fake", expect)
    recognition._sample_rate = 16_000
    recognition._audio_buffer += sound
    recognition.paused(True)
    return recognition


async def text_of(recognition: LocalRecognition, audio: bytes) -> str:
    (frame,) = [frame async for frame in recognition.run_stt(audio)]
    return frame.text


def test_sentences_are_spoken_at_the_voices_own_rate() -> None:
    spoken: list[str] = []

    def speak(text: str, name: str):
        spoken.append(text)
        for _ in range(2):
            yield np.full(2205, 0.5, np.float32), 22050

    async def play(worker) -> None:
        await worker.queue_frame(TTSSpeakFrame("**Hello** there."))
        await worker.queue_frame(TTSSpeakFrame("..."))

    seen, _ = asyncio.run(run_pipeline([LocalSpeech(speak, "test", "plain")], play))
    assert spoken == ["Hello there."]
    assert [(frame.sample_rate, frame.num_frames) for frame in seen.of(TTSAudioRawFrame)[:2]] == [(22050, 2205)] * 2


def test_a_voice_that_fails_in_a_sentence_is_reported_and_the_call_goes_on() -> None:
    def speak(text: str, name: str):
        yield np.full(2205, 0.5, np.float32), 22050
        raise RuntimeError("hoarse")

    async def play(worker) -> None:
        await worker.queue_frame(TTSSpeakFrame("Hello there."))

    seen, errors = asyncio.run(run_pipeline([LocalSpeech(speak, "test", "plain")], play))
    assert seen.of(TTSAudioRawFrame)[0].num_frames == 2205 and errors == ["the voice failed: hoarse"]
