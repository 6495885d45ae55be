"""espeak-ng through ctypes: many accents and voices, with exact phone times.

The library's state is global to the process, so one synthesis runs at a time.
"""

import ctypes
import threading
from functools import cache
from typing import Any

import numpy as np

from talkingmachines.data.synthetic.visemes import Phone, phones_of_ipa
from talkingmachines.errors import ConfigError, MissingPackageError

_ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029", "en-us-nyc")
_LANGUAGES = ("es", "fr", "it", "de")
_VARIANTS = {
    "train": ("m1", "m2", "m3", "m4", "m7", "f1", "f2", "f3", "f5", "Andrea", "max", "Annie"),
    "heldout": ("m5", "m8", "f4", "linda"),
}

# Constants of speak_lib.h (espeak-ng 1.52).
_SYNCHRONOUS = 2
_PHONEME_EVENTS_IN_IPA = 0x0003
_DONT_EXIT = 0x8000
_UTF8 = 1
_EVENT_END = 0
_EVENT_PHONEME = 7
_RATE, _PITCH, _RANGE = 1, 3, 4

_lock = threading.Lock()


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def names(split: str) -> tuple[str, ...]:
    """accent+variant of every voice of the split."""
    languages = _ACCENTS + (_LANGUAGES if split == "train" else ())
    return tuple(f"{language}+{variant}" for language in languages for variant in _VARIANTS[split])


def speak(text: str, name: str, rng: np.random.Generator) -> tuple[np.ndarray, int, list[Phone]]:
    """Returns samples (float32), their rate, and the phones. Raises ConfigError when the voice is refused."""
    rate, pitch, spread = int(rng.integers(135, 205)), int(rng.integers(30, 71)), int(rng.integers(35, 75))
    with _lock:
        library, sample_rate = _library()
        if library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ConfigError(f"espeak-ng has no voice {name!r}: use one of voices_espeak.names()")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, spread)):
            library.espeak_SetParameter(parameter, value, 0)
        samples, events = _collect(library, text)
    ends = [time for time, _ in events[1:]] + [len(samples) / sample_rate]
    phones = [
        phone for (start, symbol), end in zip(events, ends, strict=True) for phone in phones_of_ipa(symbol, start, end)
    ]
    return samples, sample_rate, phones


def _collect(library: Any, text: str) -> tuple[np.ndarray, list[tuple[float, str]]]:
    pieces: list[np.ndarray] = []
    events: list[tuple[float, str]] = []

    def receive(wave: Any, count: int, event: Any) -> int:
        if count > 0:
            pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while event[index].type != _EVENT_END:
            if event[index].type == _EVENT_PHONEME:
                symbol = bytes(event[index].id.string).split(b"\0")[0].decode("utf-8", "ignore")
                events.append((event[index].audio_position / 1000, symbol))
            index += 1
        return 0

    callback = _Callback(receive)
    library.espeak_SetSynthCallback(callback)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    encoded = text.encode() + b"\0"
    library.espeak_Synth(encoded, len(encoded), 0, 1, 0, _UTF8, None, None)
    return np.concatenate(pieces).astype(np.float32) / 32768, events


@cache
def _library() -> tuple[Any, int]:
    try:
        import espeakng_loader
    except ImportError as error:
        raise MissingPackageError("espeak-ng is missing: pip install 'talkingmachines[data]'") from error
    library = espeakng_loader.load_library()
    data = espeakng_loader.get_data_path().encode()
    sample_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS_IN_IPA | _DONT_EXIT)
    return library, sample_rate
